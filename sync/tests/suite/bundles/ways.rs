//! Several bundles, both ways, with receipts.

use std::io::{self, Write};
use std::ops::ControlFlow;

use alexandria_sync::absence::Standing;
use alexandria_sync::bundle::{self, BucketRefusal, Ending, Export, Reader};
use alexandria_sync::domain::{Author, Blob, Typed};
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Seq};
use alexandria_sync::sim::Seeded;
use alexandria_sync::sim::absence::Lease;
use alexandria_sync::wire::Hello;
use proptest::prelude::*;

use super::{DAY_MS, NOW_MS, Place, SEGMENT_BYTES, collection, now, pair};
use crate::fleet::{authority, node_id};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Bundles of two exporters, old ones and new ones, some of them twice: the order does not matter.
    #[test]
    fn the_order_of_bundles_does_not_matter_for_what_is_there_in_the_end(
        seed: u64,
        order in Just((0..4usize).chain(0..2).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let authority = authority();
        let rng = &mut Seeded::new(seed);
        let exporters = [Place::member(&authority, 1), Place::member(&authority, 2)];
        let mut bundles = Vec::new();
        for _ in 0..2 {
            for exporter in &exporters {
                exporter.live_through(rng, 30);
                bundles.push(exporter.export(None));
            }
        }
        let (in_order, shuffled) = (Place::member(&authority, 3), Place::member(&authority, 3));
        for bundle in &bundles {
            in_order.import(bundle).expect("it is taken");
        }
        for which in order {
            let imported = shuffled.import(&bundles[which]).expect("it is taken");
            prop_assert_eq!(imported.ending, Ending::Whole);
        }
        shuffled.is_sound();
        prop_assert_eq!(shuffled.all(), in_order.all());
    }

    /// A second import of the same bundle changes nothing, and an older one does not set anything back.
    #[test]
    fn importing_again_changes_nothing(seed: u64) {
        let (exporter, importer) = pair();
        let rng = &mut Seeded::new(seed);
        exporter.live_through(rng, 40);
        let older = exporter.export(None);
        exporter.live_through(rng, 40);
        let newer = exporter.export(None);
        importer.import(&newer).expect("it is taken");
        let before = importer.all();
        for bundle in [&newer, &older, &newer] {
            let imported = importer.import(bundle).expect("it is taken");
            prop_assert_eq!(imported.applied.applied + imported.applied.quarantined, 0);
            prop_assert_eq!(imported.blobs, 0);
            prop_assert_eq!(importer.all(), before.clone());
        }
    }

    /// Sticks that go back and forth between two places bring them together, and the survey says beforehand what comes.
    #[test]
    fn sticks_that_go_both_ways_bring_two_places_together(seed: u64, rounds in 1usize..4) {
        let (one, other) = pair();
        let rng = &mut Seeded::new(seed);
        let (mut for_one, mut for_other): (Option<Reader>, Option<Reader>) = (None, None);
        for _ in 0..rounds {
            one.live_through(rng, 20);
            other.live_through(rng, 20);
            carry(&one, &other, for_other.as_ref());
            for_other = Some(one.read_receipt(&other.receipt(one.peer())));
            carry(&other, &one, for_one.as_ref());
            for_one = Some(other.read_receipt(&one.receipt(other.peer())));
        }
        carry(&one, &other, for_other.as_ref());
        prop_assert_eq!(one.state(), other.state());
        prop_assert_eq!(one.site.blobs.whole_blobs().len(), other.site.blobs.whole_blobs().len());
        one.is_sound();
        other.is_sound();
    }
}

/// Exports, looks, imports; what was said comes true.
fn carry(from: &Place, to: &Place, reader: Option<&Reader>) {
    let bundle = from.export(reader);
    let before = to.state();
    let survey = to.survey(&bundle);
    assert_eq!(to.state(), before, "a look changes nothing");
    let imported = to.import(&bundle).expect("it is taken");
    assert_eq!(imported.ending, Ending::Whole);
    assert!(imported.refused.is_empty() && survey.refused.is_empty(), "{imported:?}");
    let changes = survey.kinds.values().map(|counts| counts.new + counts.changed + counts.deleted).sum::<u64>();
    let known = survey.kinds.values().map(|counts| counts.known).sum::<u64>();
    assert_eq!((changes, known), (imported.applied.applied.into(), imported.applied.superseded.into()));
    assert_eq!((survey.blobs_new, survey.bytes_new), (imported.blobs, imported.blob_bytes));
}

