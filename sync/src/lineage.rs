//! Which states a store has been in, so that one that was set back to an older copy of itself, or runs twice, is noticed.
//!
//! A copy is opened before it is used. Each opening, a *start*, draws a number at random that no other start has; a [`Lineage`] is
//! the list of starts that have numbered rows, each with the row after which it began. So a state within one epoch is named by how
//! many rows were numbered by then and the start that numbered the last of them: a [`Moment`]. Two copies of one store that both go
//! on number their next rows in different starts, and from then on share no moment.
//!
//! Whoever reads a feed is told the moment with each page, keeps it in the same step as the page, and tells it in each hello
//! ([`Remembered`]). [`Lineage::judge`] says what follows (docs/adr/0016-copied-cards.md):
//! - A moment that is part of the past here: the reader has read nothing that is not here.
//! - One that is not, and that this store has given out itself: it came from a copy that went on elsewhere, or that was overwritten.
//!   A new life has to begin before anything else is told or read.
//! - One that this store never gave out: a neighbour's word for it is worth nothing; the bridge's is believed.
//!
//! Not here: drawing numbers, and keeping all this (the stores).

use minicbor::{Decode, Encode};

use crate::id::Epoch;

/// Starts that are kept, at most. A moment of an earlier one is not recognised: then a new life begins for nothing.
pub const STARTS_MAX: usize = 1024;
/// Moments of one peer that are remembered, at most, of all its epochs.
pub const REMEMBERED_MAX: usize = 16;

const SEAL_CONTEXT: &str = "alexandria 2026 moment of a store";

/// A state of a store within one epoch. Others keep it as it is.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(array)]
pub struct Moment {
    /// The start that numbered the last row.
    #[n(0)]
    pub start: u64,
    /// Rows that were numbered, in all feeds together, and times that rows were held back, which readers pass without a sight of
    /// them.
    #[n(1)]
    pub rows: u64,
    /// Shows the store that it has given this out.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub seal: [u8; 16],
}

/// A moment of a peer that was read up to.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(array)]
pub struct Remembered {
    /// In which epoch of the peer.
    #[n(0)]
    pub epoch: Epoch,
    /// What it had told.
    #[n(1)]
    pub moment: Moment,
}

/// What pages tell of the moment that they were read in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    /// Nothing: the peer does not know of moments.
    Nothing,
    /// In a session.
    InSession {
        /// What was remembered of the peer's epoch when the session began, or was told in it last.
        known: Vec<Moment>,
        /// What is to be remembered instead.
        now: Moment,
    },
    /// In a bundle: nobody knows what its exporter has been since.
    Carried(Moment),
}

/// What a remembered moment says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is part of the past here.
    Past,
    /// It was given out by a copy of this store that has gone on from here otherwise.
    Elsewhere,
    /// It was never given out by this store.
    Unproven,
}

/// The starts of one store in one epoch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lineage {
    epoch: Epoch,
    secret: [u8; 32],
    /// Each start, and how many rows there were when it began. All but the last have numbered some.
    starts: Vec<(u64, u64)>,
}

impl Lineage {
    /// That of a new epoch. `secret` is drawn at random, and told to nobody.
    pub fn new(epoch: Epoch, secret: [u8; 32], start: u64) -> Self {
        Self { epoch, secret, starts: vec![(start, 0)] }
    }

    /// Puts back what [`Self::parts`] gave; `None` if nothing can have given it.
    pub fn restored(epoch: Epoch, secret: [u8; 32], starts: Vec<(u64, u64)>) -> Option<Self> {
        let in_order = starts.windows(2).all(|pair| pair[0].1 < pair[1].1);
        (in_order && !starts.is_empty() && starts.len() <= STARTS_MAX).then_some(Self { epoch, secret, starts })
    }

    /// The epoch, the secret, and each start with how many rows there were when it began.
    pub fn parts(&self) -> (Epoch, [u8; 32], &[(u64, u64)]) {
        (self.epoch, self.secret, &self.starts)
    }

    /// The epoch whose lineage it is.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The store was opened, with so many rows. To be made durable before a row is numbered.
    pub fn begin(&mut self, start: u64, rows: u64) {
        // One that has numbered nothing is in no moment.
        self.starts.retain(|&(_, from)| from < rows);
        self.starts.push((start, rows));
        if self.starts.len() > STARTS_MAX {
            self.starts.remove(0);
        }
    }

