//! Two short stand-ins for an image: one to show, one to compare.
//!
//! The placeholder is a ThumbHash: about 25 bytes that a browser turns into a blurred picture of the right proportions. The
//! perceptual hash is the classic 64-bit pHash: low frequencies of the brightness, each above or below their median.

use std::fmt;

use image::{RgbImage, RgbaImage, imageops};
use image_hasher::{HashAlg, HasherConfig};

/// ThumbHash takes no more on an edge.
const PLACEHOLDER_EDGE_PX: u32 = 100;
/// Bits of each edge of the perceptual hash.
const HASH_EDGE: u32 = 8;

/// A [ThumbHash](https://evanw.github.io/thumbhash/). Displays as lower-case hexadecimal.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Placeholder(Vec<u8>);

impl Placeholder {
    /// Of an image at most some hundred pixels wide.
    pub(crate) fn of(image: &RgbaImage) -> Self {
        let longer = image.width().max(image.height());
        let edge =
            |edge: u32| if longer <= PLACEHOLDER_EDGE_PX { edge } else { (edge * PLACEHOLDER_EDGE_PX / longer).max(1) };
        let small = imageops::thumbnail(image, edge(image.width()), edge(image.height()));
        Self(thumbhash::rgba_to_thumb_hash(small.width() as usize, small.height() as usize, small.as_raw()))
    }

    /// As every ThumbHash library takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// How unlike two perceptual hashes are: 0 (alike) to 64. Below about 10 it is most likely one picture.
pub fn distance(a: u64, b: u64) -> u32 {
    (a ^ b).count_ones()
}

pub(crate) fn perceptual_hash(image: RgbImage) -> u64 {
    let config = HasherConfig::with_bytes_type::<[u8; 8]>();
    let hasher = config.hash_size(HASH_EDGE, HASH_EDGE).hash_alg(HashAlg::Median).preproc_dct().to_hasher();
    u64::from_be_bytes(hasher.hash_image(&image::DynamicImage::ImageRgb8(image)).into_inner())
}
