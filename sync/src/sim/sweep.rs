//! Many worlds, on every core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{Figures, Plan, Sabotage, Violation, live};

/// One world in this many is lived through twice, to compare the traces (invariant 20).
const TWICE_EVERY: u64 = 10;

/// What came of many worlds.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Every promise that was broken, in order of seeds.
    pub violations: Vec<Violation>,
    /// What they went through, together.
    pub figures: Figures,
}

/// Lives through `count` worlds from the seed `from` on.
pub fn sweep(from: u64, count: u64, sabotage: Option<Sabotage>) -> Sweep {
    let next = AtomicU64::new(from);
    let result = Mutex::new(Sweep::default());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let (violations, figures) = judge(&Plan::of(seed), sabotage);
                    let mut result = result.lock().expect("no world panics while it holds this");
                    result.violations.extend(violations);
                    result.figures.add(&figures);
                }
            });
        }
    });
    let mut result = result.into_inner().expect("every worker has ended");
    result.violations.sort_by_key(|violation| violation.seed);
    result
}

/// Lives through one world, or through it twice; a panic is a violation, too.
pub fn judge(plan: &Plan, sabotage: Option<Sabotage>) -> (Vec<Violation>, Figures) {
    let seed = plan.seed;
    let once = || catch_unwind(AssertUnwindSafe(|| live(plan, sabotage)));
    let Ok(mut outcome) = once() else {
        return (vec![Violation { invariant: 0, seed, text: "a panic".into() }], Figures::default());
    };
    if seed.is_multiple_of(TWICE_EVERY) && once().is_ok_and(|again| again.trace != outcome.trace) {
        let text = "the same seed gave another trace".into();
        outcome.violations.push(Violation { invariant: 20, seed, text });
    }
    (outcome.violations, outcome.figures)
}
