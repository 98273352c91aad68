//! Reading all anew, with the bridge played by hand.

use futures::FutureExt as _;

use super::*;
use crate::domain::Author;
use crate::hlc::{ClockQuality, HlcTime, Stamp};
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

fn new() -> SimRecords {
    let records = SimRecords::new(NodeId::from_bytes([1; 16]), Epoch(1), None);
    records.take_lease(Lease { bridge: Some(bridge().node), lease_ms: 30 * DAY_MS, keeps_all: true });
    records
}

/// A node that was in step, wrote record 1, and record 2 by a clock that is years ahead.
fn away() -> SimRecords {
    let records = new();
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

/// A neighbour whose clock is ahead has edited record 1, of which the bridge has nothing any more.
fn sweeps_what_has_a_version_aside(is_deleted_here: bool) -> SimRecords {
    let records = new();
    now(records.meet(bridge(), standing(BEFORE_MS, 0)));
    records.set_clock(BACK_MS, ClockQuality::Trusted);
    records.write(key(1), |_, stamp| Some(author(1, "written here", stamp)));
    let neighbour = Peer { node: NodeId::from_bytes([5; 16]), epoch: Epoch(1) };
    let ahead = Stamp { time: HlcTime::from_unix_ms(BACK_MS + DAY_MS), ..Stamp::default() };
    let applied = records.apply(neighbour, BucketId::Catalogue, vec![author(1, "let in later", ahead)], Seq(1));
    assert_eq!(now(applied).quarantined, 1);
    if is_deleted_here {
        records.write(key(1), |held, stamp| held.map(|held| held.deleted(stamp)));
    }
    comes_back(&records);
    reads_to_the_end(&records, u64::MAX);
    records.set_clock(BACK_MS + DAY_MS, ClockQuality::Trusted);
    records
}

#[test]
fn a_tombstone_stays_through_the_sweep_while_a_version_of_its_record_is_set_aside() {
    let records = sweeps_what_has_a_version_aside(true);
    records.replay_quarantine();
    assert!(records.get(key(1)).is_some_and(|record| record.is_tombstone()));
}

#[test]
fn what_is_let_in_of_a_record_that_was_swept_is_held_back() {
    let records = sweeps_what_has_a_version_aside(false);
    assert_eq!(records.get(key(1)), None, "it was deleted elsewhere");
    records.replay_quarantine();
    assert!(records.get(key(1)).is_some());
    assert_eq!(records.held_back(), [key(1)].into());
}

/// A node that has met nobody, with a record that it gave away.
fn given_away() -> SimRecords {
    let records = new();
    records.set_clock(BEFORE_MS, ClockQuality::Trusted);
    records.write(key(1), |_, stamp| Some(author(1, "given away", stamp)));
    assert_eq!(records.standing(true), Some(Standing::FRESH));
    now(records.note_given(Some(BEFORE_MS)));
    let given = Some(Standing { keeps_all: false, ..standing(BEFORE_MS, 0) });
    now(records.note_given(Some(BACK_MS)));
    assert_eq!([records.standing(true), records.standing(false)], [given; 2]);
    records
}

#[test]
fn within_a_lease_of_what_it_gave_away_first_a_node_gives_and_takes_as_ever() {
    let records = given_away();
    let bridges = standing(BEFORE_MS + DAY_MS, BEFORE_MS - DAY_MS);
    now(records.meet(bridge(), bridges));
    assert!(!records.reads_anew());
    gives(&records, author(3, "of the bridge", Stamp::default()), 1);
    now(records.caught_up(bridge(), bridges, Some(Vec::new())));
    assert_eq!(records.standing(true), Some(bridges));
}

#[test]
fn a_lease_after_what_it_gave_away_first_a_node_reads_all_anew() {
    comes_back(&given_away());
}

#[test]
fn nobody_is_in_step_as_of_later_than_the_bridge() {
    let records = new();
    now(records.note_given(Some(BACK_MS + 1000 * DAY_MS)));
    now(records.meet(bridge(), standing(BACK_MS, FORGOTTEN_MS)));
    assert_eq!(records.standing(true).expect("there are leases").in_step_ms, BACK_MS);
}

/// What it has of others it has in part: it knows nothing of deletes.
#[test]
fn before_a_node_has_read_all_once_it_is_in_step_as_of_the_earliest_it_met_and_renews_nobody() {
    let records = new();
    let neighbour = Peer { node: NodeId::from_bytes([5; 16]), epoch: Epoch(1) };
    let (in_step_ms, collected_ms) = (BEFORE_MS + 20 * DAY_MS, BEFORE_MS);
    now(records.meet(bridge(), standing(in_step_ms, collected_ms)));
    now(records.meet(neighbour, standing(BEFORE_MS - DAY_MS, 0)));
    let met = Standing { keeps_all: false, ..standing(in_step_ms, collected_ms) };
    assert_eq!(records.standing(false), Some(met), "that one may give it nothing");
    now(records.meet(neighbour, standing(BEFORE_MS + DAY_MS, 0)));
    let earlier = Standing { in_step_ms: BEFORE_MS + DAY_MS, ..met };
    assert_eq!([records.standing(true), records.standing(false)], [Some(earlier); 2]);
    // Who has forgotten what was deleted since then does not tell it.
    now(records.caught_up(neighbour, standing(BEFORE_MS + 9 * DAY_MS, BEFORE_MS + 5 * DAY_MS), None));
    assert_eq!(records.standing(false), Some(earlier));
    now(records.caught_up(neighbour, standing(BEFORE_MS + 2 * DAY_MS, 0), None));
    assert_eq!(records.standing(false), Some(standing(BEFORE_MS + 2 * DAY_MS, collected_ms)));
}
