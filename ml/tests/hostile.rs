//! Files that lie, stop early or are no images: refused with a reason, never a panic.

use alexandria_ml::{AnalyseError, Analyser, Config, DecodeError, DecodeLimits};
use image::ImageFormat;
use proptest::prelude::*;

use crate::images::{FORMATS, encoded, headers, jpeg, scene};

fn without_model() -> Config {
    Config {
        #[cfg(feature = "models")]
        model: None,
        ..Config::default()
    }
}

fn refusal(bytes: &[u8], decode: DecodeLimits) -> DecodeError {
    let analyser = Analyser::new(Config { decode, ..without_model() }).expect("an analyser");
    match analyser.analyse(bytes) {
        Err(AnalyseError::Decode(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_header_of_60000_by_60000_is_refused_in_every_format() {
    for (format, bytes) in headers(60_000) {
        let refusal = refusal(&bytes, DecodeLimits::default());
        assert!(
            matches!(refusal, DecodeError::TooManyPixels { width_px: 60_000, height_px: 60_000, .. }),
            "{format:?}: {refusal:?}"
        );
        assert!(refusal.to_string().contains("60000 x 60000"));
    }
}

#[test]
fn each_limit_is_the_one_that_refuses() {
    let bytes = encoded(&scene(200, 100), ImageFormat::Png);
    let limits = |change: fn(&mut DecodeLimits)| {
        let mut limits = DecodeLimits::default();
        change(&mut limits);
        refusal(&bytes, limits)
    };
    assert!(matches!(
        limits(|limits| limits.input_bytes_max = 100),
        DecodeError::FileTooLarge { limit_bytes: 100, .. }
    ));
    assert!(matches!(
        limits(|limits| limits.pixels_max = 19_999),
        DecodeError::TooManyPixels { limit_pixels: 19_999, .. }
    ));
    assert!(matches!(limits(|limits| limits.edge_px_max = 199), DecodeError::TooManyPixels { limit_edge_px: 199, .. }));
    assert!(matches!(
        limits(|limits| limits.decoded_bytes_max = 59_999),
        DecodeError::TooMuchMemory { limit_bytes: 59_999, .. }
    ));

    let exact =
        DecodeLimits { input_bytes_max: bytes.len(), pixels_max: 20_000, edge_px_max: 200, ..DecodeLimits::default() };
    let analyser = Analyser::new(Config { decode: exact, ..without_model() }).expect("an analyser");
    assert!(analyser.analyse(&bytes).is_ok());
}

#[test]
fn what_is_no_image_is_called_that() {
    for bytes in [&b""[..], b"hello", b"%PDF-1.7\n", b"PK\x03\x04", b"BM\x46\0\0\0\0\0\0\0", &[0; 5000]] {
        assert!(matches!(refusal(bytes, DecodeLimits::default()), DecodeError::UnknownFormat));
    }
}

#[test]
fn an_image_cut_in_half_is_refused_in_every_format() {
    for format in FORMATS {
        let bytes = encoded(&scene(300, 200), format);
        let refusal = refusal(&bytes[..bytes.len() / 2], DecodeLimits::default());
        assert!(
            matches!(refusal, DecodeError::Truncated { .. } | DecodeError::Damaged { .. }),
            "{format:?}: {refusal:?}"
        );
    }
}

#[test]
fn a_name_is_never_believed() {
    // A PNG stays one, whatever it is called: there is no name to call it by. Only the magic bytes lie here.
    let mut bytes = jpeg(&scene(64, 64), 80);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    assert!(matches!(
        refusal(&bytes, DecodeLimits::default()),
        DecodeError::Damaged { format: "PNG", .. } | DecodeError::Truncated { .. }
    ));
}

/// Limits under which hundreds of strange files are tried quickly.
fn tight() -> Analyser {
    let decode =
        DecodeLimits { input_bytes_max: 1 << 16, pixels_max: 1 << 16, edge_px_max: 4096, decoded_bytes_max: 1 << 20 };
    Analyser::new(Config { decode, ..without_model() }).expect("an analyser")
}

const MAGICS: [&[u8]; 7] = [
    b"\xFF\xD8\xFF\xE0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"GIF89a",
    b"II\x2a\0\x08\0\0\0",
    b"MM\0\x2a\0\0\0\x08",
    b"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_never_panic(magic in 0..MAGICS.len(), noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let bytes = [MAGICS[magic], &noise].concat();
        let refused = tight().analyse(&bytes);
        prop_assert!(!matches!(refused, Err(AnalyseError::Decode(DecodeError::DecoderPanicked { .. }))), "{refused:?}");
    }

    #[test]
    fn damaged_images_never_panic(format in 0..FORMATS.len(), cut in 0.0..1.0f64, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let mut bytes = encoded(&scene(40, 30), FORMATS[format]);
        bytes.truncate((bytes.len() as f64 * (1.0 - cut * cut * cut)) as usize);
        for (at, value) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let analyser = tight();
        let refused = analyser.analyse(&bytes);
        prop_assert!(!matches!(refused, Err(AnalyseError::Decode(DecodeError::DecoderPanicked { .. }))), "{refused:?}");
        prop_assert_eq!(refused.is_ok(), analyser.thumbnail(&bytes, 16).is_ok());
    }

    /// No beginning of a whole file passes for the image.
    #[test]
    fn truncated_jpegs_are_always_refused(at in any::<prop::sample::Index>()) {
        let bytes = jpeg(&scene(60, 40), 85);
        prop_assert!(tight().analyse(&bytes[..at.index(bytes.len())]).is_err());
    }
}
