//! Answers "which blob already holds this chunk, and where", so that only what is new crosses the link.
//!
//! In memory and bounded: the oldest entries are forgotten first, which costs bytes on the wire, never correctness.
//! Whoever copies from a place verifies the bytes again.

use std::collections::{HashMap, VecDeque};

use super::{BlobHash, ChunkHash, Manifest};

/// Where a chunk can be copied from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkPlace {
    /// The blob that holds it.
    pub blob: BlobHash,
    /// The chunk's number in that blob.
    pub index: u32,
}

/// The chunks of content-defined blobs held here.
#[derive(Debug)]
pub struct ChunkIndex {
    places: HashMap<ChunkHash, ChunkPlace>,
    order: VecDeque<ChunkHash>,
    entries_max: usize,
}

impl ChunkIndex {
    /// An empty index of at most `entries_max` chunks (about 120 bytes each).
    pub fn new(entries_max: usize) -> Self {
        Self { places: HashMap::new(), order: VecDeque::new(), entries_max }
    }

    /// Notes the chunks of a blob that is complete here.
    pub fn add(&mut self, manifest: &Manifest) {
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let place = ChunkPlace { blob: manifest.blob(), index };
            if self.places.insert(chunk.hash, place).is_none() {
                self.order.push_back(chunk.hash);
            }
            if self.order.len() > self.entries_max
                && let Some(oldest) = self.order.pop_front()
            {
                self.places.remove(&oldest);
            }
        }
    }

    /// Where `chunk` lies, if it is known.
    pub fn find(&self, chunk: ChunkHash) -> Option<ChunkPlace> {
        self.places.get(&chunk).copied()
    }
}
