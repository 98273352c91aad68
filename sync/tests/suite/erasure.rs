//! The right to be forgotten, over the simulator's stores: whoever edits, annotates, hides behind a wrong clock or comes
//! late, once all receipts are in the erased bytes are nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alexandria_sync::chunk::{BlobHash, Manifest};
use alexandria_sync::domain::{Annotation, Erasure, Media, Typed};
use alexandria_sync::erase;
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::id::{BucketId, Epoch, NodeId, RecordId, Seq};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::session::{Collections, Scope};
use alexandria_sync::sim::secrets::{Secret, VERSIONS};
use alexandria_sync::sim::{SimBlobs, SimRecords};
use alexandria_sync::store::{BlobStore, Peer, RecordStore};
use bytes::Bytes;
use futures::FutureExt;
use proptest::prelude::*;

/// The bridge is number 0.
const REPLICAS: usize = 4;
const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// Media that people deal with.
const MEDIA: u8 = 4;

fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

fn shelf() -> BucketId {
    BucketId::Collection(RecordId::from_bytes([0xc0; 16]))
}

fn secret(number: u8) -> Secret {
    Secret { bucket: shelf(), number }
}

fn medium(number: u8) -> RecordKey {
    secret(number).key()
}

struct Replica {
    node: NodeId,
    records: Arc<SimRecords>,
    blobs: SimBlobs,
}

struct Fleet {
    replicas: Vec<Replica>,
    /// Contents by name.
    contents: BTreeMap<BlobHash, (Manifest, Bytes)>,
    erased: BTreeSet<u8>,
}

