//! Long absence: who may give records to whom, how far tombstones may be forgotten, and what becomes of records that were not
//! met again.
//!
//! Two times, both by the clock of the bridge's store, decide (docs/adr/0013-long-absence.md). A replica is *in step* as of a time if
//! whatever the bridge held then was applied there. It has *collected* up to a time if deletes that the bridge had by then may be
//! unknown there: forgotten, or never met because another had forgotten them. [`may_give`] is the rule between two.
//!
//! Why nothing comes back: a live record at a giver in step as of `i` was not deleted at the bridge at `i`; a delete that the
//! taker may not know was there by `c`; and `i` is no earlier than `c`.
//!
//! Not here: keeping these times, and forgetting (the stores); asking and telling (`session`).

use minicbor::{Decode, Encode};

use crate::hlc::DRIFT_BOUND_MS;
use crate::id::Seq;
use crate::record::Record;

/// How a replica stands, as its hello tells it.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Standing {
    /// Whatever the bridge held at this time, in milliseconds since 1970, was applied here. [`Standing::FRESH`]'s if nothing came from
    /// anybody yet.
    #[n(0)]
    pub in_step_ms: u64,
    /// Deletes that the bridge had by this time may be unknown here.
    #[n(1)]
    pub collected_ms: u64,
    /// Whether it keeps the catalogue and all collections, and has read all of them once: who reads all of it is in step, too.
    #[n(2)]
    #[cbor(default)]
    pub keeps_all: bool,
}

impl Standing {
    /// One that holds nothing of anybody: what it has, it made, and gave to nobody.
    pub const FRESH: Self = Self { in_step_ms: u64::MAX, collected_ms: 0, keeps_all: true };

    /// As it stands once it has given what it holds at this time. Nobody has deleted that before.
    #[must_use]
    pub fn once_given(self, at_ms: u64) -> Self {
        if self.in_step_ms == Self::FRESH.in_step_ms {
            Self { in_step_ms: at_ms, keeps_all: false, ..self }
        } else {
            self
        }
    }
}

/// Whether one replica may give its records to another.
pub fn may_give(giver: Standing, taker: Standing) -> bool {
    giver.in_step_ms >= taker.collected_ms
}

/// As of when a replica is in step once it has met a peer that may give it records. Before all was read of one who is in step, what is here may be
/// the peer's, and lives as of the peer's time; and nobody is in step as of later than the bridge, though a clock here may have said so.
pub fn in_step_once_met(in_step_ms: u64, is_caught_up: bool, theirs: Standing, is_bridge: bool) -> u64 {
    // An old bridge tells nothing.
    let tells = !is_bridge || theirs.in_step_ms > 0;
    if tells && (is_bridge || !is_caught_up) { in_step_ms.min(theirs.in_step_ms) } else { in_step_ms }
}

/// Whether a record is a tombstone that may be forgotten one day. An id that follows from other things will be used again, by whoever
/// finds the same things: whoever had not forgotten yet would not see that.
pub fn is_forgettable(record: &Record) -> bool {
    record.is_tombstone() && record.key.id.minted_unix_ms().is_some()
}

/// Whether the time of a tombstone has come by `collected_ms`, so that a node may count it among the deletes that the bridge had by then. The bridge may have
/// set aside one whose stamp is later, and give away what it deletes.
pub fn has_come(tombstone: &Record, collected_ms: u64) -> bool {
    !is_set_aside(tombstone, collected_ms)
}

/// Whether a bridge whose clock shows this time sets a version aside, because its stamp is too far ahead: it has it, and does not give it.
pub fn is_set_aside(record: &Record, bridge_ms: u64) -> bool {
    record.newest_stamp().time.unix_ms() > bridge_ms.saturating_add(DRIFT_BOUND_MS)
}

/// A moment at which the end of a feed was seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its last row then.
    pub head: Seq,
}

