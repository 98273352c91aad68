//! Reading all anew, with the bridge played by hand.

use futures::FutureExt as _;

use super::*;
use crate::domain::Author;
use crate::hlc::{ClockQuality, Stamp};
use crate::id::{Epoch, RecordId};
use crate::store::RecordStore as _;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// When the node was in step last.
const BEFORE_MS: u64 = 1_800_000_000_000;
/// When it is there again, after the bridge has forgotten the deletes of `FORGOTTEN_MS` and before.
const BACK_MS: u64 = BEFORE_MS + 60 * DAY_MS;
const FORGOTTEN_MS: u64 = BACK_MS - 30 * DAY_MS;

fn bridge() -> Peer {
    Peer { node: NodeId::from_bytes([9; 16]), epoch: Epoch(1) }
}

fn standing(in_step_ms: u64, collected_ms: u64) -> Standing {
    Standing { in_step_ms, collected_ms, keeps_all: true }
}

fn now<T>(future: impl Future<Output = Result<T, super::super::records::Full>>) -> T {
    future.now_or_never().expect("the store never waits").expect("there is room")
}

/// A node that was in step, wrote record 1, and record 2 by a clock that is years ahead.
fn away() -> SimRecords {
    let records = SimRecords::new(NodeId::from_bytes([1; 16]), Epoch(1), None);
    records.take_lease(Lease { bridge: Some(bridge().node), lease_ms: 30 * DAY_MS, keeps_all: true });
    now(records.meet(bridge(), standing(BEFORE_MS, 0)));
    for (number, unix_ms) in [(1, BEFORE_MS), (2, BEFORE_MS + 1000 * DAY_MS)] {
        records.set_clock(unix_ms, ClockQuality::Trusted);
        records.write(key(number), |_, stamp| Some(author(number, "written here", stamp)));
    }
    records.set_clock(BACK_MS, ClockQuality::Trusted);
    records
}

fn key(number: u8) -> RecordKey {
    RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id: RecordId::mint(1, [number; 10]) }
}

fn author(number: u8, name: &str, stamp: Stamp) -> Record {
    Author { name: name.into(), ..Author::default() }.to_record(BucketId::Catalogue, key(number).id, stamp)
}

fn comes_back(records: &SimRecords) {
    now(records.meet(bridge(), standing(BACK_MS, FORGOTTEN_MS)));
    assert!(records.reads_anew());
}

/// The bridge had the node's feed up to a row.
fn reads_to_the_end(records: &SimRecords, had: u64) {
    let has = vec![BucketHead { bucket: BucketId::Catalogue, head: Seq(had) }];
    now(records.caught_up(bridge(), standing(BACK_MS, FORGOTTEN_MS), Some(has)));
    while !records.sweep_some(|_| true) {}
    assert!(!records.reads_anew());
}

fn gives(records: &SimRecords, version: Record, next: u64) {
    now(records.apply(bridge(), BucketId::Catalogue, vec![version], Seq(next)));
}

#[test]
fn what_the_bridge_sets_aside_is_held_back_where_what_it_had_was_deleted() {
    let records = away();
    comes_back(&records);
    reads_to_the_end(&records, 2);
    assert_eq!(records.get(key(1)), None, "the bridge had it, and has it no more");
    assert!(records.get(key(2)).is_some(), "it waits at the bridge for its time to come");
    assert_eq!(records.held_back(), [key(2)].into());
}

#[test]
fn what_is_held_back_no_more_is_read_by_those_whose_cursors_have_passed_it() {
    let records = away();
    comes_back(&records);
    reads_to_the_end(&records, 0);
    assert_eq!(records.held_back(), [key(1), key(2)].into());
    let passed = now(records.page(BucketId::Catalogue, Seq(0), bridge(), 10_000)).next;
    gives(&records, author(1, "older elsewhere", Stamp::default()), 1);
    assert_eq!(records.held_back(), [key(2)].into());
    let page = now(records.page(BucketId::Catalogue, passed, bridge(), 10_000));
    assert_eq!(page.records, [records.get(key(1)).expect("it is here")]);
}

#[test]
fn a_bundle_does_not_end_reading_all_anew() {
    let records = away();
    comes_back(&records);
    now(records.caught_up(bridge(), standing(BACK_MS, FORGOTTEN_MS), None));
    assert!(records.sweep_some(|_| true), "there is nothing to sweep");
    assert!(records.reads_anew() && records.get(key(1)).is_some());
    reads_to_the_end(&records, 2);
}

#[test]
fn reading_all_anew_begins_again_if_it_takes_longer_than_a_lease() {
    let records = away();
    comes_back(&records);
    gives(&records, author(3, "deleted since", Stamp::default()), 1);
    now(records.meet(bridge(), standing(BACK_MS + 20 * DAY_MS, FORGOTTEN_MS + 20 * DAY_MS)));
    assert!(now(records.cursor(bridge().node, BucketId::Catalogue)).is_some(), "within a lease it goes on");
    now(records.meet(bridge(), standing(BACK_MS + 40 * DAY_MS, FORGOTTEN_MS + 40 * DAY_MS)));
    assert_eq!(now(records.cursor(bridge().node, BucketId::Catalogue)), None);
    reads_to_the_end(&records, 2);
    assert_eq!(records.get(key(3)), None);
}
