//! Whose turn it is among the classes of content: deficit round-robin, with ageing.
//!
//! Classes 0 and 1 have lanes of their own and never come here. Each class of content that has something to send is given
//! bytes in proportion to its weight each time its turn comes, and sends as long as these last; what is left over is
//! kept while it has more to send. A class that has sent nothing for a while gets more at each turn, until as much as the
//! first.
//!
//! Invariants, each a property test below:
//! - No class starves: each is served within a bounded number of bytes of the others.
//! - While all have something to send, shares are near the weights.
//! - What a reader waits for is behind at most [`READER_WAITS_BYTES_MAX`] of other classes.

use crate::chunk::CHUNK_BYTES_MAX;
use crate::wire::Class;

const CLASSES: usize = Class::CONTENT.len();
/// Bytes that each class of content is given at its turn, in the order of [`Class::CONTENT`].
const QUANTUM_BYTES: [u64; CLASSES] = [1024 * 1024, 256 * 1024, 128 * 1024, 64 * 1024];
/// A class that has waited this long is given twice as much at each turn, after twice as long four times, and so on, in
/// milliseconds.
const AGED_AFTER_MS: u64 = 30_000;
/// A class never has more in hand: what it is given and what was left over.
const IN_HAND_BYTES_MAX: u64 = QUANTUM_BYTES[0] + CHUNK_BYTES_MAX as u64;
/// Bytes of other classes that may go before something that a reader waits for, at most.
pub const READER_WAITS_BYTES_MAX: u64 = (CLASSES as u64 - 1) * IN_HAND_BYTES_MAX;

/// Turns of the classes of content.
#[derive(Debug, Default)]
pub(super) struct Turns {
    classes: [Standing; CLASSES],
    /// Whose turn it is, as a place in [`Class::CONTENT`].
    at: usize,
    /// Whether that class was given its bytes for this turn.
    given: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    in_hand: u64,
    /// Since when it has had something to send and has sent nothing.
    waits_since_ms: Option<u64>,
}

impl Turns {
    /// Which class goes next, if `costs` are the bytes of the next thing that each class of content has to send. Asked
    /// again before [`Self::spend`] it says the same, unless that class has nothing any more.
    pub(super) fn next(&mut self, costs: [Option<u64>; CLASSES], now_ms: u64) -> Option<Class> {
        for (standing, cost) in self.classes.iter_mut().zip(costs) {
            if cost.is_some() {
                standing.waits_since_ms.get_or_insert(now_ms);
            } else {
                *standing = Standing::default();
            }
        }
        if costs.iter().all(Option::is_none) {
            return None;
        }
        // Ends: each round gives some class with something to send more, up to what anything costs.
        loop {
            let at = self.at;
            if let Some(cost) = costs[at] {
                if !self.given {
                    self.classes[at].give(QUANTUM_BYTES[at], now_ms);
                    self.given = true;
                }
                if self.classes[at].in_hand >= cost.min(CHUNK_BYTES_MAX.into()) {
                    return Some(Class::CONTENT[at]);
                }
            }
            self.at = (at + 1) % CLASSES;
            self.given = false;
        }
    }

    /// The class has sent so many bytes.
    pub(super) fn spend(&mut self, class: Class, cost: u64, now_ms: u64) {
        if let Some(at) = place(class) {
            let standing = &mut self.classes[at];
            standing.in_hand = standing.in_hand.saturating_sub(cost);
            standing.waits_since_ms = Some(now_ms);
        }
    }
}

impl Standing {
    fn give(&mut self, quantum: u64, now_ms: u64) {
        let waited_ms = now_ms.saturating_sub(self.waits_since_ms.unwrap_or(now_ms));
        let aged = 1u64 << (waited_ms / AGED_AFTER_MS).min(4);
        self.in_hand = (self.in_hand + (quantum * aged).min(QUANTUM_BYTES[0])).min(IN_HAND_BYTES_MAX);
    }
}

