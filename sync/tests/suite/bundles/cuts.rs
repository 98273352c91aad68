//! Bundles that were cut off or changed on their way.

use alexandria_sync::bundle::{Ending, ImportError};
use alexandria_sync::id::Seq;
use alexandria_sync::sim::Seeded;
use proptest::prelude::*;

use super::{Place, pair};
use crate::fleet::node_id;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a bundle is cut off, what comes before is taken, with cursors that pass nothing, and the rest is told of.
    #[test]
    fn a_bundle_cut_off_anywhere_brings_all_segments_before_the_cut(seed: u64, at in any::<prop::sample::Index>()) {
        let (exporter, importer) = pair();
        exporter.live_through(&mut Seeded::new(seed), 60);
        let bytes = exporter.export(None);
        let cut = at.index(bytes.len());
        let before = importer.all();
        match importer.import(&bytes[..cut]) {
            Ok(imported) => {
                let Ending::Cut { bytes: whole, .. } = imported.ending else {
                    panic!("cut at {cut} of {}: {:?}", bytes.len(), imported.ending)
                };
                prop_assert!(whole <= cut as u64);
                // Nothing of a whole segment is lost: at most one segment lies between.
                prop_assert!(cut as u64 - whole < 10_000, "{whole} of {cut}");
            }
            Err(ImportError::Open(_)) => prop_assert_eq!(importer.all(), before),
            Err(error) => panic!("{error}"),
        }
        importer.is_sound();
        holds_a_prefix(&importer, &exporter);

        let imported = importer.import(&bytes).expect("it is taken");
        prop_assert_eq!(&imported.ending, &Ending::Whole);
        prop_assert_eq!(importer.state(), exporter.state());
        prop_assert_eq!(importer.site.blobs.whole_blobs(), named_blobs(&exporter));
    }

    /// Whatever byte is changed, it is noticed, and nothing after it is taken.
    #[test]
    fn a_changed_byte_anywhere_is_noticed_and_nothing_after_it_is_taken(
        seed: u64,
        at in any::<prop::sample::Index>(),
        change in 1u8..,
        signed: bool,
    ) {
        let (mut exporter, mut importer) = pair();
        if !signed {
            (exporter, importer) = (Place::alone(1), Place::alone(2));
            importer.unsigned = true;
        }
        exporter.live_through(&mut Seeded::new(seed), 60);
        let mut bytes = exporter.export(None);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        match importer.import(&bytes) {
            Ok(imported) => match imported.ending {
                Ending::Cut { bytes: whole, .. } | Ending::Damaged { bytes: whole, .. } => {
                    prop_assert!(whole <= at as u64, "{whole} bytes count, byte {at} is changed");
                }
                Ending::Whole => panic!("byte {at} of {} was changed by {change}, unnoticed", bytes.len()),
            },
            Err(ImportError::Open(_)) => prop_assert!(importer.state().is_empty()),
            Err(error) => panic!("{error}"),
        }
        importer.is_sound();
        holds_a_prefix(&importer, &exporter);
    }
}

/// No row below a cursor is unseen, and nothing is there that the exporter did not write.
fn holds_a_prefix(importer: &Place, exporter: &Place) {
    let (held, written) = (importer.state(), exporter.state());
    for (key, record) in &held {
        assert_eq!(written.get(key), Some(record), "it is what the exporter wrote");
    }
    for (node, bucket, cursor) in importer.site.records.cursors() {
        assert_eq!(node, node_id(1));
        let rows = exporter.site.records.feed(bucket);
        for (seq, record) in rows.into_iter().filter(|(seq, _)| *seq <= cursor.seq) {
            assert!(held.contains_key(&record.key), "row {} of {bucket} was passed at {}", seq.0, cursor.seq.0);
        }
    }
    if importer.site.records.cursors().iter().all(|(_, _, cursor)| cursor.seq == Seq(0)) {
        assert!(held.is_empty());
    }
}

/// The blobs that live records name, in order.
fn named_blobs(place: &Place) -> Vec<alexandria_sync::chunk::BlobHash> {
    use alexandria_sync::domain::{Blob, Typed};
    let named: std::collections::BTreeSet<_> =
        place.site.records.all().iter().filter_map(|record| Blob::from_record(record)?.hash).collect();
    named.into_iter().collect()
}
