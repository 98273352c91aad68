//! Asks the peer whether it holds certain blobs whole, so that the copies here may be given up.
//!
//! The question is the ask for a manifest: who answers with one holds the blob, and may give it. So every peer of this
//! protocol can be asked. The answers are counted like content: a link that content may not use carries no questions.

use std::collections::{BTreeSet, VecDeque};

use super::credit::Credit;
use super::{Event, Held, Outbox, Violation};
use crate::budget::wire_cost;
use crate::chunk::{BlobHash, Manifest};
use crate::wire::Message;

/// Blobs that wait to be asked about, at most; those past it are left to the host to bring up again.
pub const CHECKS_WAITING_MAX: usize = 1024;
/// Questions that were not answered, at most: a small part of what a peer lets wait.
const ASKED_MAX: usize = 64;
/// What the manifest in an answer is taken to have, in bytes: that of a blob of 400 MB.
const MANIFEST_BYTES_USUAL: u64 = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: VecDeque<BlobHash>,
    asked: BTreeSet<BlobHash>,
    /// The next question has to wait for credit.
    held_back: bool,
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
        credit: &mut Credit,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.asked.remove(&blob);
        credit.cross(wire_cost(MANIFEST_BYTES_USUAL));
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

    pub(super) fn pump(&mut self, credit: &mut Credit, out: &mut Outbox) {
        self.held_back = false;
        while self.asked.len() < ASKED_MAX
            && let Some(&blob) = self.waiting.front()
        {
            if !credit.admit(wire_cost(MANIFEST_BYTES_USUAL)) {
                self.held_back = true;
                return;
            }
            self.waiting.pop_front();
            self.asked.insert(blob);
            out.control(Message::ManifestAsk { blob });
        }
    }

    pub(super) fn held(&self) -> Held {
        let list_bytes = (self.waiting.len() + self.asked.len()) * size_of::<BlobHash>();
        Held { list_bytes, ..Held::default() }
    }

    /// Whether no answer is to come: nobody waits for questions that have to wait themselves.
    pub(super) fn is_idle(&self) -> bool {
        (self.held_back || self.waiting.is_empty()) && self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Word;

    #[test]
    fn questions_are_asked_as_far_as_content_may_use_the_link_and_nobody_waits_for_the_others() {
        let (mut checks, mut credit, mut out) = (Checks::default(), Credit::default(), Outbox::default());
        let two = Word { content_bytes: 2 * wire_cost(MANIFEST_BYTES_USUAL), records_bytes: 0 };
        credit.set(two);
        let blobs: Vec<BlobHash> = (0..3u8).map(|number| BlobHash::of(&[number])).collect();
        checks.add(blobs.clone());
        checks.pump(&mut credit, &mut out);
        assert_eq!(blobs.iter().map(|&blob| checks.awaits(blob)).collect::<Vec<_>>(), [true, true, false]);
        assert!(!checks.is_idle(), "two answers are to come");
        for &blob in &blobs[..2] {
            checks.take_manifest(blob, None, &mut credit, &mut out).unwrap();
        }
        assert!(checks.is_idle(), "the third question may wait until tomorrow");
        credit.set(two);
        credit.set(two);
        checks.pump(&mut credit, &mut out);
        assert!(checks.awaits(blobs[2]) && !checks.is_idle());
    }
}
