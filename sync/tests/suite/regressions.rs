//! Worlds that once went wrong. Each is named after what was wrong.
//!
//! A seed is a certain world only for as long as `sim::Plan` draws chance in the same order. Who changes that breaks the
//! promise again, looks for new seeds with `tests/simulate`, and puts them here.

use alexandria_sync::sim::{Addition, Plan, live};

fn is_good(seed: u64) {
    is_good_with(seed, &[]);
}

/// What worlds with leases had when these were found.
const LEASES_AND_STICKS: [Addition; 4] =
    [Addition::Budgets, Addition::Carriers, Addition::WantOfRoom, Addition::Choices];

fn is_good_with(seed: u64, additions: &[Addition]) {
    let violations = live(&Plan::with_additions(seed, additions), None).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// An edit could lower a field whose largest number wins, on one replica only.
#[test]
fn regression_an_edit_never_lowers_a_field_whose_largest_number_wins() {
    is_good(231);
    is_good(547);
}

/// Chunks that took turns on the lanes ended together, and were taken for a faster link than it was.
#[test]
fn regression_chunks_that_end_together_do_not_widen_the_window() {
    is_good(316);
    is_good(2812);
}

/// A delete that only some let in ends the way to a content: what others still show is not missing before clocks are right.
#[test]
fn regression_content_is_not_waited_for_whose_delete_is_set_aside_elsewhere() {
    is_good(390);
    is_good(2578);
}

/// A session whose disk was full never asked for content again, however much room there was.
#[test]
fn regression_content_comes_once_there_is_room_though_no_disk_says_so() {
    is_good(75);
    is_good(136);
}

/// Quiet that was on its way while something was written was taken for a promise about that, too.
#[test]
fn regression_quiet_says_nothing_about_what_is_written_while_it_is_on_its_way() {
    is_good(1444);
    is_good(4760);
}

/// A revoked node that had ended its own side of a session was still sent rows by the other side.
#[test]
fn regression_a_session_is_ended_with_a_revoked_node_that_has_gone_already() {
    is_good(6939);
}

/// The record of a blob has the same id for whoever imports the content: its tombstone was forgotten here and not yet there.
#[test]
fn regression_a_tombstone_stays_whose_id_will_be_used_again() {
    is_good(153);
}

/// What was held back after an absence left with its collection, though nobody else had it: cursors pass it.
#[test]
fn regression_what_is_held_back_does_not_leave_with_its_collection() {
    is_good_with(1753, &LEASES_AND_STICKS);
}

/// A bundle of one that was away for longer than its lease was taken for an honest one that nobody may refuse.
#[test]
fn regression_a_bundle_from_before_a_lease_ran_out_may_be_refused() {
    is_good_with(249, &LEASES_AND_STICKS);
}

/// Who carries out an erasure writes what follows from what it alone knew; the other end is told that all is quiet while
/// that is on its way.
#[test]
fn regression_quiet_says_nothing_about_what_follows_from_an_erasure_at_the_other_end() {
    is_good_with(101_435, &[Addition::Carriers, Addition::Secrets]);
}

/// After a clock was far ahead and sure of it, one that nobody vouches for begins no day of a budget until it has caught up.
#[test]
fn regression_no_day_is_waited_for_that_a_clock_which_was_set_back_will_not_begin() {
    is_good_with(102_448, &[Addition::Budgets]);
}

/// A backup that was made before a node had met anybody was taken for a node that was never restored, and gave what had been deleted
/// everywhere since, and was forgotten.
#[test]
fn regression_a_node_that_goes_back_to_before_it_met_anybody_brings_nothing_back() {
    is_good(105_817);
}

/// A tombstone that its bridge had forgotten after a lease was missed there by the judge when a node gave it up.
#[test]
fn regression_a_tombstone_that_the_bridge_has_forgotten_may_leave_with_its_collection() {
    is_good_with(3337, &LEASES_AND_STICKS);
}

/// What the bridge wrote into the site of a node that never reaches it was missed there by the judge: a stick had taken the record to the bridge, and
/// none came back.
#[test]
fn regression_what_the_bridge_writes_into_a_site_that_never_reaches_it_stays_there() {
    is_good_with(12_039, &Addition::ALL);
}

/// A bundle of the bridge began to read all anew, and ended it with nothing read: what the bridge had was held back.
#[test]
fn regression_no_bundle_begins_or_ends_reading_all_anew() {
    is_good_with(8609, &LEASES_AND_STICKS);
}

/// What was held back no longer, because another had a version of it, had been passed by cursors: what was more in it reached nobody.
#[test]
fn regression_what_is_held_back_no_longer_goes_on_from_here() {
    is_good_with(2393, &[Addition::Secrets]);
}

/// The tombstone that an erasure makes of a late annotation was judged by a clock that had been set back since, and set aside.
#[test]
fn regression_what_an_erasure_has_overtaken_is_not_judged_again() {
    is_good_with(1_006_293, &Addition::ALL);
}

/// A manifest and a chunk that a budget held took turns to be what is missing: the host gave its word, and the session wanted another,
/// without end.
#[test]
fn regression_what_a_budget_holds_is_not_told_again_and_again() {
    is_good_with(2_000_108, &Addition::ALL);
}

/// A delete that the bridge had set aside left with its collection, and did not come back with it: the judge took it for lost.
#[test]
fn regression_what_the_bridge_has_set_aside_does_not_come_back_with_a_collection() {
    is_good_with(3_000_266, &Addition::ALL);
}

/// A backup that was made while two machines lived one life had passed, unseen, what the other one wrote: the bridge had left it out as its own.
#[test]
fn regression_a_backup_of_two_machines_in_one_life_has_passed_nothing_unseen() {
    is_good_with(4_000_667, &Addition::ALL);
}

/// What was held back no more, and was not new here, got a new row of which the simulated host told no session.
#[test]
fn regression_sessions_hear_of_what_is_held_back_no_more() {
    is_good_with(4_000_969, &Addition::ALL);
    is_good_with(5_010_041, &Addition::ALL);
}

/// A blob that became whole, rotted and was found out while a session received it was taken for one that its peer had lied about.
#[test]
fn regression_who_receives_a_blob_that_rots_meanwhile_does_not_blame_its_peer() {
    is_good_with(5_006_695, &Addition::ALL);
}

/// A node that lives by sticks lost a content, and its clock was set back: its receipts looked older than one from before, and what it lacked
/// was never carried.
#[test]
fn regression_a_receipt_counts_though_the_clock_was_set_back() {
    is_good_with(30_396, &Addition::ALL);
    is_good_with(6_003_667, &Addition::ALL);
}

/// A disk that was full let go of a blob and began it again: what had come before then was taken for lost by a cut.
#[test]
fn regression_what_was_given_up_for_want_of_room_is_not_lost_by_a_cut() {
    is_good_with(7_020_619, &Addition::ALL);
    is_good_with(11_007_719, &Addition::ALL);
}

/// Whose disk was full asked for the same manifests again and again, and each answer was kept beside the others.
#[test]
fn regression_a_manifest_that_is_asked_for_again_is_kept_once() {
    is_good_with(8_030_580, &Addition::ALL);
}

/// A node whose disk was full while its clock was years ahead stamped later what it could write then: clocks were set right to before that.
#[test]
fn regression_clocks_are_set_right_to_after_what_there_was_no_room_to_write() {
    is_good_with(10_003_416, &Addition::ALL);
}

/// What was swept after reading all anew came back from a version of it that was set aside, and let in later.
#[test]
fn regression_what_was_swept_does_not_come_back_from_what_is_set_aside() {
    is_good_with(9_019_049, &Addition::ALL);
}

/// A node that had given its records away in a bundle, and had met nobody, passed for new for ever: what others had deleted came back.
#[test]
fn regression_who_gave_a_bundle_away_does_not_pass_for_new() {
    is_good_with(13_009_729, &Addition::ALL);
}

/// A card from before its node's first meeting met a neighbour first, and got its standing as a new node does. The bridge, which knew it from a bundle, showed
/// it that it was set back: its new life kept that standing, and gave away what had been deleted.
#[test]
fn regression_a_new_life_keeps_no_standing_that_was_given_to_one_who_passed_for_new() {
    is_good_with(71_593_689, &Addition::ALL);
}

/// A tombstone left with its collection though a version of its record was set aside: let in later, that brought back what had been deleted.
#[test]
fn regression_what_is_set_aside_goes_with_its_collection() {
    is_good_with(50_067_617, &Addition::ALL);
}

/// A page that was refused, for its reader was told of another copy meanwhile, was torn at a power cut: what was torn was the last write before it.
#[test]
fn regression_what_is_refused_when_the_power_goes_tears_nothing() {
    is_good_with(21_180_685, &Addition::ALL);
}

/// A bundle from before brought a delete that was set aside: what was held back at its reader, since the bridge had forgotten that delete, went on from
/// there as if it lived.
#[test]
fn regression_what_is_held_back_waits_for_a_delete_that_is_set_aside() {
    is_good_with(18_047_865, &Addition::ALL);
}

/// A card from before its node's first meeting held all that the bridge had of it, so that nothing showed that it had been set back: it passed
/// for fresh, after a lease, and brought back what had been deleted.
#[test]
fn regression_who_is_known_and_knows_nobody_was_set_back() {
    is_good_with(14_001_657, &Addition::ALL);
}

/// Content that the bridge had said it holds was deleted and swept there, taken in again at a node under another record, and given up there on the
/// bridge's old word.
#[test]
fn regression_the_bridge_is_asked_again_about_what_another_record_names() {
    is_good_with(110_076_590, &Addition::ALL);
}

fn is_good_with_absences(seed: u64) {
    let violations = live(&Plan::with_absences(seed), None).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// A node whose lease ran out in the middle of a session with the bridge was waited for, though it learns of that only in the next one, within a day.
#[test]
fn regression_whose_lease_runs_out_in_a_session_learns_of_it_in_the_next() {
    is_good_with_absences(120_030_913);
}

/// A delete by a clock that was far ahead was forgotten, and an earlier delete of the same record came: it was missed.
#[test]
fn regression_a_delete_that_is_forgotten_may_give_way_to_an_earlier_one() {
    is_good_with_absences(120_042_289);
}

/// Cards from before their nodes' first meeting pass for new nodes where nobody can tell (docs/adr/0013-long-absence.md, what stays).
#[test]
fn regression_what_comes_back_with_a_card_that_passes_for_new_is_known() {
    is_good_with_absences(120_032_345);
    is_good_with_absences(120_051_145);
    is_good_with_absences(161_079_901);
}

/// A delete by the bridge, whose clock was years ahead, was set aside at a node that read all anew, and the record counted as confirmed there: it came back once
/// the bridge had forgotten the delete.
#[test]
fn regression_a_delete_that_is_set_aside_while_all_is_read_anew_holds_its_record_back() {
    is_good_with_absences(120_132_857);
}

/// A node had given a collection up when an image of its card was made, and had it again since; then the bridge went back to before that, and the node to
/// the image: neither has what was missed.
#[test]
fn regression_what_node_and_bridge_have_both_gone_back_from_is_missed_by_nobody() {
    is_good_with(150_093_493, &Addition::ALL);
}

/// A node whose clock was forty years ahead deleted a record. The bridge set that aside; the node forgot its tombstone, and got the record back.
#[test]
fn regression_a_node_keeps_a_tombstone_that_the_bridge_has_set_aside() {
    is_good_with_absences(161_008_717);
}

/// The other end of a link that was let go, for its budget was used up, was never told, and called it a violation that no hello came.
#[test]
fn regression_the_other_end_of_a_link_that_is_let_go_notices() {
    let violations = live(&Plan::dense(160_058_080), None).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// What was held back for a delete that was set aside went on once a neighbour sent it, which had not had the delete yet.
#[test]
fn regression_what_waits_for_a_delete_is_held_back_whoever_sends_it() {
    is_good_with_absences(161_061_094);
}

/// A bridge had set a record aside when its node gave the collection up, and got it again, in a bundle of before, once the node had the
/// collection again: it took it for the node's own, and never sent it.
#[test]
fn regression_what_was_set_aside_and_comes_again_goes_back_to_who_gave_it_up() {
    is_good_with(230_553_725, &Addition::ALL);
    let violations = live(&Plan::with_sticks(260_038_642), None).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// A node took a bundle in, which its bridge had written after it had offered the node less in a session that was just beginning: the
/// node asked for what came after the bundle, and was called a liar.
#[test]
fn regression_a_bundle_that_brings_more_than_was_offered_ends_no_session() {
    is_good_with(230_476_315, &Addition::ALL);
}

/// The card of a node that never reaches the bridge was put back; what it had written for its own site before came there on a stick, and the judge
/// took the bridge for one that had met it since.
#[test]
fn regression_who_never_reaches_the_bridge_is_not_told_by_it_that_its_card_was_put_back() {
    is_good_with(230_025_559, &Addition::ALL);
}

/// What a node held back reached the bridge with a bundle that it had given away before: the bridge took it for the node's own, and never sent it.
#[test]
fn regression_what_is_held_back_and_reached_the_bridge_in_a_bundle_goes_on() {
    is_good_with_absences(210_041_986);
}

/// A new node met a neighbour whose lease had run out, and the bridge, at the same moment: the simulated host let the session go on in which it had
/// said that it was new, and what that sent was held back.
#[test]
fn regression_a_session_that_was_opened_for_something_else_does_not_read_all_anew() {
    is_good_with_absences(161_111_197);
}
