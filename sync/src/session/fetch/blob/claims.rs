//! What of a blob is this session's to bring, as far as the store has told.
//!
//! A lot is claimed whenever nothing is in hand and more may be had, one chunk at first, and while others receive the blob, too, no more than
//! the link brings in a second: they would wait for it in the end. When nothing is left that others do not bring, the session makes
//! its own share durable, looks once more, and then now and then: who brings the rest may leave. Whoever finds that all was written
//! finishes the blob.

use std::sync::Arc;

use super::{Fetching, Receiving, Stage};
use crate::chunk::{Claim, Lot, Manifest};

/// What may be claimed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rest {
    /// More, as far as is known.
    Open,
    /// A claim of about so many bytes is under way.
    Claiming(u64),
    /// All is this session's.
    Own,
    /// Others bring it. To be looked at again at that time.
    Elsewhere { again_at_ms: u64 },
    /// Nothing: every chunk was written.
    Written,
}

impl Rest {
    pub(super) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Elsewhere { .. } | Self::Written)
    }
}

/// What there is to ask for next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::session::fetch) enum Supply {
    /// This chunk, of this length in bytes.
    Chunk(u32, u64),
    /// One of about this length, which is to be claimed first.
    Unclaimed(u64),
    /// The same, and a claim is under way.
    Claiming(u64),
    /// Nothing.
    Nothing,
}

impl Receiving {
    /// What to ask for next; never a chunk that `is_unanswered`.
    pub(in crate::session::fetch) fn supply(&mut self, is_unanswered: impl Fn(u32) -> bool) -> Supply {
        let Stage::Fetching(fetching) = &mut self.stage else { return Supply::Nothing };
        let in_hand = fetching.in_hand.iter().copied().find(|&index| !is_unanswered(index));
        if let Some(index) = in_hand {
            return Supply::Chunk(index, fetching.len(index));
        }
        if !fetching.in_hand.is_empty() || fetching.rest.is_elsewhere() {
            return Supply::Nothing;
        }
        let Some(next) = fetching.next_unknown() else { return Supply::Nothing };
        let len = fetching.len(next);
        match fetching.rest {
            Rest::Own if is_unanswered(next) => Supply::Nothing,
            Rest::Own => Supply::Chunk(next, len),
            Rest::Claiming(_) => Supply::Claiming(len),
            _ => Supply::Unclaimed(len),
        }
    }

    /// Bytes that were claimed, or are being claimed, and not asked for.
    pub(in crate::session::fetch) fn bytes_in_hand(&self) -> u64 {
        let Stage::Fetching(fetching) = &self.stage else { return 0 };
        let claiming = if let Rest::Claiming(bytes) = fetching.rest { bytes } else { 0 };
        claiming + fetching.in_hand.iter().map(|&index| fetching.len(index)).sum::<u64>()
    }

    /// Whether others receive it, too; `None` before anything was claimed.
    pub(in crate::session::fetch) fn is_shared(&self) -> Option<bool> {
        let Stage::Fetching(fetching) = &self.stage else { return None };
        fetching.is_shared
    }

    /// What to claim to have about so many bytes in hand.
    pub(in crate::session::fetch) fn start_claim(&mut self, bytes_max: u64) -> Option<(Arc<Manifest>, Claim)> {
        let Stage::Fetching(fetching) = &mut self.stage else { return None };
        let bytes_max = bytes_max.min(fetching.manifest.size_bytes());
        fetching.rest = Rest::Claiming(bytes_max);
        Some((Arc::clone(&fetching.manifest), Claim { from: fetching.next, bytes_max, returned: Vec::new() }))
    }

    /// Gives back what is in hand and cannot be asked for now, if others could bring it.
    pub(in crate::session::fetch) fn start_return(&mut self) -> Option<(Arc<Manifest>, Claim)> {
        let Stage::Fetching(fetching) = &mut self.stage else { return None };
        if fetching.in_hand.is_empty() || matches!(fetching.rest, Rest::Own | Rest::Claiming(_)) {
            return None;
        }
        let returned: Vec<u32> = fetching.in_hand.drain(..).collect();
        for &index in &returned {
            fetching.known.remove(index);
        }
        fetching.rest = Rest::Claiming(0);
        let from = returned.first().copied().unwrap_or(fetching.next);
        fetching.next = from;
        Some((Arc::clone(&fetching.manifest), Claim { from, bytes_max: 0, returned }))
    }