#[test]
fn after_a_receipt_only_what_is_new_is_carried_and_nothing_goes_back() {
    let (one, other) = pair();
    one.live_through(&mut Seeded::new(1), 100);
    let first = one.export(None);
    other.import(&first).expect("it is taken");
    let reader = one.read_receipt(&other.receipt(one.peer()));
    let (second, carried) = one.export_with(Some(&reader), |export| export);
    assert_eq!((carried.records, carried.blobs), (0, 0), "nothing is new");
    assert!(second.len() < 2000, "{} bytes", second.len());

    one.add_blob(collection(1), &[1; 3000]);
    let (third, carried) = one.export_with(Some(&reader), |export| export);
    assert_eq!((carried.records, carried.blobs, carried.blob_bytes), (1, 1, 3000));
    assert!(third.len() < first.len() / 2);
    other.import(&third).expect("it is taken");
    assert_eq!(other.state(), one.state());

    // What came from the other is not carried back to it.
    let back = Reader { node: one.site.id, life: Some(one.peer()), receipt: None };
    let (_, carried) = other.export_with(Some(&back), |export| export);
    assert_eq!((carried.records, carried.blobs), (0, 0));
}

#[test]
fn content_that_a_receipt_lacks_is_carried_however_old_its_record_is() {
    let (one, other) = pair();
    let late = one.add_content(&[9; 2000]);
    one.name_blob(collection(1), late, 2000);
    let held = one.add_blob(collection(1), &[8; 2000]);
    let unrelated = one.add_content(&[7; 2000]);
    let (records_only, carried) = one.export_with(None, |export| Export { content: false, ..export });
    assert_eq!(carried.blobs, 0);
    other.import(&records_only).expect("it is taken");
    other.add_content(&[8; 2000]);
    // It asks for something that no bucket of the bundle names: it is not given.
    other.name_blob(BucketId::Catalogue, unrelated, 2000);

    let reader = one.read_receipt(&other.receipt(one.peer()));
    let receipt = reader.receipt.as_ref().expect("it was read");
    assert_eq!(receipt.lacks, [late, unrelated].into());
    assert!(!receipt.lacks.contains(&held));
    let (bundle, carried) = one.export_with(Some(&reader), |export| export);
    assert_eq!((carried.records, carried.blobs), (0, 1));
    other.import(&bundle).expect("it is taken");
    assert!(other.site.blobs.whole(late).is_some() && other.site.blobs.whole(unrelated).is_none());
}

/// Whose clock was set back writes receipts that look older than the last one; what it has read may tell otherwise.
#[test]
fn a_receipt_of_a_clock_that_was_set_back_counts_unless_less_was_read() {
    let (one, mut other) = pair();
    let read = |other: &Place| one.read_receipt(&other.receipt(one.peer())).receipt.expect("it was read");
    one.name_blob(collection(1), one.add_content(&[9; 2000]), 2000);
    other.import(&one.export(None)).expect("it is taken");
    let first = read(&other);
    one.name_blob(collection(1), one.add_content(&[8; 2000]), 2000);
    other.import(&one.export(None)).expect("it is taken");
    other.now_ms += 1000;
    let second = read(&other);
    assert!(second.is_no_older_than(&first) && !first.is_no_older_than(&second));

    other.now_ms -= 2000;
    let lost = read(&other);
    assert!(lost.is_no_older_than(&second), "nothing was read in between, but content may have been lost");
    one.name_blob(collection(1), one.add_content(&[7; 2000]), 2000);
    other.import(&one.export(None)).expect("it is taken");
    assert!(read(&other).is_no_older_than(&second));
}

