//! One blob in the making: which of its bytes are here, which are durable, and what to make durable next.
//!
//! Pure bookkeeping: no S3, no database. Bytes come as verified chunks in any order and are kept as pieces, cut at the
//! ends of parts. A piece is in memory, staged (durable in an object of its own), or both; a part that is full goes to
//! S3 as one and its pieces are forgotten.

use std::collections::BTreeMap;

use alexandria_sync::chunk::{Have, Manifest};
use bytes::Bytes;

use super::parts::Parts;

/// A blob in the making.
pub(super) struct Assembly {
    parts: Parts,
    /// For each part whether it is durable in S3.
    uploaded: Vec<bool>,
    /// What is here of the parts that are not, by where it starts in the blob. Pieces never overlap.
    pieces: BTreeMap<u64, Piece>,
    pending_bytes: usize,
}

/// A stretch of the blob inside one part.
#[derive(Clone, Debug)]
struct Piece {
    end: u64,
    bytes: Option<Bytes>,
    staged: Option<Staged>,
}

/// Where a stretch is durable: in the object that holds the blob's bytes from `object_start` on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Staged {
    /// The object.
    pub(super) key: String,
    /// The first byte of the blob in it.
    pub(super) object_start: u64,
}

/// A full part, to be uploaded.
#[derive(Debug)]
pub(super) struct FullPart {
    /// Which.
    pub(super) part: u32,
    /// What it is made of, in order.
    pub(super) sources: Vec<Source>,
}

