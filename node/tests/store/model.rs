//! The store beside a model that fits on a page: whatever is done to both, they say the same.

use std::collections::{BTreeMap, BTreeSet};

use alexandria_node::store::{Change, ChangeError, Direction, Listing, Order, Side, Store};
use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Blob, Media, MediaAuthor, OpenCount, Typed};
use alexandria_sync::id::{BucketId, Incarnation, NodeId, RecordId, Seq};
use alexandria_sync::merge::merge;
use alexandria_sync::record::{Kind, Record, RecordKey};
use alexandria_sync::store::{Applied, BlobStore, BucketHead, Cursor, Peer, RecordStore};
use proptest::prelude::*;
use tempfile::TempDir;

use super::samples::{folder, id, media, open, peer, shelf, stamp};

#[derive(Clone, Debug)]
enum What {
    Media { id: u8, title: u8 },
    Opened { id: u8, count: u8 },
    Author { media: u8, author: u8, linked: bool },
    Blob { hash: u8 },
    Deleted { id: u8 },
}

#[derive(Clone, Debug)]
enum Op {
    Change(bool, What),
    Receive { peer: u8, epoch: u8, shelf: bool, records: Vec<(What, u8)> },
    Page { peer: u8, epoch: u8, shelf: bool, after: u8, budget_bytes: u16 },
    Reopen,
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (0u8..4, any::<u8>()).prop_map(|(id, title)| What::Media { id, title }),
        2 => (0u8..4, any::<u8>()).prop_map(|(id, count)| What::Opened { id, count }),
        2 => (0u8..3, 0u8..3, any::<bool>()).prop_map(|(media, author, linked)| What::Author { media, author, linked }),
        1 => (0u8..3).prop_map(|hash| What::Blob { hash }),
        1 => (0u8..4).prop_map(|id| What::Deleted { id }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), what()).prop_map(|(shelf, what)| Op::Change(shelf, what)),
        4 => (0u8..2, 0u8..2, any::<bool>(), prop::collection::vec((what(), any::<u8>()), 0..5))
            .prop_map(|(peer, epoch, shelf, records)| Op::Receive { peer, epoch, shelf, records }),
        3 => (0u8..2, 0u8..2, any::<bool>(), any::<u8>(), any::<u16>())
            .prop_map(|(peer, epoch, shelf, after, budget_bytes)| Op::Page { peer, epoch, shelf, after, budget_bytes }),
        1 => Just(Op::Reopen),
    ]
}

fn bucket(is_shelf: bool) -> BucketId {
    if is_shelf { shelf() } else { BucketId::Catalogue }
}

fn media_id(number: u8) -> RecordId {
    id(number.into())
}

fn author_id(number: u8) -> RecordId {
    id(100 + u64::from(number))
}

fn hash(number: u8) -> BlobHash {
    BlobHash::of(&[number])
}

fn key(bucket: BucketId, kind: Kind, id: RecordId) -> RecordKey {
    RecordKey { bucket, kind, id }
}

/// The record that `what` makes when it comes from elsewhere.
fn received(bucket: BucketId, what: &What, by: u8, at: u8) -> Record {
    let stamp = stamp(1_700_000_000_000 + u64::from(at), by);
    match *what {
        What::Media { id, title } => media(&title.to_string()).to_record(bucket, media_id(id), stamp),
        What::Opened { id, count } => opened(id, count).to_record(
            bucket,
            OpenCount::record_id(media_id(id), NodeId::default(), Incarnation::default()),
            stamp,
        ),
        What::Author { media, author, linked } => {
            let (id, link) = MediaAuthor::between(media_id(media), author_id(author));
            MediaAuthor { linked, ..link }.to_record(bucket, id, stamp)
        }
        What::Blob { hash: number } => blob(number).to_record(bucket, Blob::record_id(hash(number)), stamp),
        What::Deleted { id } => media("x").to_record(bucket, media_id(id), stamp).deleted(stamp),
    }
}

fn opened(id: u8, count: u8) -> OpenCount {
    OpenCount { media: media_id(id), count: count.into() }
}

fn blob(number: u8) -> Blob {
    Blob { hash: Some(hash(number)), size_bytes: 1, media_type: "text/plain".into() }
}

