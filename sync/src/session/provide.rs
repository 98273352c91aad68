//! Answers what the peer asks of content: manifests first, then chunks that a reader waits for, then the rest.
//!
//! A chunk is read only when a lane is free for it, so at most [`CONTENT_LANES`] of them are in memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{DiskRequest, Held, Outbox, Violation};
use crate::chunk::{BlobHash, Manifest};
use crate::wire::message::CONTENT_LANES;
use crate::wire::{Lane, Message};

/// Asks that may wait, at most.
pub const ASKS_MAX: usize = 4096;
/// Manifests kept at hand for the chunks that will be asked for next.
const MANIFESTS_KEPT: usize = 64;
/// Blobs asked for in vain that are remembered, to tell the peer once they are here.
const MISSED_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Provider {
    lanes_free: BTreeSet<u8>,
    manifest_asks: VecDeque<BlobHash>,
    manifests_being_read: usize,
    manifest_answers: VecDeque<Message>,
    urgent: VecDeque<ChunkAsk>,
    background: VecDeque<ChunkAsk>,
    manifests: VecDeque<Arc<Manifest>>,
    missed: BTreeSet<BlobHash>,
    bytes_sent: u64,
}

#[derive(Clone, Copy, Debug)]
struct ChunkAsk {
    blob: BlobHash,
    index: u32,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            lanes_free: (0..CONTENT_LANES).collect(),
            manifest_asks: VecDeque::new(),
            manifests_being_read: 0,
            manifest_answers: VecDeque::new(),
            urgent: VecDeque::new(),
            background: VecDeque::new(),
            manifests: VecDeque::new(),
            missed: BTreeSet::new(),
            bytes_sent: 0,
        }
    }
}

impl Provider {
    pub(super) fn take_manifest_ask(&mut self, blob: BlobHash) -> Result<(), Violation> {
        self.check_room()?;
        self.manifest_asks.push_back(blob);
        Ok(())
    }

    pub(super) fn take_chunk_ask(&mut self, blob: BlobHash, index: u32, urgent: bool) -> Result<(), Violation> {
        self.check_room()?;
        let queue = if urgent { &mut self.urgent } else { &mut self.background };
        queue.push_back(ChunkAsk { blob, index });
        Ok(())
    }

    fn check_room(&self) -> Result<(), Violation> {
        let waiting = self.manifest_asks.len()
            + self.manifests_being_read
            + self.manifest_answers.len()
            + self.urgent.len()
            + self.background.len();
        if waiting >= ASKS_MAX {
            return Err(Violation::new(format!("more than {ASKS_MAX} asks at once")));
        }
        Ok(())
    }

    pub(super) fn take_manifest(&mut self, blob: BlobHash, manifest: Option<Arc<Manifest>>) {
        self.manifests_being_read -= 1;
        if let Some(manifest) = &manifest {
            self.missed.remove(&blob);
            if self.manifests.len() == MANIFESTS_KEPT {
                self.manifests.pop_front();
            }
            self.manifests.push_back(Arc::clone(manifest));
        } else if self.missed.len() < MISSED_MAX {
            self.missed.insert(blob);
        }
        let manifest = manifest.map(|manifest| manifest.to_bytes());
        self.manifest_answers.push_back(Message::Manifest { blob, manifest });
    }

    pub(super) fn take_read(&mut self, blob: BlobHash, index: u32, lane: u8, bytes: Option<Bytes>, out: &mut Outbox) {
        let bytes = bytes.unwrap_or_default();
        self.bytes_sent += bytes.len() as u64;
        out.send(Lane::Content(lane), Message::Chunk { blob, index, bytes });
    }

    pub(super) fn lane_drained(&mut self, lane: u8) {
        self.lanes_free.insert(lane);
    }

    pub(super) fn pump(&mut self, out: &mut Outbox) {
        // Bounded by the lanes: what was read must be able to leave.
        while self.manifests_being_read + self.manifest_answers.len() < usize::from(CONTENT_LANES)
            && let Some(blob) = self.manifest_asks.pop_front()
        {
            self.manifests_being_read += 1;
            out.disk(DiskRequest::Manifest(blob));
        }
        while let Some(&lane) = self.lanes_free.first() {
            if let Some(answer) = self.manifest_answers.pop_front() {
                out.send(Lane::Content(lane), answer);
            } else if let Some(ask) = self.urgent.pop_front().or_else(|| self.background.pop_front()) {
                let known = self.manifests.iter().find(|manifest| manifest.blob() == ask.blob);
                match known {
                    Some(manifest) if manifest.chunk(ask.index).is_some() => {
                        out.disk(DiskRequest::Read { manifest: Arc::clone(manifest), index: ask.index, lane });
                    }
                    // Never handed out, forgotten since, or past the end: the peer starts over from the manifest.
                    _ => {
                        let ChunkAsk { blob, index } = ask;
                        out.send(Lane::Content(lane), Message::Chunk { blob, index, bytes: Bytes::new() });
                    }
                }
            } else {
                return;
            }
            self.lanes_free.remove(&lane);
        }
    }

    /// Whether the peer asked for the blob in vain. Answers once.
    pub(super) fn was_missed(&mut self, blob: BlobHash) -> bool {
        self.missed.remove(&blob)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes_free.len() == usize::from(CONTENT_LANES)
            && self.manifest_asks.is_empty()
            && self.manifests_being_read == 0
            && self.manifest_answers.is_empty()
            && self.urgent.is_empty()
            && self.background.is_empty()
    }

    pub(super) fn held(&self) -> Held {
        let answers = self.manifest_answers.iter().map(|answer| match answer {
            Message::Manifest { manifest: Some(manifest), .. } => manifest.len(),
            _ => 0,
        });
        let manifests = self.manifests.iter().map(|manifest| size_of_val(manifest.chunks()));
        let names = self.manifest_asks.len() + self.missed.len();
        let list_bytes = answers.chain(manifests).sum::<usize>()
            + names * size_of::<BlobHash>()
            + (self.urgent.len() + self.background.len()) * size_of::<ChunkAsk>();
        Held { list_bytes, ..Held::default() }
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }
}
