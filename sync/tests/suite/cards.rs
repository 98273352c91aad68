//! Worlds in which cards are written with older images of themselves, and copies run beside their originals: at both ends everything
//! comes together all the same, and nothing that was written is lost.

use alexandria_sync::domain::{Author, Typed as _};
use alexandria_sync::id::{BucketId, Epoch, RecordId, Seq};
use alexandria_sync::lineage::Remembered;
use alexandria_sync::record::RecordKey;
use alexandria_sync::sim::records::Full;
use alexandria_sync::sim::{Figures, Plan, Sabotage, SimRecords, Violation, judge};
use alexandria_sync::store::{Peer, RecordStore as _};
use futures::FutureExt as _;

use crate::fleet::node_id;
use crate::seeds;

const WORLDS: u64 = 300;

fn broken(seed: u64, sabotage: Option<Sabotage>) -> (Vec<Violation>, Figures) {
    judge(&Plan::with_cards(seed), sabotage)
}

#[test]
fn invariants_hold_where_cards_are_put_back_and_copied() {
    let mut figures = Figures::default();
    let mut violations = Vec::new();
    for seed in seeds::chosen(WORLDS) {
        let (broken, lived) = broken(seed, None);
        violations.extend(broken);
        figures.add(&lived);
    }
    println!("{figures:?}");
    assert!(violations.is_empty(), "{} {violations:#?}", violations.len());
    assert!(figures.put_back > 0 && figures.copies > 0 && figures.new_lives > 0, "{figures:?}");
}

fn is_noticed(invariant: u8, sabotage: Sabotage) {
    let is_it = |seed| broken(seed, Some(sabotage)).0.iter().any(|violation| violation.invariant == invariant);
    assert!((0..WORLDS).any(is_it), "{sabotage:?} went unnoticed");
}

#[test]
fn a_copy_that_goes_on_as_if_nothing_were_is_noticed() {
    is_noticed(1, Sabotage::CopiesGoOn);
}

#[test]
fn two_copies_whose_pages_are_mixed_are_noticed() {
    is_noticed(1, Sabotage::CopiesAreMixed);
}

#[test]
fn two_writes_with_one_stamp_are_noticed() {
    is_noticed(2, Sabotage::CopiesStampAlike);
}

/// Peers of before serve pages without a look at what they remember: what they left out as this store's own may be a copy's.
#[test]
fn a_new_life_reads_all_from_the_beginning() {
    fn now<T>(future: impl Future<Output = Result<T, Full>>) -> T {
        future.now_or_never().expect("the store never waits").expect("there is room")
    }
    let opened = |start| {
        let records = SimRecords::new(node_id(1), Epoch(1), None);
        records.open(start);
        records
    };
    let (records, copy) = (opened(7), opened(8));
    let bridge = Peer { node: node_id(2), epoch: Epoch(1) };
    now(records.apply(bridge, BucketId::Catalogue, Vec::new(), Seq(5)));
    copy.write(key(), |_, stamp| Some(Author::default().to_record(BucketId::Catalogue, key().id, stamp)));
    let moment = now(copy.moment()).expect("it has a row");
    assert!(!now(records.recall(bridge.node, vec![Remembered { epoch: Epoch(1), moment }])));
    assert_eq!(now(records.cursor(bridge.node, BucketId::Catalogue)), None);
}

fn key() -> RecordKey {
    RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id: RecordId::mint(1, [1; 10]) }
}

fn is_good(seed: u64) {
    let violations = broken(seed, None).0;
    assert!(violations.is_empty(), "{violations:?}");
}

/// Two copies had sessions in one life: the cursor that one looked up was moved by the other's pages after its hello.
#[test]
fn regression_a_cursor_that_another_session_has_moved_is_not_pulled_from() {
    is_good(83);
    is_good(110);
}

/// What a copy had written was not given to its original, and had not to be before that could know.
#[test]
fn regression_a_copy_is_judged_once_it_could_notice() {
    is_good(2);
}

/// A copy with a right clock holds what the wrong clock of its original has stamped.
#[test]
fn regression_a_copy_comes_with_the_stamps_of_its_original() {
    is_good(1423);
}

/// A card from before its node had met anybody, in a world with leases, was taken for a new one: its older delete came after the later one was
/// forgotten everywhere.
#[test]
fn regression_a_card_from_before_its_node_met_anybody_brings_no_older_delete_back() {
    is_good(905);
}

/// A copy and its original had sessions at once: the original passed over what the copy had written, as if it were its own, and a restore of a
/// backup from just then kept that cursor in a life in which nobody could notice any more.
#[test]
fn regression_what_a_copy_has_written_is_not_left_out_as_its_originals_own() {
    is_good(5249);
}

/// What was held back no longer after an absence stayed where cursors had passed it.
#[test]
fn regression_what_is_held_back_no_longer_goes_on_from_a_card_that_was_put_back() {
    is_good(7881);
    // The version of the other was set aside for a while.
    is_good(7313);
}

/// A clock was ahead: what the bridge had set aside was taken for deleted there by the one who had written it.
#[test]
fn regression_what_the_bridge_has_set_aside_is_not_taken_for_deleted() {
    is_good(8201);
}
