//! Where a test's randomness comes from: one printed number that repeats it.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Set to a number to repeat a run.
pub const VARIABLE: &str = "ALEXANDRIA_SEED";

/// The seed of this test: from [`VARIABLE`], or a fresh one. Printed, so that a failure shows how to repeat it.
pub fn seed() -> u64 {
    let seed = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE}={text} is not a number from 0 to 2^64-1")),
        Err(_) => rand::rng().random(),
    };
    println!("seed {seed} (repeat with {VARIABLE}={seed})");
    seed
}

/// A generator that gives the same numbers for the same seed.
pub fn generator(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
