//! What an annotation says about images whose answers are known.

use alexandria_ml::{Annotation, Rgb, distance};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage, imageops};

use crate::images::{FORMATS, analyser, encoded, jpeg, quarters, scene};

fn analysed(bytes: &[u8]) -> Annotation {
    analyser().analyse(bytes).expect("the image is whole")
}

#[test]
fn every_format_gives_the_same_picture() {
    let image = scene(320, 200);
    let reference = analysed(&encoded(&image, ImageFormat::Png));
    for format in FORMATS {
        let annotation = analysed(&encoded(&image, format));
        assert_eq!((annotation.width_px, annotation.height_px), (320, 200), "{format:?}");
        assert!(distance(annotation.perceptual_hash, reference.perceptual_hash) <= 4, "{format:?}");
        assert!(!annotation.dominant_colours.is_empty(), "{format:?}");
    }
}

#[test]
fn the_same_bytes_give_the_same_annotation() {
    let bytes = jpeg(&scene(500, 300), 80);
    assert_eq!(analysed(&bytes), analysed(&bytes));
}

#[test]
fn a_smaller_poorer_copy_stays_near_and_another_picture_is_far() {
    let original = analysed(&encoded(&scene(800, 500), ImageFormat::Png)).perceptual_hash;
    let smaller = imageops::resize(&scene(800, 500), 200, 125, imageops::FilterType::Triangle);
    let copy = analysed(&jpeg(&smaller, 40)).perceptual_hash;
    let mirrored = analysed(&jpeg(&imageops::flip_vertical(&scene(800, 500)), 90)).perceptual_hash;
    let other = analysed(&jpeg(&quarters(800, 500), 90)).perceptual_hash;
    assert!(distance(original, copy) <= 6, "{}", distance(original, copy));
    assert!(distance(original, mirrored) >= 16, "{}", distance(original, mirrored));
    assert!(distance(original, other) >= 16, "{}", distance(original, other));
}

#[test]
fn the_placeholder_is_a_thumb_hash_of_the_picture() {
    let annotation = analysed(&encoded(&quarters(300, 200), ImageFormat::Png));
    let bytes = annotation.placeholder.as_bytes();
    assert!((5..=40).contains(&bytes.len()), "{} bytes", bytes.len());
    assert_eq!(annotation.placeholder.to_string().len(), 2 * bytes.len());
    let (width, height, pixels) = thumbhash::thumb_hash_to_rgba(bytes).expect("a ThumbHash");
    assert!((width as f32 / height as f32 - 1.5).abs() < 0.2, "{width}x{height}");
    let corner = &pixels[..3];
    assert!(corner[0] > 150 && corner[1] < 120 && corner[2] < 120, "the top left is red: {corner:?}");
}

#[test]
fn what_is_transparent_counts_as_white() {
    let image = RgbaImage::from_fn(64, 64, |x, _| if x < 44 { Rgba([0, 0, 0, 0]) } else { Rgba([10, 90, 40, 255]) });
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgba8(image).write_to(&mut bytes, ImageFormat::Png).expect("the test image encodes");
    let colours = analysed(bytes.get_ref()).dominant_colours;
    assert_eq!(colours[0], Rgb { red: 255, green: 255, blue: 255 });
    assert_eq!(colours[1], Rgb { red: 10, green: 90, blue: 40 });
}

#[test]
fn extreme_shapes_are_images_too() {
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 700)] {
        let annotation = analysed(&encoded(&scene(width, height), ImageFormat::Png));
        assert_eq!((annotation.width_px, annotation.height_px), (width, height));
    }
}

#[test]
fn sixteen_bits_and_grey_are_images_too() {
    let image = DynamicImage::ImageRgb8(scene(600, 400));
    let grey16 = DynamicImage::ImageLuma16(image.to_luma16());
    let colour16 = DynamicImage::ImageRgba16(image.to_rgba16());
    let reference = analysed(&encoded(&scene(600, 400), ImageFormat::Png)).perceptual_hash;
    for deep in [grey16, colour16] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        deep.write_to(&mut bytes, ImageFormat::Png).expect("the test image encodes");
        assert!(distance(analysed(bytes.get_ref()).perceptual_hash, reference) <= 6, "{:?}", deep.color());
    }
}