/// Where the bytes of a stretch are to be had.
#[derive(Debug)]
pub(super) enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a staging object: so many bytes from this place in the object.
    Staged {
        /// The object.
        key: String,
        /// The first byte, counted in the object.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// Bytes of a part that is not full, to be staged as one object.
#[derive(Debug)]
pub(super) struct Run {
    /// The first byte, counted in the blob.
    pub(super) start: u64,
    /// The byte after the last.
    pub(super) end: u64,
    /// The bytes.
    pub(super) bytes: Vec<Bytes>,
}

impl Assembly {
    /// A blob of which nothing is here.
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, uploaded: vec![false; parts.count() as usize], pieces: BTreeMap::new(), pending_bytes: 0 }
    }

    /// How it is cut.
    pub(super) fn parts(&self) -> Parts {
        self.parts
    }

    /// Bytes held in memory.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether all parts are durable.
    pub(super) fn is_uploaded(&self) -> bool {
        self.uploaded.iter().all(|uploaded| *uploaded)
    }

    /// Notes a part that is durable in S3; its pieces are forgotten. Returns the staging objects that held some of it.
    pub(super) fn part_uploaded(&mut self, part: u32) -> Vec<String> {
        self.uploaded[part as usize] = true;
        let (start, end) = self.parts.range(part);
        let gone: Vec<u64> = self.pieces.range(start..end).map(|(start, _)| *start).collect();
        let mut keys = Vec::new();
        for start in gone {
            if let Some(piece) = self.pieces.remove(&start) {
                self.pending_bytes -= piece.bytes.map_or(0, |bytes| bytes.len());
                keys.extend(piece.staged.map(|staged| staged.key));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Notes a stretch that an earlier life staged. It lies inside one part and overlaps nothing.
    pub(super) fn found_staged(&mut self, start: u64, end: u64, key: String) {
        let staged = Some(Staged { key, object_start: start });
        self.pieces.insert(start, Piece { end, bytes: None, staged });
    }

    /// Takes the verified bytes from `start` on. What is here already is passed over.
    pub(super) fn put(&mut self, start: u64, mut bytes: Bytes) {
        let mut at = start;
        while !bytes.is_empty() {
            let part = self.parts.index_of(at);
            let (_, part_end) = self.parts.range(part);
            let here = bytes.split_to(bytes.len().min((part_end - at) as usize));
            let end = at + here.len() as u64;
            if !self.uploaded[part as usize] && !self.overlaps(at, end) {
                self.pending_bytes += here.len();
                self.pieces.insert(at, Piece { end, bytes: Some(here), staged: None });
            }
            at = end;
        }
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.pieces.range(..end).next_back().is_some_and(|(_, piece)| piece.end > start)
    }

    /// The parts that are full and not uploaded, at most `limit`.
    pub(super) fn full_parts(&self, limit: usize) -> Vec<FullPart> {
        let mut full = Vec::new();
        let mut part_of_last = None;
        for start in self.pieces.keys() {
            let part = self.parts.index_of(*start);
            if part_of_last.replace(part) == Some(part) || full.len() == limit {
                continue;
            }
            full.extend(self.sources(part).map(|sources| FullPart { part, sources }));
        }
        // An empty blob has no pieces and one part.
        if self.parts.range(0) == (0, 0) && !self.uploaded[0] {
            full.push(FullPart { part: 0, sources: Vec::new() });
        }
        full
    }

    fn sources(&self, part: u32) -> Option<Vec<Source>> {
        let (mut at, end) = self.parts.range(part);
        let mut sources = Vec::new();
        for (start, piece) in self.pieces.range(at..end) {
            if *start != at {
                return None;
            }
            at = piece.end;
            sources.push(match (&piece.bytes, &piece.staged) {
                (Some(bytes), _) => Source::Memory(bytes.clone()),
                (None, Some(staged)) => Source::Staged {
                    key: staged.key.clone(),
                    offset: start - staged.object_start,
                    len: piece.end - start,
                },
                (None, None) => return None,
            });
        }
        (at == end).then_some(sources)
    }

    /// The longest runs of bytes that are only in memory, in parts that are not full.
    pub(super) fn unstaged_runs(&self) -> Vec<Run> {
        let full: Vec<u32> = self.full_parts(usize::MAX).into_iter().map(|full| full.part).collect();
        let mut runs: Vec<Run> = Vec::new();
        for (start, piece) in &self.pieces {
            let part = self.parts.index_of(*start);
            let (Some(bytes), None) = (&piece.bytes, &piece.staged) else { continue };
            if full.contains(&part) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == *start && self.parts.index_of(run.start) == part => {
                    run.end = piece.end;
                    run.bytes.push(bytes.clone());
                }
                _ => runs.push(Run { start: *start, end: piece.end, bytes: vec![bytes.clone()] }),
            }
        }
        runs
    }

    /// Notes that a run is durable in `key`.
    pub(super) fn run_staged(&mut self, start: u64, end: u64, key: &str) {
        for (_, piece) in self.pieces.range_mut(start..end) {
            piece.staged = Some(Staged { key: key.to_owned(), object_start: start });
        }
    }

    /// Frees the memory of what is staged; it is read back when its part is full.
    pub(super) fn forget_staged_bytes(&mut self) {
        for piece in self.pieces.values_mut() {
            if piece.staged.is_some()
                && let Some(bytes) = piece.bytes.take()
            {
                self.pending_bytes -= bytes.len();
            }
        }
    }

    /// Which chunks are durable.
    pub(super) fn durable(&self, manifest: &Manifest) -> Have {
        let mut have = Have::none(manifest.chunks().len() as u32);
        let mut start = 0;
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let end = start + u64::from(chunk.len);
            if self.is_durable(start, end) {
                have.insert(index);
            }
            start = end;
        }
        have
    }

    fn is_durable(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        while at < end {
            let part = self.parts.index_of(at);
            if self.uploaded[part as usize] {
                at = self.parts.range(part).1;
                continue;
            }
            match self.pieces.range(..=at).next_back() {
                Some((_, piece)) if piece.end > at && piece.staged.is_some() => at = piece.end,
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use alexandria_sync::chunk::{BlobHash, Chunk, ChunkHash, Chunking};
    use proptest::prelude::*;

    use super::super::parts::PART_BYTES;
    use super::*;

    fn manifest(lens: &[u32]) -> Manifest {
        let chunks = lens.iter().map(|len| Chunk { len: *len, hash: ChunkHash::of(&[]) }).collect();
        Manifest::new(BlobHash::of(&[]), Chunking::ContentDefined, chunks).unwrap()
    }

    #[test]
    fn a_chunk_across_two_parts_is_durable_only_when_both_halves_are() {
        let manifest = manifest(&[1024 * 1024; 9].map(|len| len - 1000));
        let mut assembly = Assembly::new(Parts::of(manifest.size_bytes()));
        for index in 0..8 {
            assembly.put(manifest.offset(index).unwrap(), Bytes::from(vec![0; 1024 * 1024 - 1000]));
        }
        assert!(assembly.full_parts(9).is_empty(), "8,000 bytes of the first part are missing");
        let start = manifest.offset(8).unwrap();
        assembly.put(start, Bytes::from(vec![0; 1024 * 1024 - 1000]));
        assert_eq!(assembly.full_parts(9).iter().map(|full| full.part).collect::<Vec<_>>(), [0, 1]);
        assembly.part_uploaded(0);
        assert_eq!(assembly.durable(&manifest).missing().collect::<Vec<_>>(), [8]);
        assembly.part_uploaded(1);
        assert!(assembly.durable(&manifest).is_complete());
        assert_eq!(assembly.pending_bytes(), 0);
    }

    #[test]
    fn what_an_earlier_life_staged_is_not_asked_for_again() {
        let manifest = manifest(&[1000; 3]);
        let mut assembly = Assembly::new(Parts::of(3000));
        assembly.found_staged(0, 2000, "k".into());
        assert_eq!(assembly.durable(&manifest).missing().collect::<Vec<_>>(), [2]);
        assembly.put(1000, Bytes::from(vec![0; 1000]));
        assert_eq!(assembly.pending_bytes(), 0, "it is there already");
        assembly.put(2000, Bytes::from(vec![0; 1000]));
        let full = assembly.full_parts(1);
        assert!(matches!(&full[0].sources[..], [Source::Staged { offset: 0, len: 2000, .. }, Source::Memory(_)]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// Whatever the order, and wherever it is staged on the way, every part comes out as the bytes that went in.
        #[test]
        fn parts_hold_the_bytes_that_were_put_in(order in Just((0..40u32).collect::<Vec<_>>()).prop_shuffle(), stage_each in 1usize..8) {
            let len = 500_000u32;
            let manifest = manifest(&[len; 40]);
            let blob: Vec<u8> = (0..manifest.size_bytes()).map(|at| (at / 7) as u8).collect();
            let mut assembly = Assembly::new(Parts::of(manifest.size_bytes()));
            let mut objects = std::collections::HashMap::new();
            for (step, index) in order.into_iter().enumerate() {
                let start = manifest.offset(index).unwrap();
                assembly.put(start, Bytes::copy_from_slice(&blob[start as usize..(start as usize + len as usize)]));
                if step % stage_each == 0 {
                    for run in assembly.unstaged_runs() {
                        let key = run.start.to_string();
                        objects.insert(key.clone(), run.bytes.concat());
                        assembly.run_staged(run.start, run.end, &key);
                    }
                    assembly.forget_staged_bytes();
                }
            }
            let full = assembly.full_parts(usize::MAX);
            prop_assert_eq!(full.len() as u64, manifest.size_bytes().div_ceil(PART_BYTES));
            let mut whole = Vec::new();
            for part in full {
                for source in part.sources {
                    match source {
                        Source::Memory(bytes) => whole.extend_from_slice(&bytes),
                        Source::Staged { key, offset, len } => {
                            whole.extend_from_slice(&objects[&key][offset as usize..(offset + len) as usize]);
                        }
                    }
                }
            }
            prop_assert!(whole == blob);
        }
    }
}
