//! How many bytes of the wire may still be taken, where a link has a budget or a rate.
//!
//! The host measures what has crossed the wire, and says now and then how much may follow ([`Word`]). Between two such
//! words only what is asked for and sent counts, by an estimate of what it takes on the wire (`budget::wire_cost`). What
//! was admitted stays counted for one word longer than it takes to cross, because a word may have been on its way
//! while it arrived: so the estimate errs on the safe side.
//!
//! Records have a share of their own. Their pages are not asked for one by one, so the last one may pass it; what is on its
//! way then is bounded by the window of their lane. Control is never held: the host ends the session when nothing is left.

use crate::budget::{Word, wire_cost};

/// What content may still take. Unlimited until the host says otherwise.
#[derive(Debug, Default)]
pub(super) struct Credit {
    limit: Option<Limit>,
    /// Admitted and not across yet, by estimate.
    crossing: u64,
    /// Across since the last word.
    crossed: u64,
    /// The least that was refused since everything was last tried.
    short_of: Option<u64>,
    /// What the host was told of last.
    told_short_of: Option<u64>,
    /// What pages may still take; `None` without a limit.
    records_left: Option<u64>,
    /// What pages have taken since the last word.
    records_taken: u64,
}

#[derive(Debug)]
struct Limit {
    left: u64,
}

impl Credit {
    /// The host's word on what may follow what had crossed the wire a moment ago.
    pub(super) fn set(&mut self, Word { content_bytes, records_bytes }: Word) {
        self.records_left = Some(records_bytes.saturating_sub(std::mem::take(&mut self.records_taken)));
        let left = content_bytes.saturating_sub(self.crossing + self.crossed);
        self.limit = Some(Limit { left });
        self.crossed = 0;
    }

    /// Everything that waits is about to be tried again.
    pub(super) fn try_again(&mut self) {
        self.short_of = None;
    }

    /// Takes `cost` if there is as much; if not, notes what is missing.
    pub(super) fn admit(&mut self, cost: u64) -> bool {
        if !self.covers(cost) {
            return false;
        }
        if let Some(limit) = &mut self.limit {
            limit.left -= cost;
        }
        self.crossing += cost;
        true
    }

    /// Whether there is as much; if not, notes what is missing.
    pub(super) fn covers(&mut self, cost: u64) -> bool {
        let is_short = self.limit.as_ref().is_some_and(|limit| limit.left < cost);
        if is_short {
            self.short_of = Some(self.short_of.map_or(cost, |short| short.min(cost)));
        }
        !is_short
    }

    /// What there is.
    pub(super) fn left(&self) -> u64 {
        self.limit.as_ref().map_or(u64::MAX, |limit| limit.left)
    }

    /// What was admitted at `cost` has crossed, or never will.
    pub(super) fn cross(&mut self, cost: u64) {
        self.crossing = self.crossing.saturating_sub(cost);
        self.crossed += cost;
    }

    /// Whether another page may go or come.
    pub(super) fn lets_records(&self) -> bool {
        self.records_left != Some(0)
    }

    /// A page went or came. Records are compressed on the wire, so that this is the most that it took.
    pub(super) fn note_page(&mut self, records: &[Vec<u8>]) {
        self.note_records(wire_cost(records.iter().map(|record| record.len() as u64).sum()));
    }

    fn note_records(&mut self, cost: u64) {
        self.records_taken += cost;
        self.records_left = self.records_left.map(|left| left.saturating_sub(cost));
    }

    /// Bytes that the next thing would take, if it was refused: with what is crossing, to be added to what has crossed.
    pub(super) fn short_of(&self) -> Option<u64> {
        self.short_of.map(|cost| cost + self.crossing + self.crossed)
    }

    /// The same, once for each change.
    pub(super) fn newly_short_of(&mut self) -> Option<u64> {
        let short = self.short_of();
        let is_new = self.told_short_of != short;
        self.told_short_of = short;
        short.filter(|_| is_new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit(u64),
        Cross,
        /// The host measures; its word arrives after this many more things have crossed.
        Word(usize),
    }

    fn word(content_bytes: u64) -> Word {
        Word { content_bytes, records_bytes: 0 }
    }

    proptest! {
        /// However words and content overtake each other, what was admitted never takes more than the host allowed.
        #[test]
        fn what_is_admitted_never_passes_what_was_allowed(
            allowed in 0..1_000_000u64,
            steps in vec(prop_oneof![
                (1..50_000u64).prop_map(Step::Admit),
                Just(Step::Cross),
                (0..3usize).prop_map(Step::Word),
            ], 1..300),
        ) {
            let mut credit = Credit::default();
            let mut crossing = std::collections::VecDeque::new();
            let mut crossed_in_all = 0u64;
            let cross = |credit: &mut Credit, crossing: &mut std::collections::VecDeque<u64>, all: &mut u64| {
                if let Some(cost) = crossing.pop_front() {
                    credit.cross(cost);
                    *all += cost;
                }
            };
            credit.set(word(allowed));
            for step in steps {
                match step {
                    Step::Admit(cost) if credit.admit(cost) => crossing.push_back(cost),
                    Step::Admit(_) => {}
                    Step::Cross => cross(&mut credit, &mut crossing, &mut crossed_in_all),
                    Step::Word(late) => {
                        let left = allowed.saturating_sub(crossed_in_all);
                        for _ in 0..late {
                            cross(&mut credit, &mut crossing, &mut crossed_in_all);
                        }
                        credit.set(word(left));
                    }
                }
                let in_all = crossed_in_all + crossing.iter().sum::<u64>();
                prop_assert!(in_all <= allowed, "{in_all} of {allowed}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_asked_for_and_comes_once_it_is_allowed() {
        let mut credit = Credit::default();
        assert!(credit.admit(1_000_000), "without a word nothing is held");
        credit.cross(1_000_000);
        credit.set(word(1_000_000));
        assert!(!credit.admit(500));
        assert_eq!(credit.short_of(), Some(500));
        credit.set(word(500));
        credit.try_again();
        assert_eq!(credit.short_of(), None);
        assert!(credit.admit(500) && !credit.admit(1));
    }

    #[test]
    fn pages_go_until_their_share_is_used_up_and_again_with_the_next_word() {
        let mut credit = Credit::default();
        credit.note_records(1_000);
        assert!(credit.lets_records(), "without a word nothing is held");
        credit.set(Word { content_bytes: 0, records_bytes: 1_500 });
        assert!(credit.lets_records());
        credit.note_records(600);
        assert!(!credit.lets_records());
        credit.set(Word { content_bytes: 0, records_bytes: 1_500 });
        assert!(credit.lets_records());
    }
}