    /// The moment in which there are so many rows, all of them durable; `None` before the first.
    pub fn moment(&self, rows: u64) -> Option<Moment> {
        let &(start, _) = self.starts.iter().rfind(|&&(_, from)| from < rows)?;
        Some(Moment { start, rows, seal: self.seal(start, rows) })
    }

    /// What a moment says that somebody remembers of this epoch, now that there are so many rows.
    pub fn judge(&self, moment: Moment, rows: u64) -> Verdict {
        if moment.seal != self.seal(moment.start, moment.rows) {
            return Verdict::Unproven;
        }
        let ends = self.starts.iter().skip(1).map(|&(_, from)| from).chain([rows]);
        let mut known = self.starts.iter().zip(ends);
        let is_past =
            known.any(|(&(start, from), end)| start == moment.start && from < moment.rows && moment.rows <= end);
        if is_past { Verdict::Past } else { Verdict::Elsewhere }
    }

    fn seal(&self, start: u64, rows: u64) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(SEAL_CONTEXT.as_bytes());
        for number in [self.epoch.0, start, rows] {
            hasher.update(&number.to_be_bytes());
        }
        let mut seal = [0; 16];
        seal.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        seal
    }
}

const REMEMBERED_BYTES: usize = 40;

/// What is remembered, for a store: epoch 8, start 8, rows 8, big-endian, and the seal, one after the other.
pub fn to_bytes(remembered: &[Remembered]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(remembered.len() * REMEMBERED_BYTES);
    for Remembered { epoch, moment } in remembered {
        bytes.extend([epoch.0, moment.start, moment.rows].into_iter().flat_map(u64::to_be_bytes));
        bytes.extend(moment.seal);
    }
    bytes
}

/// Reads what [`to_bytes`] gave; `None` if nothing can have given it.
pub fn from_bytes(bytes: &[u8]) -> Option<Vec<Remembered>> {
    let (each, rest) = bytes.as_chunks::<REMEMBERED_BYTES>();
    let read = |bytes: &[u8; REMEMBERED_BYTES]| {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let moment = Moment { start: number(8)?, rows: number(16)?, seal: *bytes.last_chunk()? };
        Some(Remembered { epoch: Epoch(number(0)?), moment })
    };
    each.iter().map(read).collect::<Option<Vec<_>>>().filter(|_| rest.is_empty())
}

/// The moments of one epoch among those that are remembered of a peer.
pub fn known_of(remembered: &[Remembered], epoch: Epoch) -> Vec<Moment> {
    remembered.iter().filter(|of| of.epoch == epoch).map(|of| of.moment).collect()
}

