//! From the bytes of an image file to pixels, at a cost known before it is paid.
//!
//! The format is told by the bytes, never by a name. The header is read first; what it asks for is held against
//! [`DecodeLimits`] before memory is taken. Of several frames or pages the first counts. Colour profiles are ignored.
//!
//! Not here: what is then found in the pixels.

mod jpeg_end;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, RgbImage, RgbaImage,
};

/// What decoding one image may cost.
#[derive(Clone, Debug)]
pub struct DecodeLimits {
    /// Bytes of the file.
    pub input_bytes_max: usize,
    /// Width times height.
    pub pixels_max: u64,
    /// Width, and height.
    pub edge_px_max: u32,
    /// Bytes of the decoded pixels; the decoder's own buffers may take as many again.
    pub decoded_bytes_max: u64,
}

impl Default for DecodeLimits {
    /// An A4 page at 600 dpi (35 megapixels) in 8 bits passes; a node with 1 GB of memory survives it.
    fn default() -> Self {
        Self { input_bytes_max: 64 << 20, pixels_max: 40_000_000, edge_px_max: 32_768, decoded_bytes_max: 192 << 20 }
    }
}

/// Why bytes are not an image here.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file is larger than [`DecodeLimits::input_bytes_max`].
    #[error("the image file has {size_bytes} bytes; the limit is {limit_bytes}")]
    FileTooLarge {
        /// What came.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// Not JPEG, PNG, WebP, GIF or TIFF.
    #[error("not a JPEG, PNG, WebP, GIF or TIFF image")]
    UnknownFormat,
    /// The header asks for more pixels than [`DecodeLimits::pixels_max`] or [`DecodeLimits::edge_px_max`].
    #[error(
        "the image has {width_px} x {height_px} pixels; the limits are {limit_pixels} pixels and {limit_edge_px} on an edge"
    )]
    TooManyPixels {
        /// What the header says.
        width_px: u32,
        /// What the header says.
        height_px: u32,
        /// What is allowed in all.
        limit_pixels: u64,
        /// What is allowed on each edge.
        limit_edge_px: u32,
    },
    /// Decoding would take more than [`DecodeLimits::decoded_bytes_max`].
    #[error("the {format} image takes more memory than the limit of {limit_bytes} bytes")]
    TooMuchMemory {
        /// `JPEG` and so on.
        format: &'static str,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The file stops before the image does.
    #[error("the {format} image is cut off")]
    Truncated {
        /// `JPEG` and so on.
        format: &'static str,
    },
    /// The format is known, this kind of it is not.
    #[error("this kind of {format} image is not supported")]
    Unsupported {
        /// `JPEG` and so on.
        format: &'static str,
        /// What the decoder says.
        source: ImageError,
    },
    /// The bytes contradict the format.
    #[error("the {format} image is damaged")]
    Damaged {
        /// `JPEG` and so on.
        format: &'static str,
        /// What the decoder says.
        source: ImageError,
    },
    /// A bug in the decoder that this file found; it costs the file, not the worker.
    #[error("the {format} decoder gave up on this image")]
    DecoderPanicked {
        /// `JPEG` and so on.
        format: &'static str,
    },
}

/// Decoded pixels as stored, and how to turn them for display.
pub(crate) struct Picture {
    stored: DynamicImage,
    orientation: Orientation,
}

/// Decodes `bytes` if that stays within `limits`.
pub(crate) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture, DecodeError> {
    if bytes.len() > limits.input_bytes_max {
        return Err(DecodeError::FileTooLarge { size_bytes: bytes.len(), limit_bytes: limits.input_bytes_max });
    }
    let format = image::guess_format(bytes).map_err(|_| DecodeError::UnknownFormat)?;
    let name = name_of(format).ok_or(DecodeError::UnknownFormat)?;
    // The decoder turns a JPEG that was cut off into one with grey below, and says nothing.
    if format == ImageFormat::Jpeg && !jpeg_end::is_reached(bytes) {
        return Err(DecodeError::Truncated { format: name });
    }
    catch_unwind(AssertUnwindSafe(|| decode_as(bytes, format, name, limits)))
        .unwrap_or(Err(DecodeError::DecoderPanicked { format: name }))
}