/// Moments at which the end of one feed was seen, few however long it lives. What lies up to a mark was there at its time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// Marks that are kept of a feed, at most.
    pub const MAX: usize = 32;

    /// Those that were kept, in order.
    pub fn kept(&self) -> &[Mark] {
        &self.0
    }

    /// Puts back what was kept. Marks that go back in time or in the feed are left out.
    pub fn restored(kept: impl IntoIterator<Item = Mark>) -> Self {
        let mut marks = Self::default();
        for mark in kept.into_iter().take(Self::MAX) {
            if marks.0.last().is_none_or(|last| last.at_ms < mark.at_ms && last.head < mark.head) {
                marks.0.push(mark);
            }
        }
        marks
    }

    /// Notes one, and says whether anything is different now. Where there are too many, every other one goes.
    pub fn note(&mut self, mark: Mark) -> bool {
        if self.0.last().is_some_and(|last| mark.at_ms <= last.at_ms || mark.head <= last.head) {
            return false;
        }
        if self.0.len() == Self::MAX {
            let mut at = 0;
            self.0.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        self.0.push(mark);
        true
    }

    /// The last row that was there at a time, as far as marks tell.
    pub fn head_at(&self, at_ms: u64) -> Seq {
        let past = self.0.iter().rev().find(|mark| mark.at_ms <= at_ms);
        past.map_or(Seq::default(), |mark| mark.head)
    }

    /// Drops those that can tell nothing about a later time than this that others do not.
    pub fn forget_before(&mut self, at_ms: u64) {
        let past = self.0.iter().filter(|mark| mark.at_ms <= at_ms).count();
        self.0.drain(..past.saturating_sub(1));
    }
}

/// A record that was here before everything was read anew, and that the bridge did not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unconfirmed {
    /// Whether it came from the bridge, or was sent there.
    pub bridge_had_it: bool,
    /// Whether it is held back already: cursors have passed it, and it was not sent all the same.
    pub is_held_back: bool,
    /// Whether its bucket was read.
    pub is_read: bool,
    /// Whether the bridge sets it aside: nobody has deleted it.
    pub is_set_aside: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was deleted meanwhile: it goes, without a tombstone.
    Forget,
    /// It was never sent, or waits at the bridge for its time, or nobody asked: it stays, and nobody gets it until a person says so.
    HoldBack,
}

impl Unconfirmed {
    /// Decides.
    pub fn verdict(self) -> Verdict {
        let was_deleted = self.bridge_had_it && self.is_read && !self.is_held_back && !self.is_set_aside;
        if was_deleted { Verdict::Forget } else { Verdict::HoldBack }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many marks were thinned out, none tells of a row that was not there yet.
        #[test]
        fn marks_never_tell_of_a_row_before_its_time(steps in prop::collection::vec((0u64..50, 0u64..20), 0..200), asked: u16) {
            let (mut now, mut head) = (0, 0);
            let mut marks = Marks::default();
            let mut truth = vec![(0, 0)];
            for (wait, rows) in steps {
                (now, head) = (now + wait, head + rows);
                truth.push((now, head));
                marks.note(Mark { at_ms: now, head: Seq(head) });
                prop_assert!(marks.kept().len() <= Marks::MAX);
                prop_assert_eq!(&Marks::restored(marks.kept().to_vec()), &marks);
            }
            let asked = u64::from(asked) % (now + 10);
            let there = truth.iter().rev().find(|(at, _)| *at <= asked).map_or(0, |(_, head)| *head);
            prop_assert!(marks.head_at(asked).0 <= there);
            let mut fewer = marks.clone();
            fewer.forget_before(asked);
            prop_assert_eq!(fewer.head_at(asked), marks.head_at(asked));
            prop_assert_eq!(fewer.head_at(now), marks.head_at(now));
        }
    }

    #[test]
    fn before_all_was_read_once_a_replica_is_in_step_as_of_the_earliest_that_gave() {
        let standing = |in_step_ms| Standing { in_step_ms, collected_ms: 0, keeps_all: true };
        assert_eq!(in_step_once_met(9, false, standing(7), false), 7);
        assert_eq!(in_step_once_met(9, true, standing(7), false), 9, "it knows what was deleted until then");
        assert_eq!(in_step_once_met(9, false, Standing::FRESH, false), 9);
        assert_eq!(in_step_once_met(9, true, standing(7), true), 7, "a clock was ahead");
        assert_eq!(in_step_once_met(9, true, Standing::default(), true), 9, "an old bridge");
    }

    #[test]
    fn who_is_not_in_step_gives_nothing_to_who_has_collected_since() {
        let standing = |in_step_ms, collected_ms| Standing { in_step_ms, collected_ms, keeps_all: true };
        assert!(may_give(standing(7, 9), standing(0, 7)));
        assert!(!may_give(standing(6, 0), standing(9, 7)));
        assert!(may_give(Standing::default(), Standing::default()), "nobody has collected anything");
        assert!(may_give(Standing::FRESH, standing(9, 9)));
        assert!(!may_give(Standing::FRESH.once_given(8), standing(9, 9)));
        assert_eq!(standing(9, 7).once_given(8), standing(9, 7), "that was noted before");
    }
}