/// Remembers what pages of a peer's epoch have told, in the same step as the pages; whether they may be taken. They may not if
/// another session of the same epoch has brought something since this one knew: then two copies of the peer are there, or an earlier session
/// of it was not over yet.
#[must_use]
pub fn remember(remembered: &mut Vec<Remembered>, epoch: Epoch, told: &Told) -> bool {
    let moment = match told {
        Told::Nothing => return true,
        Told::InSession { known, now } => {
            if known_of(remembered, epoch) != *known {
                return false;
            }
            remembered.retain(|of| of.epoch != epoch);
            *now
        }
        Told::Carried(now) => {
            let of_same_start = |of: &Remembered| of.epoch == epoch && of.moment.start == now.start;
            if remembered.iter().any(|of| of_same_start(of) && of.moment.rows >= now.rows) {
                return true;
            }
            // Which of two starts came first is not known here: both are kept.
            remembered.retain(|of| !of_same_start(of));
            *now
        }
    };
    if remembered.len() == REMEMBERED_MAX {
        remembered.remove(0);
    }
    remembered.push(Remembered { epoch, moment });
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A store as far as its lineage goes, with what truly happened to it.
    #[derive(Clone)]
    struct Card {
        lineage: Lineage,
        /// In which start each of its rows was truly numbered, and by which of all cards.
        rows: Vec<(u64, u64)>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { rows: u8 },
        Open,
        Copy,
        PutBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..5).prop_map(|rows| Step::Write { rows }),
            Just(Step::Open),
            Just(Step::Copy),
            Just(Step::PutBack),
        ]
    }

    proptest! {
        /// Whatever was copied, put back and written on in between: a moment that was given out is part of the past exactly where
        /// all rows are that were there when it was.
        #[test]
        fn a_moment_is_past_exactly_where_its_rows_are(steps in prop::collection::vec((0usize..3, step()), 0..60)) {
            let first = Card { lineage: Lineage::new(Epoch(1), [7; 32], 0), rows: Vec::new() };
            let (mut cards, mut copies, mut given) = (vec![first.clone()], vec![first], Vec::new());
            let (mut starts, mut serial) = (1, 0);
            for (at, step) in steps {
                let at = at % cards.len();
                let mut open = |card: &mut Card| {
                    card.lineage.begin(starts, card.rows.len() as u64);
                    starts += 1;
                };
                match step {
                    Step::Write { rows } => for _ in 0..rows {
                        serial += 1;
                        cards[at].rows.push((at as u64, serial));
                    },
                    Step::Open => open(&mut cards[at]),
                    Step::Copy => {
                        copies.push(cards[at].clone());
                        if cards.len() < 3 {
                            let mut twin = cards[at].clone();
                            open(&mut twin);
                            cards.push(twin);
                        }
                    }
                    Step::PutBack => {
                        cards[at] = copies[serial as usize % copies.len()].clone();
                        open(&mut cards[at]);
                    }
                }
                let card = &cards[at];
                let moment = card.lineage.moment(card.rows.len() as u64);
                prop_assert_eq!(moment.is_none(), card.rows.is_empty());
                given.extend(moment.map(|moment| (moment, card.rows.clone())));
                for card in &cards {
                    for (moment, rows) in &given {
                        let is_past = card.lineage.judge(*moment, card.rows.len() as u64) == Verdict::Past;
                        prop_assert_eq!(is_past, card.rows.starts_with(rows));
                    }
                    let (epoch, secret, starts) = card.lineage.parts();
                    prop_assert_eq!(Lineage::restored(epoch, secret, starts.to_vec()), Some(card.lineage.clone()));
                }
            }
        }
    }

    #[test]
    fn a_moment_that_was_made_up_proves_nothing() {
        let lineage = Lineage::new(Epoch(1), [7; 32], 5);
        let moment = lineage.moment(9).unwrap();
        assert_eq!(lineage.judge(moment, 9), Verdict::Past);
        assert_eq!(lineage.judge(Moment { rows: 100, ..moment }, 9), Verdict::Unproven);
        let other = Lineage::new(Epoch(1), [8; 32], 5);
        assert_eq!(other.judge(moment, 9), Verdict::Unproven);
    }

    #[test]
    fn what_is_kept_of_starts_and_moments_is_bounded() {
        let mut lineage = Lineage::new(Epoch(1), [7; 32], 0);
        let mut remembered = Vec::new();
        for number in 1..2 * STARTS_MAX as u64 {
            lineage.begin(number, number);
            let moment = lineage.moment(number + 1).unwrap();
            assert!(remember(&mut remembered, Epoch(number), &Told::Carried(moment)));
        }
        assert_eq!((lineage.parts().2.len(), remembered.len()), (STARTS_MAX, REMEMBERED_MAX));
        assert_eq!(from_bytes(&to_bytes(&remembered)), Some(remembered));
    }

    #[test]
    fn pages_are_not_taken_over_those_of_another_copy() {
        let lineage = Lineage::new(Epoch(1), [7; 32], 0);
        let moment = |rows| lineage.moment(rows).unwrap();
        let mut remembered = Vec::new();
        let first = Told::InSession { known: vec![], now: moment(1) };
        assert!(remember(&mut remembered, Epoch(1), &first));
        assert!(!remember(&mut remembered, Epoch(1), &first), "somebody else was here since");
        assert!(remember(&mut remembered, Epoch(2), &first), "another epoch is another matter");
        let next = Told::InSession { known: vec![moment(1)], now: moment(2) };
        assert!(remember(&mut remembered, Epoch(1), &next));
        assert_eq!(known_of(&remembered, Epoch(1)), [moment(2)]);
        assert!(remember(&mut remembered, Epoch(1), &Told::Carried(moment(1))));
        assert_eq!(known_of(&remembered, Epoch(1)), [moment(2)], "an older bundle says nothing new");
    }
}
