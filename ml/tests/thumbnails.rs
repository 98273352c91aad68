//! Thumbnails: their size, their format, their limits.

use alexandria_ml::{THUMBNAIL_EDGE_PX_MAX, ThumbnailError};
use image::ImageFormat;
use proptest::prelude::*;

use crate::images::{analyser, encoded, scene};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The longer edge is what was asked for, or the image's own; the shape stays.
    #[test]
    fn a_thumbnail_fits(width in 1u32..400, height in 1u32..400, edge in 1u32..500) {
        let jpeg = analyser().thumbnail(&encoded(&scene(width, height), ImageFormat::Png), edge).expect("the image is whole");
        prop_assert_eq!(jpeg.width_px.max(jpeg.height_px), edge.min(width.max(height)));
        let decoded = image::load_from_memory_with_format(&jpeg.bytes, ImageFormat::Jpeg).expect("a JPEG");
        prop_assert_eq!((decoded.width(), decoded.height()), (jpeg.width_px, jpeg.height_px));
        let expected = f64::from(width.min(height)) * f64::from(jpeg.width_px.max(jpeg.height_px)) / f64::from(width.max(height));
        prop_assert!((f64::from(jpeg.width_px.min(jpeg.height_px)) - expected).abs() <= 1.0);
    }
}

#[test]
fn an_edge_out_of_range_is_refused() {
    let bytes = encoded(&scene(10, 10), ImageFormat::Png);
    for edge in [0, THUMBNAIL_EDGE_PX_MAX + 1, u32::MAX] {
        assert!(
            matches!(analyser().thumbnail(&bytes, edge), Err(ThumbnailError::EdgeOutOfRange(refused)) if refused == edge)
        );
    }
}

#[test]
fn a_thumbnail_looks_like_its_image() {
    let image = scene(1200, 800);
    let jpeg = analyser().thumbnail(&encoded(&image, ImageFormat::Png), 300).expect("the image is whole");
    let small = image::load_from_memory(&jpeg.bytes).expect("a JPEG").into_rgb8();
    for (x, y) in [(20, 10), (105, 120), (280, 180), (200, 100)] {
        let (wanted, seen) = (image.get_pixel(x * 4 + 2, y * 4 + 2).0, small.get_pixel(x, y).0);
        assert!(
            wanted.iter().zip(seen).all(|(&wanted, seen)| wanted.abs_diff(seen) < 12),
            "{x},{y}: {wanted:?} {seen:?}"
        );
    }
}
