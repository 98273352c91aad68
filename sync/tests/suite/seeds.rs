//! Which worlds the simulator's tests live through.

use std::ops::Range;

/// The seeds from `ALEXANDRIA_SIM_FROM` (0) on, `ALEXANDRIA_SIM_SEEDS` (`otherwise`) of them.
pub(crate) fn chosen(otherwise: u64) -> Range<u64> {
    let from = number("ALEXANDRIA_SIM_FROM", 0);
    from..from.saturating_add(number("ALEXANDRIA_SIM_SEEDS", otherwise))
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")),
        Err(_) => otherwise,
    }
}