impl Fleet {
    fn new() -> Self {
        let replicas = (0..REPLICAS)
            .map(|number| {
                let records = Arc::new(SimRecords::new(node(number), Epoch(1), None));
                records.set_clock(NOW_MS, ClockQuality::Trusted);
                let blobs = SimBlobs::new(Arc::clone(&records), None);
                for peer in 0..REPLICAS {
                    blobs.permit(node(peer), Scope { site: node(number), collections: Collections::All });
                }
                Replica { node: node(number), records, blobs }
            })
            .collect();
        let versions = (0..MEDIA).flat_map(|number| (0..VERSIONS).map(move |version| secret(number).content(version)));
        let contents = versions.map(|content| (content.0.blob(), content)).collect();
        Self { replicas, contents, erased: BTreeSet::new() }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Edit { at, number, version } => {
                let Replica { records, blobs, .. } = &self.replicas[at];
                secret(number).edit(records, blobs, version).expect("the disk was not filled up");
            }
            Act::Annotate { at, number } => {
                secret(number).annotate(&self.replicas[at].records).expect("the disk was not filled up");
            }
            Act::Erase { at, number } => {
                if self.replicas[at].records.get(medium(number)).is_some_and(|record| !record.is_tombstone()) {
                    self.erased.insert(number);
                    self.replicas[at].records.erase(medium(number));
                }
            }
            Act::Delete { at, number } => {
                let delete = |held: &Record, stamp| (!held.is_tombstone()).then(|| held.deleted(stamp));
                self.replicas[at].records.write(medium(number), |held, stamp| delete(held?, stamp));
            }
            Act::Exchange { with } => self.exchange(with),
            Act::Clock { at, wrong } => {
                let ahead_ms = if wrong { HOUR_MS } else { 0 };
                let quality = if wrong { ClockQuality::Estimated } else { ClockQuality::Trusted };
                self.replicas[at].records.set_clock(NOW_MS + ahead_ms, quality);
            }
            Act::Settle { at } => self.settle(at),
        }
    }

    /// Both ends read all of each other's feeds, and fetch what they want.
    fn exchange(&mut self, with: usize) {
        for bucket in [shelf(), BucketId::Site(node(with))] {
            for (from, to) in [(0, with), (with, 0)] {
                pull(&self.replicas[from], &self.replicas[to], bucket);
            }
        }
        for (from, to) in [(0, with), (with, 0)] {
            let wanted = now(self.replicas[to].blobs.wanted(node(from), None, 1000)).unwrap();
            for blob in wanted.into_iter().map(|wanted| wanted.blob) {
                if self.replicas[from].blobs.whole(blob).is_some() {
                    let (manifest, bytes) = self.contents[&blob].clone();
                    self.replicas[to].blobs.import(manifest, bytes);
                }
            }
        }
    }

    fn settle(&mut self, at: usize) {
        let Replica { records, blobs, .. } = &self.replicas[at];
        if blobs.purge_erased() {
            records.settle_erasures();
        }
    }

    /// Clocks are set right, everyone meets everyone and does its duty, until nothing moves any more.
    fn heal(&mut self) {
        for replica in &self.replicas {
            replica.records.set_clock(NOW_MS + 2 * HOUR_MS, ClockQuality::Trusted);
            replica.records.replay_quarantine();
        }
        let mut before = Vec::new();
        for _ in 0..20 {
            for at in 1..REPLICAS {
                self.exchange(at);
            }
            for at in 0..REPLICAS {
                self.settle(at);
            }
            let now: Vec<Vec<Record>> = self.replicas.iter().map(|replica| replica.records.all()).collect();
            if now == before {
                return;
            }
            before = now;
        }
        panic!("it never became quiet");
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let orders: Vec<Record> = self.replicas[0].records.all();
        let orders = orders.iter().filter(|record| record.key.kind == Erasure::KIND);
        let receipts: BTreeSet<_> = self.replicas[0].records.all().iter().filter_map(erase::acknowledged).collect();
        for order in orders {
            for at in 1..REPLICAS {
                let key = (order.key.bucket, order.key.id, node(at));
                prop_assert!(receipts.contains(&key), "no receipt of replica {at} for {:?}", order.key);
            }
        }
        for (at, replica) in self.replicas.iter().enumerate() {
            prop_assert!(replica.records.pending_erasures().is_empty());
            let of_shelf = |records: Vec<Record>| -> Vec<Record> {
                records.into_iter().filter(|record| record.key.bucket == shelf()).collect()
            };
            prop_assert_eq!(of_shelf(replica.records.all()), of_shelf(self.replicas[0].records.all()));
            for &number in &self.erased {
                let left = secret(number).left_in(&replica.records, &replica.blobs);
                prop_assert!(left.is_none(), "replica {at}: {left:?}");
            }
            for number in (0..MEDIA).filter(|number| !self.erased.contains(number)) {
                let record = replica.records.get(medium(number));
                let Some(cover) = record.and_then(|record| Media::from_record(&record)?.cover) else { continue };
                prop_assert!(replica.blobs.whole(cover).is_some(), "replica {at} lost content that nobody erased");
            }
        }
        Ok(())
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the stores in memory never wait")
}

