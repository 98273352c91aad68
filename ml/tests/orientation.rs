//! All eight EXIF orientations, seen in colours of the corners.

use crate::images::{analyser, encoded, jpeg, quarters, with_exif_orientation};

/// The corners as displayed, from the top left by rows, for each orientation of [`quarters`].
const DISPLAYED: [(u8, &str); 8] =
    [(1, "RGBW"), (2, "GRWB"), (3, "WBGR"), (4, "BWRG"), (5, "RBGW"), (6, "BRWG"), (7, "WGBR"), (8, "GWRB")];

fn corners(jpeg: &[u8]) -> String {
    let image = image::load_from_memory(jpeg).expect("a thumbnail decodes").into_rgb8();
    let (width, height) = image.dimensions();
    let places = [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| (width * x / 4, height * y / 4));
    places
        .map(|(x, y)| match image.get_pixel(x, y).0.map(|channel| channel > 127) {
            [true, false, false] => 'R',
            [false, true, false] => 'G',
            [false, false, true] => 'B',
            [true, true, true] => 'W',
            other => panic!("no corner looks like {other:?}"),
        })
        .iter()
        .collect()
}

#[test]
fn every_exif_orientation_is_applied() {
    let stored = jpeg(&quarters(64, 48), 95);
    for (orientation, displayed) in DISPLAYED {
        let bytes = with_exif_orientation(&stored, orientation);
        let annotation = analyser().analyse(&bytes).expect("the image is whole");
        let size = if orientation < 5 { (64, 48) } else { (48, 64) };
        assert_eq!((annotation.width_px, annotation.height_px), size, "orientation {orientation}");
        assert_eq!(annotation.orientation, orientation);

        for edge in [32, 1000] {
            let thumbnail = analyser().thumbnail(&bytes, edge).expect("the image is whole");
            assert_eq!(corners(&thumbnail.bytes), displayed, "orientation {orientation}, edge {edge}");
            assert_eq!(thumbnail.width_px > thumbnail.height_px, orientation < 5);
        }
    }
}

#[test]
fn an_orientation_that_does_not_exist_changes_nothing() {
    let stored = jpeg(&quarters(64, 48), 95);
    for bytes in [
        with_exif_orientation(&stored, 0),
        with_exif_orientation(&stored, 9),
        encoded(&quarters(64, 48), image::ImageFormat::Png),
    ] {
        assert_eq!(analyser().analyse(&bytes).expect("the image is whole").orientation, 1);
        assert_eq!(corners(&analyser().thumbnail(&bytes, 64).expect("the image is whole").bytes), "RGBW");
    }
}