fn change(bucket: BucketId, what: &What) -> Change {
    match *what {
        What::Media { id, title } => Change::put(bucket, media_id(id), media(&title.to_string())),
        What::Opened { id, count } => {
            let record = OpenCount::record_id(media_id(id), NodeId::default(), Incarnation::default());
            Change::put(bucket, record, opened(id, count))
        }
        What::Author { media, author, linked } => {
            let (id, link) = MediaAuthor::between(media_id(media), author_id(author));
            Change::put(bucket, id, MediaAuthor { linked, ..link })
        }
        What::Blob { hash: number } => Change::put(bucket, Blob::record_id(hash(number)), blob(number)),
        What::Deleted { id } => Change::delete(key(bucket, Media::KIND, media_id(id)), None),
    }
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<RecordKey, (Seq, Option<Peer>, Record)>,
    heads: BTreeMap<BucketId, Seq>,
    cursors: BTreeMap<(NodeId, BucketId), Cursor>,
}

impl Model {
    fn put(&mut self, record: Record, arrived_from: Option<Peer>) {
        let head = self.heads.entry(record.key.bucket).or_default();
        *head = head.next();
        self.rows.insert(record.key, (*head, arrived_from, record));
    }

    fn receive(&mut self, from: Peer, record: &Record) -> bool {
        let merged = match self.rows.get(&record.key) {
            Some((_, _, held)) => {
                let merged = merge(held.clone(), record.clone());
                if merged == *held {
                    return false;
                }
                merged
            }
            None => record.clone(),
        };
        let arrived_from = (merged == *record).then_some(from);
        self.put(merged, arrived_from);
        true
    }

    fn feed(&self, bucket: BucketId) -> Vec<(Seq, Option<Peer>, Record)> {
        let mut rows: Vec<_> =
            self.rows.values().filter(|(_, _, record)| record.key.bucket == bucket).cloned().collect();
        rows.sort_by_key(|(seq, _, _)| *seq);
        rows
    }

    fn live(&self) -> impl Iterator<Item = &Record> {
        self.rows.values().map(|(_, _, record)| record).filter(|record| !record.is_tombstone())
    }

    fn popularity(&self, id: RecordId) -> u64 {
        self.live().filter_map(OpenCount::from_record).filter(|open| open.media == id).map(|open| open.count).sum()
    }
}

async fn check(store: &Store, model: &Model) {
    let heads: Vec<BucketHead> = model.heads.iter().map(|(&bucket, &head)| BucketHead { bucket, head }).collect();
    assert_eq!(store.records.heads().await.unwrap(), heads);
    for bucket in [bucket(true), bucket(false)] {
        let feed: Vec<_> = store.records.changes_since(bucket, Seq(0), 1000).await.unwrap();
        let feed: Vec<_> = feed.into_iter().map(|stored| (stored.seq, stored.record)).collect();
        let expected: Vec<_> = model.feed(bucket).into_iter().map(|(seq, _, record)| (seq, record)).collect();
        assert_eq!(feed, expected, "feed of {bucket}");
    }
    for (&(node, bucket), &cursor) in &model.cursors {
        assert_eq!(store.records.cursor(node, bucket).await.unwrap(), Some(cursor));
    }
    for (order, rank) in [
        (Order::Id, (|_, _| 0) as fn(&Model, &Record) -> u64),
        (Order::Updated, |_, record| record.newest_stamp().time.to_bits()),
        (Order::Popularity, |model, record| model.popularity(record.key.id)),
    ] {
        let mut expected: Vec<_> = model
            .live()
            .filter(|record| record.key.kind == Media::KIND)
            .map(|record| (rank(model, record), record.key.id, record.key.bucket))
            .collect();
        expected.sort_unstable();
        for direction in [Direction::Ascending, Direction::Descending] {
            assert_eq!(list(store, order, direction), expected, "{order:?} {direction:?}");
            expected.reverse();
        }
    }
    for number in 0..3 {
        let linked = |side: Side| -> BTreeSet<RecordId> {
            let links = model.live().filter_map(MediaAuthor::from_record).filter(|link| link.linked);
            match side {
                Side::Left => links.filter(|link| link.media == media_id(number)).map(|link| link.author).collect(),
                Side::Right => links.filter(|link| link.author == author_id(number)).map(|link| link.media).collect(),
            }
        };
        for (side, end) in [(Side::Left, media_id(number)), (Side::Right, author_id(number))] {
            let links = store.records.links(MediaAuthor::KIND, side, end, None, 100).unwrap();
            assert_eq!(links, linked(side).into_iter().collect::<Vec<_>>());
        }
    }
    let wanted: BTreeSet<BlobHash> = model.live().filter_map(Blob::from_record).filter_map(|blob| blob.hash).collect();
    let asked = store.blobs.session().wanted(NodeId::default(), None, 100).await.unwrap();
    assert_eq!(asked.into_iter().map(|asked| asked.blob).collect::<BTreeSet<_>>(), wanted);
    assert!(store.records.verify().await.unwrap().is_sound());
}

