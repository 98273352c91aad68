//! The invariants of docs/ARCHITECTURE.md on random worlds.
//!
//! All tests judge the same sweep, which runs once. More seeds: `ALEXANDRIA_SIM_SEEDS=10000`; other ones:
//! `ALEXANDRIA_SIM_FROM=123456`. A failing seed is printed with the command that replays it and makes it small.

use std::sync::LazyLock;

use alexandria_sync::sim::{Sabotage, Sweep, Violation, run, sweep};

use crate::seeds;

const SEEDS: u64 = 1_000;
/// A broken promise shows within this many worlds.
const SABOTAGED_SEEDS: u64 = 1_000;
const SABOTAGED_AT_ONCE: u64 = 20;
/// Violations that are printed, at most.
const DESCRIBED_MAX: usize = 10;

static SWEEP: LazyLock<Sweep> = LazyLock::new(|| {
    let seeds = seeds::chosen(SEEDS);
    let sweep = sweep(seeds.start, seeds.end - seeds.start, None);
    println!("{:?}", sweep.figures);
    sweep
});

fn describe<'a>(violations: impl Iterator<Item = &'a Violation>) -> String {
    let line = |violation: &Violation| {
        let Violation { invariant, seed, text } = violation;
        format!("\ninvariant {invariant}, seed {seed}: {text}\n  replay: tests/simulate --from {seed} --seeds 1")
    };
    violations.take(DESCRIBED_MAX).map(line).collect::<Vec<_>>().concat()
}

fn holds(invariant: u8) {
    let broken = || SWEEP.violations.iter().filter(|violation| violation.invariant == invariant);
    assert_eq!(broken().count(), 0, "{}", describe(broken()));
}

/// That its check can fail: with the promise broken on purpose, some world shows it.
fn is_noticed(invariant: u8, sabotage: Sabotage) {
    let mut others = Vec::new();
    for from in (0..SABOTAGED_SEEDS).step_by(SABOTAGED_AT_ONCE as usize) {
        let broken = sweep(from, SABOTAGED_AT_ONCE, Some(sabotage));
        if broken.violations.iter().any(|violation| violation.invariant == invariant) {
            return;
        }
        others.extend(broken.violations);
    }
    panic!("{sabotage:?} went unnoticed; seen instead: {}", describe(others.iter()));
}

#[test]
fn no_world_panics_and_no_honest_peer_breaks_the_protocol() {
    holds(0);
}

#[test]
fn nobodys_site_is_ever_at_a_neighbour() {
    holds(0);
    is_noticed(0, Sabotage::SitesCrossTheLan);
}

/// Several sessions of a node receive one blob together.
#[test]
fn no_chunk_is_asked_of_two_peers_at_once() {
    holds(0);
    is_noticed(0, Sabotage::ChunksAreClaimedTwice);
}

#[test]
fn invariant_01_equal_buckets_mean_equal_state_once_the_network_is_quiet() {
    holds(1);
    is_noticed(1, Sabotage::LastArrivalWins);
    is_noticed(1, Sabotage::NodesPassNothingOn);
    is_noticed(1, Sabotage::ReceiptsAreMadeUp);
}

#[test]
fn invariant_02_no_acknowledged_write_is_lost_whatever_the_power_does() {
    holds(2);
    is_noticed(2, Sabotage::AckBeforeDurable);
}

#[test]
fn invariant_03_merge_is_idempotent_commutative_and_associative() {
    holds(3);
}

#[test]
fn invariant_04_a_cursor_never_passes_what_is_durably_applied() {
    holds(4);
    is_noticed(4, Sabotage::CursorBeforePage);
    is_noticed(4, Sabotage::TornBatchesCount);
}

#[test]
fn invariant_05_the_feed_and_the_records_are_a_bijection() {
    holds(5);
    is_noticed(5, Sabotage::OldFeedRowsStay);
}

#[test]
fn invariant_06_who_acknowledged_a_delete_never_shows_an_older_stamp_again() {
    holds(6);
    is_noticed(6, Sabotage::TombstonesAreForgotten);
    is_noticed(6, Sabotage::TombstonesGoTooEarly);
    is_noticed(6, Sabotage::WhoWasAwayGivesAll);
}

#[test]
fn invariant_07_erased_bytes_are_nowhere_once_all_receipts_are_in() {
    holds(7);
    is_noticed(7, Sabotage::ReceiptsComeFirst);
    is_noticed(7, Sabotage::ErasedContentStays);
}

#[test]
fn invariant_08_applied_superseded_and_quarantined_add_up_to_received() {
    holds(8);
    is_noticed(8, Sabotage::QuarantinedIsDropped);
    is_noticed(2, Sabotage::QuarantineIsForgotten);
}

#[test]
fn invariant_09_one_bad_clock_never_delays_another_replicas_edit_beyond_the_bound() {
    holds(9);
    is_noticed(9, Sabotage::BoundIsIgnored);
}

#[test]
fn invariant_10_unknown_fields_survive_a_hop_through_an_old_node() {
    holds(10);
    is_noticed(10, Sabotage::UnknownFieldsAreDropped);
}

#[test]
fn invariant_11_a_bit_that_says_verified_means_verified_bytes_on_disk() {
    holds(11);
    is_noticed(11, Sabotage::BitsBeforeData);
    // The receiver finds it and takes its peer for a liar.
    is_noticed(0, Sabotage::RotIsHandedOut);
}

#[test]
fn invariant_12_a_cut_costs_at_most_the_window_again() {
    holds(12);
    is_noticed(12, Sabotage::WindowIsIgnored);
}

#[test]
fn invariant_13_wire_bytes_never_pass_the_budget() {
    holds(13);
    is_noticed(13, Sabotage::UseIsKeptInMemory);
    is_noticed(13, Sabotage::BudgetIsNotHeld);
}

#[test]
fn invariant_14_class_0_waits_at_most_a_few_round_trips_under_a_full_content_queue() {
    holds(14);
    is_noticed(14, Sabotage::ControlGoesLast);
}

#[test]
fn invariant_15_what_a_session_holds_in_memory_stays_under_its_cap() {
    holds(15);
    is_noticed(15, Sabotage::LanesAreNeverHeldBack);
}

#[test]
fn invariant_16_collection_never_deletes_a_chunk_that_is_reachable() {
    holds(16);
    is_noticed(16, Sabotage::EvictionAsksNobody);
    is_noticed(16, Sabotage::SweepLooksOnce);
    is_noticed(16, Sabotage::EvictionGoesTooFar);
}

#[test]
fn invariant_17_a_revoked_node_gets_nothing() {
    holds(17);
    is_noticed(17, Sabotage::RevokedAreLetIn);
}

#[test]
fn invariant_18_when_faults_stop_everything_completes_in_bounded_time() {
    holds(18);
    is_noticed(18, Sabotage::TimersAreLost);
}

#[test]
fn invariant_19_with_a_full_disk_reads_and_deletes_still_work() {
    holds(19);
    is_noticed(19, Sabotage::FullDiskRefusesDeletes);
    is_noticed(19, Sabotage::FullDiskRefusesReads);
}

#[test]
fn invariant_20_the_same_seed_gives_the_same_trace() {
    holds(20);
    is_noticed(20, Sabotage::UnseededChance);
    assert_ne!(run(1, None).trace, run(2, None).trace);
}
