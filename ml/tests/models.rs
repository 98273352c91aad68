//! The model that is shipped, and models that nobody should open.

use std::borrow::Cow;

use alexandria_ml::{Analyser, Config, ModelLimits, ModelPackage, OpenAnalyserError, OpenModelError};
use proptest::prelude::*;

/// Pages that the model has not learned from, and what ONNX Runtime makes of each (`training/fixtures.py`).
const PAGES: [(&str, &[u8], f32); 5] = include!("data/pages.in");

#[test]
fn the_shipped_model_knows_its_pages_as_onnx_runtime_does() {
    let analyser = Analyser::new(Config { label_score_min: 0.0, ..Config::default() }).expect("an analyser");
    for (kind, bytes, score) in PAGES {
        let annotation = analyser.analyse(bytes).expect("the page is whole");
        let best = &annotation.labels[0];
        println!("{kind}: {:?}", annotation.labels);
        assert_eq!(best.name, kind);
        assert!((best.score - score).abs() < 0.05, "{kind}: {} here, {score} there", best.score);
        assert_eq!(annotation.labels.len(), 5);
        assert!((annotation.labels.iter().map(|label| label.score).sum::<f32>() - 1.0).abs() < 1e-3);
        assert_eq!(annotation.model.expect("a model").name, "page-kind");
    }
}

#[test]
fn labels_below_the_minimum_are_left_out() {
    let analyser = Analyser::new(Config { label_score_min: 0.6, ..Config::default() }).expect("an analyser");
    for (kind, bytes, score) in PAGES {
        let labels = analyser.analyse(bytes).expect("the page is whole").labels;
        assert!(labels.iter().all(|label| label.score >= 0.6), "{kind}: {labels:?}");
        assert_eq!(labels.len(), usize::from(score >= 0.6), "{kind}: {labels:?}");
    }
    assert!(matches!(
        Analyser::new(Config { label_score_min: f32::NAN, ..Config::default() }),
        Err(OpenAnalyserError::BadScore(_))
    ));
}

#[test]
fn threads_share_an_analyser() {
    let analyser = Analyser::new(Config::default()).expect("an analyser");
    let alone = analyser.analyse(PAGES[1].1).expect("the page is whole");
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| analyser.analyse(PAGES[1].1).expect("the page is whole"))).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), alone);
        }
    });
}

fn shipped() -> Vec<u8> {
    ModelPackage::page_kind().onnx.into_owned()
}

fn open(onnx: Vec<u8>, limits: ModelLimits) -> Result<Analyser, OpenModelError> {
    let package = ModelPackage { onnx: Cow::Owned(onnx), ..ModelPackage::page_kind() };
    Analyser::new(Config { model: Some(package), model_limits: limits, ..Config::default() }).map_err(|refused| {
        match refused {
            OpenAnalyserError::Model { source, .. } => source,
            other @ OpenAnalyserError::BadScore(_) => panic!("not about the model: {other}"),
        }
    })
}

fn refusal(onnx: Vec<u8>) -> OpenModelError {
    open(onnx, ModelLimits::default()).expect_err("refused")
}

/// A protobuf field with a length.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    assert!(length < 1 << 14, "two bytes of length are enough for the tests");
    [&[number << 3 | 2, (length & 0x7F) as u8 | 0x80, (length >> 7) as u8], body].concat()
}

/// The shipped model with more in its graph: fields of one message may come in parts.
fn with_more(graph: &[u8]) -> Vec<u8> {
    [shipped(), field(7, graph)].concat()
}

fn node(operator: &str, inputs: &[&str], attributes: &[u8]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    field(1, &[inputs, field(2, b"more"), field(4, operator.as_bytes()), attributes.to_vec()].concat())
}

#[test]
fn initializers_listed_as_inputs_are_refused_by_name() {
    let refused = refusal(with_more(&field(11, &field(1, b"first.weight"))));
    assert!(matches!(&refused, OpenModelError::InitializerIsInput { name } if name == "first.weight"), "{refused:?}");
}

