//! Images made for the tests: drawn and encoded here, so that nothing lies about as a file.

use std::io::Cursor;
use std::sync::LazyLock;

use alexandria_ml::{Analyser, Config};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, ImageFormat, Rgb, RgbImage};

/// One for all tests: opening the model takes longer than most of them.
pub(crate) fn analyser() -> &'static Analyser {
    static ANALYSER: LazyLock<Analyser> = LazyLock::new(|| Analyser::new(Config::default()).expect("an analyser"));
    &ANALYSER
}

/// A gradient with a dark disc left of the middle and a light bar at the top: no symmetry, little detail.
pub(crate) fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (across, down) = (x as f32 / width as f32, y as f32 / height as f32);
        let disc = (across - 0.35).powi(2) + (down - 0.6).powi(2) < 0.04;
        if disc {
            Rgb([20, 30, 60])
        } else if down < 0.15 {
            Rgb([250, 250, 200])
        } else {
            Rgb([(80.0 + 120.0 * across) as u8, 120, (200.0 - 150.0 * down) as u8])
        }
    })
}

/// Red, green on top; blue, white below: one colour in each quarter.
pub(crate) fn quarters(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([255, 255, 255]),
    })
}

pub(crate) fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image.clone()).write_to(&mut bytes, format).expect("the test image encodes");
    bytes.into_inner()
}

pub(crate) fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(image.as_raw(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .expect("the test image encodes");
    bytes
}

/// `jpeg` with an EXIF segment that asks for `orientation`.
pub(crate) fn with_exif_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    // Big-endian TIFF with one entry: tag 0x0112, SHORT, one value.
    let tiff = [b'M', b'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
    let segment = [&b"Exif\0\0"[..], &tiff].concat();
    let length = u16::try_from(segment.len() + 2).expect("the segment is short").to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &segment, &jpeg[2..]].concat()
}

/// All formats that an analyser takes.
pub(crate) const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Tiff];

/// The start of a file of each format whose header asks for `edge` x `edge` pixels, with next to nothing behind it.
pub(crate) fn headers(edge: u16) -> Vec<(ImageFormat, Vec<u8>)> {
    let [high, low] = edge.to_be_bytes();
    let small = [low, high];
    let wide = u32::from(edge);
    let mut png = encoded(&RgbImage::new(1, 1), ImageFormat::Png);
    png[16..20].copy_from_slice(&wide.to_be_bytes());
    png[20..24].copy_from_slice(&wide.to_be_bytes());
    let sum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());

    let mut jpeg = jpeg(&RgbImage::new(8, 8), 80);
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a baseline frame");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[high, low, high, low]);

    let mut gif = encoded(&RgbImage::new(1, 1), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[small, small].concat());

    let mut webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    let edge_less_one = (wide - 1).to_le_bytes();
    webp.extend_from_slice(&edge_less_one[..3]);
    webp.extend_from_slice(&edge_less_one[..3]);
    webp.extend_from_slice(b"VP8L\x05\0\0\0\x2f\0\0\0\0\0");

    let mut tiff = b"II\x2a\0\x08\0\0\0\x08\0".to_vec();
    for (tag, value) in
        [(256, wide), (257, wide), (258, 8), (259, 1), (262, 1), (273, 8), (278, wide), (279, wide * wide / 2)]
    {
        tiff.extend_from_slice(&u16::to_le_bytes(tag));
        tiff.extend_from_slice(&[4, 0, 1, 0, 0, 0]);
        tiff.extend_from_slice(&value.to_le_bytes());
    }
    tiff.extend_from_slice(&[0; 4]);

    vec![
        (ImageFormat::Png, png),
        (ImageFormat::Jpeg, jpeg),
        (ImageFormat::Gif, gif),
        (ImageFormat::WebP, webp),
        (ImageFormat::Tiff, tiff),
    ]
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 * (sum & 1))))
}