/// The place of a class in [`Class::CONTENT`].
pub(super) fn place(class: Class) -> Option<usize> {
    Class::CONTENT.iter().position(|known| *known == class)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

    /// Lets the classes in `busy` send chunks of these lengths, again and again, and tells what each has sent.
    fn sent(busy: [bool; CLASSES], lengths: &[u64], chunks: usize, ms_each: u64) -> [u64; CLASSES] {
        let mut turns = Turns::default();
        let mut sent = [0; CLASSES];
        for number in 0..chunks {
            let cost = lengths[number % lengths.len()];
            let now_ms = number as u64 * ms_each;
            let class = turns.next(busy.map(|busy| busy.then_some(cost)), now_ms).expect("some class is busy");
            turns.spend(class, cost, now_ms);
            sent[place(class).expect("it is of content")] += cost;
        }
        sent
    }

    proptest! {
        #[test]
        fn shares_are_near_the_weights_while_all_have_something_to_send(lengths in vec(1..=CHUNK, 1..20)) {
            let sent = sent([true; CLASSES], &lengths, 20_000, 0);
            let (all, weights) = (sent.iter().sum::<u64>() as f64, QUANTUM_BYTES.iter().sum::<u64>() as f64);
            for (share, quantum) in sent.iter().zip(QUANTUM_BYTES) {
                let (share, fair) = (*share as f64 / all, quantum as f64 / weights);
                // What is left over at the end is at most a few chunks of many thousand.
                let slack = 40.0 * CHUNK as f64 / all;
                prop_assert!((share - fair).abs() <= 0.1 * fair + slack, "{share} is not near {fair}: {sent:?}");
            }
        }

        #[test]
        fn no_class_starves_whatever_the_others_have(busy: [bool; CLASSES], lengths in vec(1..=CHUNK, 1..20)) {
            prop_assume!(busy.contains(&true));
            let sent = sent(busy, &lengths, 2_000, 0);
            let moved: u64 = sent.iter().sum();
            let round: u64 = QUANTUM_BYTES.iter().sum();
            for ((busy, sent), quantum) in busy.into_iter().zip(sent).zip(QUANTUM_BYTES) {
                let due = (moved / round).saturating_sub(1) * quantum;
                prop_assert!(!busy || sent + IN_HAND_BYTES_MAX >= due, "{sent} of at least {due}");
                prop_assert!(busy || sent == 0);
            }
        }

        /// Time stands still or flies, others have sent whatever they like: the bound is one of bytes.
        #[test]
        fn what_a_reader_waits_for_is_behind_a_bounded_number_of_bytes(
            before in vec((any::<[bool; CLASSES]>(), 1..=CHUNK, 0..200_000u64), 0..200),
            cost in 1..=CHUNK,
            others in 1..=CHUNK,
        ) {
            let mut turns = Turns::default();
            let mut now_ms = 0;
            for (mut busy, cost, wait_ms) in before {
                now_ms += wait_ms;
                busy[0] = false;
                if let Some(class) = turns.next(busy.map(|busy| busy.then_some(cost)), now_ms) {
                    turns.spend(class, cost, now_ms);
                }
            }
            let mut behind = 0;
            loop {
                let costs = [Some(cost), Some(others), Some(others), Some(others)];
                let class = turns.next(costs, now_ms).expect("all are busy");
                if class == Class::Reader {
                    break;
                }
                turns.spend(class, others, now_ms);
                behind += others;
                prop_assert!(behind <= READER_WAITS_BYTES_MAX, "{behind}");
            }
        }
    }

    #[test]
    fn a_class_that_waits_long_is_given_more() {
        let (slow, quick) = (sent([true; CLASSES], &[CHUNK], 400, 60_000), sent([true; CLASSES], &[CHUNK], 400, 0));
        assert!(slow[3] > 2 * quick[3], "a chunk a minute: {slow:?}, all at once: {quick:?}");
    }

    #[test]
    fn a_class_with_nothing_to_send_keeps_nothing_in_hand() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.next([None, None, None, Some(CHUNK)], 0);
            turns.next([None; CLASSES], 0);
        }
        assert!(turns.classes.iter().all(|standing| standing.in_hand == 0));
    }
}
