//! Worlds that once went wrong. Each is named after what was wrong.

use alexandria_sync::sim::run;

fn is_good(seed: u64) {
    let violations = run(seed, None).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

/// An edit could lower a field whose largest number wins, on one replica only.
#[test]
fn regression_an_edit_never_lowers_a_field_whose_largest_number_wins() {
    is_good(125);
}

/// Chunks that took turns on the lanes ended together, and were taken for a faster link than it was.
#[test]
fn regression_chunks_that_end_together_do_not_widen_the_window() {
    is_good(1319);
    is_good(1661);
}