#[test]
fn what_a_classifier_does_not_need_is_refused() {
    let control_flow = node("If", &["prob"], &field(5, &[field(1, b"then_branch"), field(6, b"")].concat()));
    let unknown = node("Exfiltrate", &["prob"], b"");
    let huge = node("ConstantOfShape", &["head.bias"], b"");
    let grown = node("Add", &["head.weight", "head.bias"], b"");
    let too_early = node("Relu", &["nobody"], b"");
    let twice = field(1, &[field(1, b"prob"), field(2, b"prob"), field(4, b"Relu")].concat());
    let padded = node("MaxPool", &["prob"], &field(5, &[field(1, b"pads"), vec![0x40, 0x80, 0x80, 0x40]].concat()));
    let elsewhere =
        field(5, &[field(8, b"w"), field(13, &[field(1, b"location"), field(2, b"/etc/passwd")].concat())].concat());
    for (name, graph) in [
        ("control flow", control_flow),
        ("Exfiltrate", unknown),
        ("ConstantOfShape", huge),
        ("Add of weights alone", grown),
        ("nobody before it is there", too_early),
        ("prob twice", twice),
        ("a number past", padded),
        ("weights outside the file", elsewhere),
    ] {
        let refused = refusal(with_more(&graph));
        assert!(matches!(&refused, OpenModelError::Unsupported { what } if what.contains(name)), "{name}: {refused:?}");
    }
}

/// Strides of zero divide by zero in the engine: through the C interface that would be the end of the process.
#[test]
fn a_model_that_the_engine_panics_over_is_refused() {
    let mut onnx = shipped();
    let name = onnx.windows(7).position(|part| part == b"strides").expect("the first convolution has strides");
    // Both numbers follow the name, as `ints` (field 8), unpacked.
    for number in onnx[name + 7..name + 11].chunks_mut(2) {
        assert_eq!(number[0], 8 << 3, "a bare number");
        number[1] = 0;
    }
    let refused = refusal(onnx);
    assert!(matches!(refused, OpenModelError::EnginePanicked), "{refused:?}");
}

#[test]
fn a_second_input_and_other_shapes_are_refused() {
    assert!(matches!(refusal(with_more(&field(11, &field(1, b"mask")))), OpenModelError::BadInput { .. }));
    assert!(matches!(refusal(with_more(&field(12, &field(1, b"first")))), OpenModelError::BadOutput { classes: 5 }));
    let package = ModelPackage { classes: vec!["one".into()], ..ModelPackage::page_kind() };
    let refused = Analyser::new(Config { model: Some(package), ..Config::default() }).expect_err("refused");
    assert!(
        matches!(refused, OpenAnalyserError::Model { source: OpenModelError::BadOutput { classes: 1 }, .. }),
        "{refused:?}"
    );
}

#[test]
fn each_limit_is_the_one_that_refuses() {
    let refused = |change: fn(&mut ModelLimits)| {
        let mut limits = ModelLimits::default();
        change(&mut limits);
        open(shipped(), limits).expect_err("refused")
    };
    assert!(matches!(
        refused(|limits| limits.file_bytes_max = 1000),
        OpenModelError::FileTooLarge { limit_bytes: 1000, .. }
    ));
    assert!(matches!(refused(|limits| limits.fields_max = 50), OpenModelError::TooManyFields { limit: 50 }));
    assert!(matches!(refused(|limits| limits.input_edge_px_max = 95), OpenModelError::BadInput { limit_px: 95 }));
    assert!(matches!(refused(|limits| limits.classes_max = 4), OpenModelError::BadClasses { classes: 5, limit: 4 }));
    assert!(matches!(refused(|limits| limits.elements_max = 50_000), OpenModelError::TooDear { what: "elements", .. }));
    assert!(matches!(
        refused(|limits| limits.multiplications_max = 100_000),
        OpenModelError::TooDear { what: "multiplications", .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn arbitrary_bytes_are_no_model(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(noise, ModelLimits::default()).is_err());
    }

    #[test]
    fn a_truncated_model_is_refused(at in any::<prop::sample::Index>()) {
        let onnx = shipped();
        let end = at.index(onnx.len());
        prop_assert!(open(onnx[..end].to_vec(), ModelLimits::default()).is_err());
    }

    /// It may open, or not; the process goes on either way.
    #[test]
    fn a_damaged_model_never_ends_the_process(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        let mut onnx = shipped();
        // Weights are most of the file; the structure lies before and after them.
        let blocks: Vec<usize> = (0..onnx.len()).filter(|&at| onnx[at..].first().is_some_and(u8::is_ascii_alphanumeric)).collect();
        for (at, value) in flips {
            let at = blocks[at.index(blocks.len())];
            onnx[at] = value;
        }
        if let Ok(analyser) = open(onnx, ModelLimits::default()) {
            let _ = analyser.analyse(PAGES[0].1);
        }
    }
}
