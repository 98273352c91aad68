//! Worlds in which nodes stay away for longer than their leases, most of them with neighbours, sticks and cards as well: what brings
//! deleted things back takes several of these at once, which usual worlds rarely have.

use alexandria_sync::sim::{Figures, Plan, judge};

const WORLDS: u64 = 150;

#[test]
fn invariants_hold_where_leases_run_out_among_neighbours_sticks_and_cards() {
    let from = std::env::var("ALEXANDRIA_SIM_FROM").map_or(0, |text| {
        text.parse().unwrap_or_else(|_| panic!("ALEXANDRIA_SIM_FROM must be a number, not `{text}`"))
    });
    let mut figures = Figures::default();
    let mut violations = Vec::new();
    for seed in from..from + WORLDS {
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