fn pull(from: &Replica, to: &Replica, bucket: BucketId) {
    let epoch = from.records.epoch();
    let cursor = now(to.records.cursor(from.node, bucket)).unwrap();
    let mut after = cursor.filter(|cursor| cursor.epoch == epoch).map_or(Seq(0), |cursor| cursor.seq);
    let reader = Peer { node: to.node, epoch: to.records.epoch() };
    loop {
        let page = now(from.records.page(bucket, after, reader, 300)).unwrap();
        if page.next == after {
            return;
        }
        after = page.next;
        now(to.records.apply(Peer { node: from.node, epoch }, bucket, page.records, page.next)).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Act {
    Edit { at: usize, number: u8, version: u8 },
    Annotate { at: usize, number: u8 },
    Erase { at: usize, number: u8 },
    Delete { at: usize, number: u8 },
    Exchange { with: usize },
    Clock { at: usize, wrong: bool },
    Settle { at: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let (at, number) = (0..REPLICAS, 0..MEDIA);
    prop_oneof![
        6 => (at.clone(), number.clone(), 0..VERSIONS).prop_map(|(at, number, version)| Act::Edit { at, number, version }),
        3 => (at.clone(), number.clone()).prop_map(|(at, number)| Act::Annotate { at, number }),
        2 => (at.clone(), number.clone()).prop_map(|(at, number)| Act::Erase { at, number }),
        1 => (at.clone(), number).prop_map(|(at, number)| Act::Delete { at, number }),
        6 => (1..REPLICAS).prop_map(|with| Act::Exchange { with }),
        // The clock of replica 0, the bridge, is right.
        1 => (1..REPLICAS, any::<bool>()).prop_map(|(at, wrong)| Act::Clock { at, wrong }),
        1 => at.prop_map(|at| Act::Settle { at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Invariant 7, without sessions, links and power cuts: thousands of such worlds in a moment.
    #[test]
    fn whoever_edits_erases_and_meets_in_whatever_order_erased_bytes_are_nowhere(acts in prop::collection::vec(act(), 1..60)) {
        let mut fleet = Fleet::new();
        for act in &acts {
            fleet.act(act);
        }
        fleet.heal();
        fleet.check()?;
    }
}

/// An erasure forgets what it covers, and not that somebody deleted it later, by a clock that is ahead.
#[test]
fn regression_a_delete_that_is_set_aside_outlives_an_erasure() {
    let mut fleet = Fleet::new();
    fleet.act(&Act::Edit { at: 1, number: 0, version: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    fleet.act(&Act::Clock { at: 1, wrong: true });
    fleet.act(&Act::Delete { at: 1, number: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    fleet.act(&Act::Erase { at: 0, number: 0 });
    fleet.heal();
    fleet.check().unwrap();
}

/// What follows from an erasure that is held here is not judged by the clock again, which may have been set back since: an
/// annotation that comes late was set aside as a tombstone of the future.
#[test]
fn regression_what_an_erasure_has_overtaken_is_not_set_aside_by_a_clock_that_was_set_back() {
    let mut fleet = Fleet::new();
    fleet.act(&Act::Edit { at: 0, number: 0, version: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    fleet.act(&Act::Clock { at: 1, wrong: true });
    fleet.act(&Act::Erase { at: 1, number: 0 });
    fleet.act(&Act::Clock { at: 1, wrong: false });
    fleet.act(&Act::Annotate { at: 0, number: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    let is_note = |record: &Record| record.key.kind == Annotation::KIND;
    let note = fleet.replicas[0].records.all().into_iter().find(is_note).expect("it was written at the bridge");
    assert!(!note.is_tombstone(), "the bridge has set the erasure aside");
    let here = &fleet.replicas[1].records;
    assert!(here.get(note.key).is_some_and(|held| held.is_tombstone()));
    assert!(!here.quarantined().iter().any(|record| record.key == note.key));
    fleet.heal();
    fleet.check().unwrap();
}

/// A receipt says that it is done, not that it was heard of: before the log is written anew there is none.
#[test]
fn no_receipt_is_given_while_the_disk_remembers() {
    let mut fleet = Fleet::new();
    fleet.act(&Act::Edit { at: 1, number: 0, version: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    fleet.act(&Act::Erase { at: 0, number: 0 });
    fleet.act(&Act::Exchange { with: 1 });
    let records = &fleet.replicas[1].records;
    assert!(records.get(medium(0)).unwrap().is_tombstone(), "it is gone from sight at once");
    assert!(records.disk_contains(secret(0).text().as_bytes()), "the log still has it");
    assert!(records.all().iter().find_map(erase::acknowledged).is_none());
    fleet.settle(1);
    let records = &fleet.replicas[1].records;
    assert!(!records.disk_contains(secret(0).text().as_bytes()));
    assert_eq!(records.all().iter().filter_map(erase::acknowledged).count(), 1);
}
