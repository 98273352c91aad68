//! Exporters that lie: what they seal is whole and theirs, and wrong. It ends their bundle and breaks nothing here.
//!
//! The frames are taken apart and sealed again by hand, as docs/PROTOCOL.md describes it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use alexandria_sync::bundle::{Ending, ImportError, OpenError, VALIDITY_MS, VALIDITY_MS_MAX};
use alexandria_sync::id::{BucketId, Epoch, Seq};
use alexandria_sync::sim::Seeded;
use alexandria_sync::wire::Message;
use proptest::prelude::*;

use super::{NOW_MS, Place, collection};

const SEAL: u8 = 161;

/// A segment's frames, whole.
type Frames = Vec<Vec<u8>>;

/// The segments of a file, without their seals.
fn segments(file: &[u8]) -> Vec<Frames> {
    let mut segments = vec![Frames::new()];
    let mut rest = file;
    while let Some((len, _)) = rest.split_first_chunk::<4>() {
        let (frame, after) = rest.split_at(6 + u32::from_be_bytes(*len) as usize);
        rest = after;
        if frame[4] == SEAL {
            segments.push(Frames::new());
        } else {
            segments.last_mut().expect("there is one").push(frame.to_vec());
        }
    }
    segments.pop();
    segments
}

/// Seals segments, unsigned.
fn sealed(segments: &[Frames]) -> Vec<u8> {
    let mut file = Vec::new();
    for (index, frames) in segments.iter().enumerate() {
        file.extend(frames.iter().flatten());
        let hash = blake3::hash(&file);
        let mut body = minicbor::Encoder::new(Vec::new());
        let end = index + 1 == segments.len();
        body.map(3).unwrap().u8(0).unwrap().u32(index as u32).unwrap();
        body.u8(1).unwrap().bytes(hash.as_bytes()).unwrap().u8(3).unwrap().bool(end).unwrap();
        let body = body.into_writer();
        file.extend((body.len() as u32).to_be_bytes());
        file.extend([SEAL, 0]);
        file.extend(body);
    }
    file
}

fn places() -> (Place, Place) {
    let (exporter, mut importer) = (Place::alone(1), Place::alone(2));
    importer.unsigned = true;
    (exporter, importer)
}

#[test]
fn a_file_sealed_by_hand_as_the_protocol_says_is_taken() {
    let (exporter, importer) = places();
    exporter.live_through(&mut Seeded::new(1), 60);
    let bundle = exporter.export(None);
    assert_eq!(sealed(&segments(&bundle)), bundle);
    importer.import(&sealed(&segments(&bundle))).expect("it is taken");
    assert_eq!(importer.state(), exporter.state());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is changed before it is sealed, nothing panics, and what is here stays sound.
    #[test]
    fn whatever_is_sealed_the_stores_stay_sound(
        seed: u64,
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
    ) {
        let (exporter, importer) = places();
        exporter.live_through(&mut Seeded::new(seed), 40);
        let mut lie = segments(&exporter.export(None));
        let mut frames: Vec<&mut Vec<u8>> = lie.iter_mut().flatten().collect();
        let which = which.index(frames.len());
        let body = frames[which].len() - 6;
        frames[which][6 + at.index(body)] ^= change;
        let lie = sealed(&lie);
        let taken = catch_unwind(AssertUnwindSafe(|| importer.import(&lie)));
        prop_assert!(taken.is_ok(), "it panicked");
        importer.is_sound();
        let receipt = importer.receipt(exporter.peer());
        prop_assert!(!receipt.is_empty());
    }
}

/// Imports a bundle whose last segment ends with `lies`, and tells how that ended.
fn lie(importer: &Place, exporter: &Place, lies: &[Message]) -> Ending {
    let mut segments = segments(&exporter.export(None));
    segments.push(lies.iter().map(|lie| lie.to_frame().to_vec()).collect());
    match importer.import(&sealed(&segments)) {
        Ok(imported) => imported.ending,
        Err(ImportError::Open(error)) => panic!("its head is right: {error}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_no_exporter_may_say_ends_its_bundle() {
    let (exporter, _) = places();
    let bytes = [5; 500];
    let hash = exporter.add_blob(collection(1), &bytes);
    let other = exporter.add_blob(collection(2), &[6; 500]);
    let manifest = {
        let mut chunker = alexandria_sync::chunk::Chunker::new(alexandria_sync::chunk::Chunking::Fixed);
        chunker.update(&bytes);
        chunker.finish().expect("it is small").to_bytes()
    };
    let page = |bucket, next, records| Message::Page { bucket, next: Seq(next), more: false, records, moment: None };
    let lies: [&[Message]; 8] = [
        &[page(BucketId::Site(super::node_id(1)), 1, vec![])],
        &[page(collection(1), 0, vec![])],
        &[page(collection(1), 9, vec![vec![0xff; 10]])],
        &[Message::Manifest { blob: other, manifest: Some(manifest.clone()) }],
        &[Message::Manifest { blob: hash, manifest: Some(vec![1, 2, 3]) }],
        &[Message::Chunk { blob: hash, index: 0, bytes: bytes.to_vec().into() }],
        &[Message::Pull { bucket: collection(1), after: Seq(0), epoch: Epoch(1), page_bytes: 0, own_too: false }],
        &[Message::Quiet { dealt_with: 1 }],
    ];
    for lies in lies {
        let (_, importer) = places();
        let ending = lie(&importer, &exporter, lies);
        assert!(matches!(ending, Ending::Damaged { .. }), "{lies:?}: {ending:?}");
        assert_eq!(importer.state(), exporter.state(), "what came before stays");
        importer.is_sound();
    }
}

#[test]
fn content_that_is_not_what_its_name_says_is_not_kept() {
    let (exporter, importer) = places();
    let hash = exporter.add_blob(collection(1), &[5; 500]);
    let mut segments = segments(&exporter.export(None));
    let chunk = segments.iter_mut().flatten().find(|frame| frame[4] == 8).expect("it carries the blob");
    *chunk.last_mut().expect("it has bytes") ^= 1;
    let imported = importer.import(&sealed(&segments)).expect("it is taken");
    assert!(matches!(imported.ending, Ending::Damaged { .. }), "{imported:?}");
    assert_eq!(importer.site.blobs.whole(hash), None);
    // And the right one is taken afterwards.
    assert_eq!(importer.now_ms, NOW_MS);
    importer.import(&exporter.export(None)).expect("it is taken");
    assert!(importer.site.blobs.whole(hash).is_some());
}

#[test]
fn a_bundle_that_gives_itself_more_than_180_days_is_refused() {
    let (exporter, importer) = places();
    exporter.add_blob(collection(1), &[5; 500]);
    let mut segments = segments(&exporter.export(None));
    let head = &mut segments[0][0];
    let expires = (NOW_MS + VALIDITY_MS).to_be_bytes();
    let at = head.windows(8).position(|window| window == expires).expect("the head says until when");
    head[at..at + 8].copy_from_slice(&(NOW_MS + VALIDITY_MS_MAX + 1).to_be_bytes());
    let refusal = importer.import(&sealed(&segments)).expect_err("it is refused");
    assert!(matches!(refusal, ImportError::Open(OpenError::TooLongLived { .. })), "{refusal:?}");
    assert!(importer.state().is_empty());
}