/// All pages of a list, two entries each.
fn list(store: &Store, order: Order, direction: Direction) -> Vec<(u64, RecordId, BucketId)> {
    let mut listing = Listing { order, direction, ..Listing::of(Media::KIND, 2) };
    let mut entries = Vec::new();
    loop {
        let page = store.records.list(&listing).unwrap();
        entries.extend(page.entries.iter().map(|listed| {
            let key = listed.stored.record.key;
            (listed.rank, key.id, key.bucket)
        }));
        match page.next {
            Some(next) => listing.after = Some(next),
            None => return entries,
        }
    }
}

async fn run(dir: &TempDir, ops: Vec<Op>) {
    let mut store = open(dir);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Change(is_shelf, what) => {
                let change = change(bucket(is_shelf), &what);
                let key = change.key();
                let held = model.rows.get(&key).map(|(_, _, record)| record.clone());
                match store.records.change_one(change).await {
                    Ok(stored) if Some(&stored.record) == held.as_ref() => {}
                    Ok(stored) => {
                        let newest = held.as_ref().map(|held| merge(held.clone(), stored.record.clone()));
                        assert!(newest.is_none_or(|newest| newest == stored.record), "an edit beats what it saw");
                        model.put(stored.record, None);
                    }
                    Err(ChangeError::Deleted(_)) => assert!(held.unwrap().is_tombstone()),
                    Err(ChangeError::NotFound(_)) => assert!(held.is_none()),
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Receive { peer: by, epoch, shelf: is_shelf, records } => {
                let (from, bucket) = (peer(by + 1, epoch.into()), bucket(is_shelf));
                let records: Vec<_> = records.iter().map(|(what, at)| received(bucket, what, by + 1, *at)).collect();
                let next = Seq(records.len() as u64);
                let changed = records.iter().filter(|record| model.receive(from, record)).count() as u32;
                let superseded = records.len() as u32 - changed;
                model.cursors.insert((from.node, bucket), Cursor { epoch: from.epoch, seq: next });
                let applied = store.records.apply(from, bucket, records, next).await.unwrap();
                assert_eq!(applied, Applied { applied: changed, superseded, quarantined: 0 });
            }
            Op::Page { peer: by, epoch, shelf: is_shelf, after, budget_bytes } => {
                let (reader, bucket) = (peer(by + 1, epoch.into()), bucket(is_shelf));
                let head = model.heads.get(&bucket).copied().unwrap_or_default();
                let after = Seq(u64::from(after) % (head.0 + 1));
                let page = store.records.page(bucket, after, reader, budget_bytes.into()).await.unwrap();
                let expected: Vec<Record> = model
                    .feed(bucket)
                    .into_iter()
                    .filter(|(seq, arrived_from, _)| *seq > after && *seq <= page.next && *arrived_from != Some(reader))
                    .map(|(_, _, record)| record)
                    .collect();
                assert_eq!(page.records, expected);
                assert!(page.more || page.next == head.max(after));
            }
            Op::Reopen => {
                drop(store);
                store = open(dir);
                assert!(!store.unclean_stop);
            }
        }
    }
    check(&store, &model).await;
    drop(store);
    check(&open(dir), &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("ALEXANDRIA_STORE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Invariants 3 to 5 and 8, and every index, over restarts.
    #[test]
    fn the_store_says_what_the_model_says(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(&folder(), ops));
    }
}