#[test]
fn a_bundle_that_starts_after_what_is_known_is_refused_for_that_bucket_alone() {
    let authority = authority();
    let (one, other) = (Place::member(&authority, 1), Place::member(&authority, 2));
    one.live_through(&mut Seeded::new(3), 60);
    let first = one.export(None);
    other.import(&first).expect("it is taken");
    let mut reader = one.read_receipt(&other.receipt(one.peer()));
    one.live_through(&mut Seeded::new(4), 30);
    let second = one.export(Some(&reader));

    // The same node, but without its first bundle.
    let forgetful = Place::member(&authority, 2);
    let imported = forgetful.import(&second).expect("it is taken");
    assert!(forgetful.state().is_empty(), "no row may be skipped");
    assert!(imported.refused.values().all(|refusal| matches!(refusal, BucketRefusal::Gap { known: Seq(0), .. })));
    assert_eq!(imported.refused.len(), 3);
    assert_eq!(imported.blobs, 0, "content that no record here names is not taken");
    forgetful.import(&first).expect("it is taken");
    forgetful.import(&second).expect("it is taken");
    assert_eq!(forgetful.state(), one.state());

    // One bucket with a gap does not hold up the others.
    let receipt = reader.receipt.as_mut().expect("it was read");
    receipt.cursors.remove(&BucketId::Catalogue);
    receipt.cursors.remove(&collection(1));
    let partly = Place::member(&authority, 2);
    let imported = partly.import(&one.export(Some(&reader))).expect("it is taken");
    assert_eq!(imported.refused.keys().copied().collect::<Vec<_>>(), [collection(2)]);
    assert!(!partly.state().is_empty());
}

#[test]
fn with_a_full_disk_all_records_and_what_is_whole_are_kept() {
    let (one, other) = pair();
    for number in 0..10 {
        one.add_blob(BucketId::Catalogue, &[number; 1000]);
    }
    one.live_through(&mut Seeded::new(5), 20);
    let bundle = one.export(None);
    other.site.blobs.set_quota(4500);
    let imported = other.import(&bundle).expect("it is taken");
    assert!(imported.full);
    assert_eq!(imported.blobs, 4);
    assert_eq!(other.state(), one.state());
    other.is_sound();

    other.site.blobs.set_quota(u64::MAX);
    let imported = other.import(&bundle).expect("it is taken");
    assert!(!imported.full);
    assert_eq!(other.site.blobs.whole_blobs(), one.site.blobs.whole_blobs());
}

