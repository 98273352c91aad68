//! Worlds in which nodes stay away for longer than their leases, most of them with neighbours, sticks and cards as well: what brings
//! deleted things back takes several of these at once, which usual worlds rarely have.

use alexandria_sync::sim::{Figures, Plan, judge};

use crate::seeds;

const WORLDS: u64 = 150;

#[test]
fn invariants_hold_where_leases_run_out_among_neighbours_sticks_and_cards() {
    let mut figures = Figures::default();
    let mut violations = Vec::new();
    for seed in seeds::chosen(WORLDS) {
        let (broken, lived) = judge(&Plan::with_absences(seed), None);
        violations.extend(broken);
        figures.add(&lived);
    }
    println!("{figures:?}");
    assert!(violations.is_empty(), "{} {violations:#?}", violations.len());
    let has_all =
        figures.read_anew > 0 && figures.tombstones_forgotten > 0 && figures.carried > 0 && figures.new_lives > 0;
    assert!(has_all, "{figures:?}");
}
