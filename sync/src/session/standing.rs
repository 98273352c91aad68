//! What the two ends may give each other after an absence, by what their hellos tell (`absence`).
//!
//! - Who is not in step as of what the peer has collected gives nothing: it notes that, and ends the session. Once it reads all
//!   anew it asks for everything, and answers pulls with nothing.
//! - Pages of records from such a peer are a violation; one that does not know of any of this is refused.
//! - Once everything is read that the peer held at its hello, the store is told.

use super::Violation;
use crate::absence::{Standing, may_give};

/// How this end and its peer stand.
#[derive(Debug, Default)]
pub(super) struct Standings {
    mine: Standing,
    theirs: Standing,
    /// Everything is read anew here: nothing is given.
    pub(super) reads_anew: bool,
    /// The store has noted how the peer stands: reading may begin.
    pub(super) met: bool,
    /// This end must not give what it has, and has to read all anew first.
    pub(super) lapsed: bool,
    /// The store was told that all was read.
    pub(super) told: bool,
    bars_records: bool,
}

impl Standings {
    pub(super) fn new(mine: Option<Standing>) -> Self {
        Self { mine: mine.unwrap_or_default(), ..Self::default() }
    }

    /// Takes what the peer tells, or else what is known of it. The error is for people: it cannot be let in.
    pub(super) fn take(&mut self, told: Option<Standing>, known: Standing) -> Result<(), &'static str> {
        self.theirs = told.unwrap_or(known);
        self.lapsed = !self.reads_anew && !may_give(self.mine, self.theirs);
        self.bars_records = !may_give(self.theirs, self.mine);
        if self.bars_records && told.is_none() {
            return Err("it was away for longer than its lease, and its version cannot read all anew: update it");
        }
        Ok(())
    }

    pub(super) fn theirs(&self) -> Standing {
        self.theirs
    }

    pub(super) fn check_page(&self, records: usize) -> Result<(), Violation> {
        if self.bars_records && records > 0 {
            return Err(Violation::new("records from one whose lease has run out, before it has read all anew"));
        }
        Ok(())
    }
}
