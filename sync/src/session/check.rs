//! Asks the peer whether it holds certain blobs whole, so that the copies here may be given up.
//!
//! The question is the ask for a manifest: who answers with one holds the blob, and may give it. So every peer of this
//! protocol can be asked.

use std::collections::{BTreeSet, VecDeque};

use super::{Event, Outbox, Violation};
use crate::chunk::{BlobHash, Manifest};
use crate::wire::Message;

/// Blobs that wait to be asked about, at most; those past it are left to the host to bring up again.
pub const CHECKS_WAITING_MAX: usize = 1024;
/// Questions that were not answered, at most: a small part of what a peer lets wait.
const ASKED_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: VecDeque<BlobHash>,
    asked: BTreeSet<BlobHash>,
}

impl Checks {
    pub(super) fn add(&mut self, blobs: Vec<BlobHash>) {
        for blob in blobs {
            let known = self.asked.contains(&blob) || self.waiting.contains(&blob);
            if !known && self.waiting.len() < CHECKS_WAITING_MAX {
                self.waiting.push_back(blob);
            }
        }
    }

    /// Whether an answer about the blob is to come.
    pub(super) fn awaits(&self, blob: BlobHash) -> bool {
        self.asked.contains(&blob)
    }

    pub(super) fn take_manifest(
        &mut self,
        blob: BlobHash,
        manifest: Option<&[u8]>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.asked.remove(&blob);
        if let Some(bytes) = manifest {
            let manifest =
                Manifest::from_bytes(bytes).map_err(|error| Violation::new(format!("manifest of {blob}: {error}")))?;
            if manifest.blob() != blob {
                return Err(Violation::new(format!("a manifest of {} for {blob}", manifest.blob())));
            }
        }
        out.event(Event::BlobChecked { blob, held_by_peer: manifest.is_some() });
        Ok(())
    }

    pub(super) fn pump(&mut self, out: &mut Outbox) {
        while self.asked.len() < ASKED_MAX
            && let Some(blob) = self.waiting.pop_front()
        {
            self.asked.insert(blob);
            out.control(Message::ManifestAsk { blob });
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }
}
