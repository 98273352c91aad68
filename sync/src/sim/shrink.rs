//! Makes a failing world small: leaves steps out for as long as the same promise breaks (delta debugging, Zeller and
//! Hildebrandt, 2002).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Plan, Sabotage, live};

/// A smaller world that fails in the same way.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// How its failure is told.
    pub text: String,
    /// Worlds that were lived through on the way.
    pub tries: u32,
}

/// Leaves steps out of `plan`, in which `invariant` is broken, until every one left is needed or `tries_max` worlds were lived
/// through. `None` if it is not broken at all.
pub fn shrink(plan: &Plan, sabotage: Option<Sabotage>, invariant: u8, tries_max: u32) -> Option<Shrunk> {
    let text = failure(plan, sabotage, invariant)?;
    let mut shrunk = Shrunk { plan: plan.clone(), text, tries: 1 };
    let mut piece = plan.steps.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let mut any_left_out = false;
        while at < shrunk.plan.steps.len() {
            if shrunk.tries >= tries_max {
                return Some(shrunk);
            }
            let mut smaller = shrunk.plan.clone();
            smaller.steps.drain(at..(at + piece).min(smaller.steps.len()));
            shrunk.tries += 1;
            if let Some(text) = failure(&smaller, sabotage, invariant) {
                (shrunk.plan, shrunk.text) = (smaller, text);
                any_left_out = true;
            } else {
                at += piece;
            }
        }
        // A step may be needed only by another one that has gone since.
        if piece > 1 || !any_left_out {
            piece /= 2;
        }
    }
    Some(shrunk)
}

/// How `invariant` is broken in a world, if it is. A panic breaks 0.
fn failure(plan: &Plan, sabotage: Option<Sabotage>, invariant: u8) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| live(plan, sabotage))) {
        Ok(outcome) => {
            let broken = outcome.violations.into_iter().find(|violation| violation.invariant == invariant);
            broken.map(|violation| violation.text)
        }
        Err(_) => (invariant == 0).then(|| "a panic".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::run;

    #[test]
    fn a_shrunk_world_still_breaks_its_promise_and_no_step_can_be_left_out() {
        let sabotage = Some(Sabotage::AckBeforeDurable);
        let broken =
            (0..100).find(|&seed| run(seed, sabotage).violations.iter().any(|violation| violation.invariant == 2));
        let plan = Plan::of(broken.expect("some world shows it"));
        let shrunk = shrink(&plan, sabotage, 2, 1_000).expect("it fails");
        assert!(shrunk.plan.steps.len() < plan.steps.len() / 3, "{}", shrunk.plan);
        for left_out in 0..shrunk.plan.steps.len() {
            let mut smaller = shrunk.plan.clone();
            smaller.steps.remove(left_out);
            assert_eq!(failure(&smaller, sabotage, 2), None, "{}", shrunk.plan);
        }
        assert_eq!(shrink(&plan, None, 2, 1_000).map(|shrunk| shrunk.text), None);
    }
}