#[test]
fn an_import_that_loses_power_goes_on_where_it_was() {
    let (one, other) = pair();
    let rng = &mut Seeded::new(6);
    one.live_through(rng, 50);
    let film = one.add_blob(collection(2), &rng.noise(6 << 20));
    let bundle = one.export(None);
    // Power goes once the first chunks of the film are in.
    let mut progress = |progress: alexandria_sync::bundle::Progress| {
        if progress.bytes > 4 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    other.import_until(&bundle, &mut progress).expect_err("it was stopped");
    other.site.records.crash(rng);
    other.site.blobs.crash(rng);
    other.is_sound();
    assert!(other.site.blobs.has_durable(film, 0), "what was sealed and synced is there");
    assert!(other.site.blobs.whole(film).is_none());
    let imported = other.import(&bundle).expect("it is taken");
    assert_eq!(imported.ending, Ending::Whole);
    assert_eq!(other.state(), one.state());
    assert!(other.site.blobs.whole(film).is_some());
}

#[test]
fn a_limit_in_bytes_is_kept_and_the_next_bundle_goes_on() {
    let (one, other) = pair();
    let rng = &mut Seeded::new(7);
    one.live_through(rng, 200);
    let all = one.export(None).len() as u64;
    let mut reader: Option<Reader> = None;
    let mut bundles = 0;
    while bundles == 0 || other.state() != one.state() || other.site.blobs.whole_blobs() != one.site.blobs.whole_blobs()
    {
        let limit = all / 3;
        let (bundle, carried) = one.export_with(reader.as_ref(), |export| Export { max_bytes: Some(limit), ..export });
        assert!(bundle.len() as u64 <= limit, "{} of {limit}", bundle.len());
        assert_eq!(carried.file_bytes, bundle.len() as u64);
        other.import(&bundle).expect("it is taken");
        reader = Some(one.read_receipt(&other.receipt(one.peer())));
        bundles += 1;
        assert!(bundles < 20, "it comes to an end");
    }
    assert!(bundles > 2, "{bundles}");
}

#[test]
fn a_survey_counts_what_is_new_changed_deleted_and_known() {
    let (one, other) = pair();
    let author = |name: &str| Author { name: name.into(), ..Author::default() };
    let key = |number: u8| alexandria_sync::record::RecordKey {
        bucket: BucketId::Catalogue,
        kind: Author::KIND,
        id: alexandria_sync::id::RecordId::derived(&[&[number]]),
    };
    for number in 0..3 {
        one.site
            .records
            .write(key(number), |_, stamp| Some(author("first").to_record(BucketId::Catalogue, key(number).id, stamp)));
    }
    other.import(&one.export(None)).expect("it is taken");
    one.site.records.write(key(0), |held, stamp| held?.edited(author("second").changes_since(&author("")), stamp));
    one.site.records.write(key(1), |held, stamp| Some(held?.deleted(stamp)));
    one.site.records.write(key(3), |_, stamp| Some(author("new").to_record(BucketId::Catalogue, key(3).id, stamp)));
    one.add_blob(BucketId::Catalogue, &[1; 700]);
    let survey = other.survey(&one.export(None));
    let counts = survey.kinds[&Author::KIND];
    assert_eq!((counts.new, counts.changed, counts.deleted, counts.known), (1, 1, 1, 1));
    assert_eq!(survey.kinds[&Blob::KIND].new, 1);
    assert_eq!((survey.blobs_new, survey.bytes_new, survey.blobs_known), (1, 700, 0));
    assert_eq!(survey.issuer.hello.node, one.site.id);
}

/// Takes a bundle, and looks at how its exporter stands by then.
struct Watching<'w>(&'w Place, Option<Standing>);

impl Write for Watching<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 = self.1.or(self.0.site.records.standing(true));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Others may delete what a bundle gives them: the exporter may not pass for one that gave nothing to anybody.
#[test]
fn before_a_bundle_is_begun_its_exporter_is_no_longer_fresh_unless_nobody_knows_since_when() {
    let (mut one, other) = pair();
    one.site.records.take_lease(Lease { bridge: Some(node_id(9)), lease_ms: 30 * DAY_MS, keeps_all: true });
    one.live_through(&mut Seeded::new(8), 20);
    one.standing = one.site.records.standing(true).expect("it has a lease");
    assert_eq!(one.standing, Standing::FRESH);
    let (hello, heads) = (Hello { standing: Some(one.standing), ..one.site.hello() }, one.heads());
    let export = |hello: &Hello| {
        let what = Export {
            hello,
            validity_ms: bundle::VALIDITY_MS,
            signer: None,
            buckets: &heads,
            reader: None,
            content: true,
            max_bytes: None,
            segment_bytes: SEGMENT_BYTES,
        };
        let mut progress = |_| ControlFlow::Continue(());
        let (records, blobs) = (&*one.site.records, &*one.site.blobs);
        let written = now(bundle::export(what, records, blobs, Watching(&one, None), &mut progress));
        written.expect("it takes everything").0.1
    };
    let unset = Hello { clock_quality: ClockQuality::Untrusted, ..hello.clone() };
    assert_eq!(export(&unset), Some(Standing::FRESH), "it could not take the bundle that comes back");
    let given = Standing { in_step_ms: NOW_MS, collected_ms: 0, keeps_all: false };
    assert_eq!(export(&hello), Some(given));
    let imported = other.import(&one.export(None)).expect("it is taken");
    assert_eq!(imported.issuer.hello.standing, Some(given), "the bundle may be taken twice: it says so, too");
}