fn decode_as(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &DecodeLimits,
) -> Result<Picture, DecodeError> {
    let refuse = |error| refusal(error, name, limits);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Edges are checked below, where the answer can say what they are.
    let mut reserve = Limits::no_limits();
    reserve.max_alloc = Some(limits.decoded_bytes_max);
    reader.limits(reserve.clone());
    let mut decoder = reader.into_decoder().map_err(refuse)?;

    let (width_px, height_px) = decoder.dimensions();
    let pixels = u64::from(width_px) * u64::from(height_px);
    if pixels > limits.pixels_max || width_px.max(height_px) > limits.edge_px_max {
        let (limit_pixels, limit_edge_px) = (limits.pixels_max, limits.edge_px_max);
        return Err(DecodeError::TooManyPixels { width_px, height_px, limit_pixels, limit_edge_px });
    }
    reserve.reserve(decoder.total_bytes()).map_err(refuse)?;
    // Metadata that does not parse is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let stored = pixels_of(decoder).map_err(refuse)?;
    Ok(Picture { stored, orientation })
}

fn pixels_of(decoder: impl ImageDecoder) -> ImageResult<DynamicImage> {
    DynamicImage::from_decoder(decoder)
}

fn refusal(error: ImageError, format: &'static str, limits: &DecodeLimits) -> DecodeError {
    match error {
        ImageError::Limits(_) => DecodeError::TooMuchMemory { format, limit_bytes: limits.decoded_bytes_max },
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated { format }
        }
        ImageError::Unsupported(_) => DecodeError::Unsupported { format, source: error },
        error => DecodeError::Damaged { format, source: error },
    }
}

fn name_of(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Png => Some("PNG"),
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Gif => Some("GIF"),
        ImageFormat::Tiff => Some("TIFF"),
        _ => None,
    }
}

impl Picture {
    pub(crate) fn width_px(&self) -> u32 {
        if self.is_turned() { self.stored.height() } else { self.stored.width() }
    }

    pub(crate) fn height_px(&self) -> u32 {
        if self.is_turned() { self.stored.width() } else { self.stored.height() }
    }

    pub(crate) fn exif_orientation(&self) -> u8 {
        self.orientation.to_exif()
    }

    /// A copy for display whose longer edge is at most `max_edge_px`; never larger than the picture.
    ///
    /// Shrinks before it turns, so that no second copy of all pixels is ever held.
    pub(crate) fn fit(&self, max_edge_px: u32) -> RgbaImage {
        let (width, height) = (self.stored.width(), self.stored.height());
        let mut copy = if width.max(height) <= max_edge_px {
            DynamicImage::ImageRgba8(self.stored.to_rgba8())
        } else {
            // Averaging whole boxes is fast and right for a large step; the last one at most halves, smoothly.
            let (rough_width, rough_height) = shrunk(width, height, max_edge_px.saturating_mul(2));
            let rough = if (rough_width, rough_height) == (width, height) {
                DynamicImage::ImageRgba8(self.stored.to_rgba8())
            } else {
                DynamicImage::ImageRgba8(self.stored.thumbnail_exact(rough_width, rough_height).into_rgba8())
            };
            let (fine_width, fine_height) = shrunk(width, height, max_edge_px);
            rough.resize_exact(fine_width, fine_height, FilterType::CatmullRom)
        };
        copy.apply_orientation(self.orientation);
        copy.into_rgba8()
    }

    fn is_turned(&self) -> bool {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        matches!(self.orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    }
}

/// `width` x `height` shrunk to a longer edge of at most `max_edge`, both at least 1.
fn shrunk(width: u32, height: u32, max_edge: u32) -> (u32, u32) {
    let longer = width.max(height).max(1);
    if longer <= max_edge {
        return (width, height);
    }
    let scale = |edge: u32| (u64::from(edge) * u64::from(max_edge)).div_ceil(u64::from(longer)).max(1) as u32;
    (scale(width), scale(height))
}

/// What is seen of `image` on white paper.
pub(crate) fn over_white(image: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0;
        let blend =
            |value: u8| ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8;
        image::Rgb([blend(red), blend(green), blend(blue)])
    })
}