    /// The store has answered a claim. `false` if it has lost something that this session had written.
    pub(in crate::session::fetch) fn claimed(&mut self, lot: &Lot, again_at_ms: u64) -> bool {
        let Stage::Fetching(fetching) = &mut self.stage else { return true };
        match lot {
            Lot::Everything => fetching.rest = Rest::Own,
            Lot::Elsewhere => fetching.rest = Rest::Elsewhere { again_at_ms },
            Lot::Complete => fetching.rest = Rest::Written,
            Lot::Chunks(chunks) | Lot::Shared(chunks) => {
                fetching.rest = Rest::Open;
                fetching.is_shared = Some(matches!(lot, Lot::Shared(_)));
                if let Some(last) = chunks.last() {
                    fetching.next = (last + 1) % fetching.known.chunks().max(1);
                }
                for &index in chunks {
                    if !fetching.known.insert(index) {
                        return false;
                    }
                    fetching.in_hand.push_back(index);
                }
            }
        }
        true
    }

    /// What others bring may be free again.
    pub(in crate::session::fetch) fn look_again(&mut self) {
        if let Stage::Fetching(fetching) = &mut self.stage
            && matches!(fetching.rest, Rest::Elsewhere { .. })
        {
            fetching.rest = Rest::Open;
        }
    }

    /// When it is to be looked at again, if it waits for others.
    pub(in crate::session::fetch) fn looks_again_at_ms(&self) -> Option<u64> {
        let Stage::Fetching(fetching) = &self.stage else { return None };
        if let Rest::Elsewhere { again_at_ms } = fetching.rest { Some(again_at_ms) } else { None }
    }

    /// Whether it waits for others, and has nothing to do itself.
    pub(in crate::session::fetch) fn waits_for_others(&self) -> bool {
        match &self.stage {
            Stage::Fetching(fetching) => {
                matches!(fetching.rest, Rest::Elsewhere { .. }) && fetching.has_nothing_to_sync()
            }
            _ => false,
        }
    }

    /// What is known about its chunks, but for the bases, in bytes of memory.
    pub(in crate::session::fetch) fn claims_bytes(&self) -> usize {
        let Stage::Fetching(fetching) = &self.stage else { return 0 };
        size_of::<Fetching>() + fetching.in_hand.len() * size_of::<u32>()
    }
}

impl Fetching {
    /// The next chunk that was neither had at the start nor claimed.
    pub(super) fn next_unknown(&mut self) -> Option<u32> {
        if self.known.is_complete() {
            return None;
        }
        while self.known.contains(self.next) {
            self.next = (self.next + 1) % self.known.chunks();
        }
        Some(self.next)
    }

    fn len(&self, index: u32) -> u64 {
        self.manifest.chunk(index).map_or(0, |chunk| u64::from(chunk.len))
    }

    /// Whether nothing of what was claimed is still to be written.
    pub(super) fn is_drained(&self) -> bool {
        self.in_hand.is_empty() && self.on_the_way.is_empty() && self.writing.is_empty()
    }

    /// Whether nothing more is to be claimed, as far as is known.
    pub(super) fn has_no_more(&self) -> bool {
        self.known.is_complete() || self.rest.is_elsewhere()
    }

    /// Whether all that this session has brought is durable.
    pub(super) fn has_nothing_to_sync(&self) -> bool {
        self.is_drained() && self.written.is_empty() && self.syncing.is_none()
    }

    /// What this session had to bring may be durable now. Then it looks whether the others are done as well.
    pub(super) fn note_share_durable(&mut self) {
        if self.has_nothing_to_sync() && matches!(self.rest, Rest::Elsewhere { .. }) {
            self.rest = Rest::Open;
        }
    }
}
