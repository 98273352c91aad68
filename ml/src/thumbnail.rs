//! A smaller JPEG of an image: covers, and previews in lists.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};

use crate::decode::{DecodeError, DecodeLimits, decode, over_white};

/// The largest edge that can be asked for.
pub const THUMBNAIL_EDGE_PX_MAX: u32 = 4096;

/// Where photographs look whole and text stays crisp, at about a tenth of a byte for each pixel.
const QUALITY: u8 = 82;

/// A JPEG file in memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Jpeg {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its width.
    pub width_px: u32,
    /// Its height.
    pub height_px: u32,
}

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// Not 1 to [`THUMBNAIL_EDGE_PX_MAX`].
    #[error("a thumbnail's edge is 1 to {THUMBNAIL_EDGE_PX_MAX} pixels, not {0}")]
    EdgeOutOfRange(u32),
    /// The file is at fault; trying again does not help.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The encoder refused.
    #[error("encode a thumbnail")]
    Encode(#[source] ImageError),
}

pub(crate) fn thumbnail(bytes: &[u8], max_edge_px: u32, limits: &DecodeLimits) -> Result<Jpeg, ThumbnailError> {
    if !(1..=THUMBNAIL_EDGE_PX_MAX).contains(&max_edge_px) {
        return Err(ThumbnailError::EdgeOutOfRange(max_edge_px));
    }
    // The decoded image is dropped before the encoder runs.
    let small = over_white(&decode(bytes, limits)?.fit(max_edge_px));
    let (width_px, height_px) = small.dimensions();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode(small.as_raw(), width_px, height_px, ExtendedColorType::Rgb8)
        .map_err(ThumbnailError::Encode)?;
    Ok(Jpeg { bytes: jpeg, width_px, height_px })
}
