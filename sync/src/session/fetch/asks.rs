//! What to ask for next: whose turn it is, whether the window and the budget of the link admit it, and whether it was claimed.
//!
//! A lot is claimed when its blob's turn has come, as large as the window has room, and as the link brings in a second if others receive
//! the blob, too: a slow peer gets one chunk at a time. What
//! the budget does not admit is given back, for others may have a way to it that costs nothing.

use super::blob::{Receiving, Supply};
use super::{Credit, DiskRequest, Fetcher, Message, Outbox, Window};
use crate::budget::wire_cost;
use crate::session::provide::ASKS_MAX;
use crate::session::schedule;
use crate::wire::Class;

/// Chunks asked for and not answered, at most: half of what a peer lets wait, for blobs cut into very small chunks.
const CHUNK_ASKS_MAX: usize = ASKS_MAX / 2;

/// Why nothing more is asked for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    /// What is needed is not claimed yet, or there is nothing.
    NothingInHand,
    /// As much is asked for as may be.
    Enough,
    /// The budget does not admit it.
    Short,
}

impl Fetcher {
    /// Asks for chunks as far as the limits allow, and claims what to ask for next.
    pub(super) fn ask_chunks(&mut self, credit: &mut Credit, out: &mut Outbox) {
        match self.ask_claimed(credit, out) {
            Stop::Enough => {}
            Stop::NothingInHand => self.claim_ahead(credit, out),
            Stop::Short => {
                for (manifest, claim) in self.receiving.iter_mut().filter_map(Receiving::start_return) {
                    out.disk(DiskRequest::Claim(manifest, claim));
                }
            }
        }
    }

    fn ask_claimed(&mut self, credit: &mut Credit, out: &mut Outbox) -> Stop {
        let mut asks = self.abandoned.len() + self.receiving.iter().map(Receiving::asks).sum::<usize>();
        loop {
            // The first blob of each class that has a chunk to ask for.
            let mut next: [Option<(usize, Supply, u64)>; Class::CONTENT.len()] = [None; Class::CONTENT.len()];
            for (at, receiving) in self.receiving.iter_mut().enumerate() {
                let place = schedule::place(receiving.wanted.class).unwrap_or(next.len() - 1);
                if next[place].is_none() {
                    let blob = receiving.blob();
                    // An answer to the ask that was abandoned could not be told from the new one's.
                    let supply = receiving.supply(|index| self.abandoned.contains_key(&(blob, index)));
                    if Self::is_paced(&self.window, receiving.is_shared(), supply, self.now_ms) {
                        continue;
                    }
                    next[place] = match supply {
                        Supply::Chunk(_, len) | Supply::Unclaimed(len) | Supply::Claiming(len) => {
                            Some((at, supply, len))
                        }
                        Supply::Nothing => None,
                    };
                }
            }
            let lengths = next.map(|next| next.map(|(_, _, len)| len));
            let Some(class) = self.turns.next(lengths, self.now_ms) else { return Stop::NothingInHand };
            let turn = schedule::place(class).and_then(|place| next[place]);
            let Some((at, supply, len)) = turn else { return Stop::NothingInHand };
            if asks >= CHUNK_ASKS_MAX || !self.window.admits(len) {
                return Stop::Enough;
            }
            let index = match supply {
                Supply::Chunk(index, _) if credit.admit(wire_cost(len)) => index,
                Supply::Unclaimed(_) if credit.covers(wire_cost(len)) => {
                    self.claim(at, len, credit, out);
                    return Stop::NothingInHand;
                }
                Supply::Chunk(..) | Supply::Unclaimed(_) => return Stop::Short,
                Supply::Claiming(_) | Supply::Nothing => return Stop::NothingInHand,
            };
            asks += 1;
            self.turns.spend(class, len, self.now_ms);
            self.window.asked(len);
            let receiving = &mut self.receiving[at];
            receiving.ask(index, len);
            let blob = receiving.blob();
            out.control(match receiving.basis(index) {
                Some(basis) => Message::PatchAsk { blob, index, class, basis: basis.clone() },
                None => Message::ChunkAsk { blob, index, class },
            });
        }
    }

    /// Claims for the blobs after the one whose turn it is, so that small ones need not wait for each other.
    fn claim_ahead(&mut self, credit: &mut Credit, out: &mut Outbox) {
        for at in 0..self.receiving.len() {
            let supply = self.receiving[at].supply(|_| false);
            let Supply::Unclaimed(len) = supply else { continue };
            if Self::is_paced(&self.window, self.receiving[at].is_shared(), supply, self.now_ms) {
                continue;
            }
            if self.room() < len || credit.left() < wire_cost(len) {
                return;
            }
            self.claim(at, len, credit, out);
        }
    }

    /// Claims as much as there is room for: at least a chunk of so many bytes.
    fn claim(&mut self, at: usize, len: u64, credit: &Credit, out: &mut Outbox) {
        let paced = match self.receiving[at].is_shared() {
            None => len,
            Some(true) => self.window.room_of_a_second(self.now_ms),
            Some(false) => u64::MAX,
        };
        let bytes = self.room().min(credit.left()).min(paced).max(len);
        if let Some((manifest, claim)) = self.receiving[at].start_claim(bytes) {
            out.disk(DiskRequest::Claim(manifest, claim));
        }
    }

    /// Whether a blob that others receive, too, is to have no more claimed before something of what is on its way has come.
    fn is_paced(window: &Window, is_shared: Option<bool>, supply: Supply, now_ms: u64) -> bool {
        let Supply::Unclaimed(len) = supply else { return false };
        is_shared == Some(true) && !window.is_bare() && window.room_of_a_second(now_ms) < len
    }

    /// Room in the window for what is neither asked for nor claimed.
    fn room(&self) -> u64 {
        self.window.room().saturating_sub(self.receiving.iter().map(Receiving::bytes_in_hand).sum())
    }
}
