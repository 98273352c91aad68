//! Of which chunks held here a missing chunk probably is a changed form, so that only the difference need be sent.
//!
//! Chunks of a new version that are here already say where they lie in an older blob. What lies between two of them there is what
//! the missing ones between them here were. A guess that is wrong costs bytes on the wire, never correctness.
//!
//! Not here: the difference itself ([`patch`](super::patch)), where chunks lie (the stores).

use std::collections::BTreeMap;
use std::ops::Range;

use super::{BlobHash, CHUNK_BYTES_MAX, ChunkHash, ChunkPlace, Have, Manifest};

/// Chunks that one ask names as its basis, at most.
pub const BASIS_CHUNKS_MAX: usize = 4;
/// Bytes of these together, at most.
pub const BASIS_BYTES_MAX: u32 = 2 * CHUNK_BYTES_MAX;
/// Missing chunks of one blob for which a basis is looked for, at most: the rest is sent whole.
pub const BASES_MAX: usize = 4096;
/// Older blobs whose manifests are read for one new one, at most.
pub const OLDER_BLOBS_MAX: usize = 8;

/// For each missing chunk, by its number, the chunks that its difference may be told from. Those without are not in it.
pub type Bases = BTreeMap<u32, Vec<ChunkHash>>;

/// The chunks beside those that are missing, which a store looks up for [`bases`].
pub fn neighbours(manifest: &Manifest, have: &Have) -> Vec<ChunkHash> {
    let beside = |gap: Range<u32>| [gap.start.checked_sub(1), Some(gap.end)].into_iter().flatten();
    let chunks = gaps(have).flat_map(beside).filter_map(|index| manifest.chunk(index));
    let mut hashes: Vec<ChunkHash> = chunks.map(|chunk| chunk.hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Guesses the basis of each missing chunk, from the places of its neighbours and the manifests of the blobs that these lie
/// in.
pub fn bases(
    manifest: &Manifest,
    have: &Have,
    places: &BTreeMap<ChunkHash, ChunkPlace>,
    older: &BTreeMap<BlobHash, Manifest>,
) -> Bases {
    let mut bases = Bases::new();
    for gap in gaps(have) {
        let place_of = |index: Option<u32>| places.get(&manifest.chunk(index?)?.hash).copied();
        let (before, after) = (place_of(gap.start.checked_sub(1)), place_of(Some(gap.end)));
        let Some(blob) = before.or(after).map(|place| place.blob) else { continue };
        let Some(old) = older.get(&blob) else { continue };
        let whole = (gap.start..gap.end).filter_map(|index| manifest.chunk(index));
        let gap_bytes = whole.map(|chunk| u64::from(chunk.len)).sum();
        let Some(changed) = Changed::of(old, before, after, gap_bytes) else { continue };
        let starts = manifest.offset(gap.start).unwrap_or_default();
        for index in gap {
            let Some((offset, chunk)) = manifest.offset(index).zip(manifest.chunk(index)) else { continue };
            let basis = changed.around(offset - starts + u64::from(chunk.len) / 2);
            if !basis.is_empty() {
                bases.insert(index, basis);
            }
        }
    }
    bases
}

/// Runs of missing chunks: [`BASES_MAX`] chunks in all.
fn gaps(have: &Have) -> impl Iterator<Item = Range<u32>> + '_ {
    let mut missing = have.missing().take(BASES_MAX).peekable();
    std::iter::from_fn(move || {
        let start = missing.next()?;
        let mut end = start + 1;
        while missing.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(start..end)
    })
}

/// What lay in the older blob where chunks are missing now.
struct Changed<'m> {
    old: &'m Manifest,
    chunks: Range<u32>,
    /// Bytes of the new version that stand for `bytes` of the old one.
    new_bytes: u64,
    bytes: u64,
}

impl<'m> Changed<'m> {
    /// Between the two places, or as many bytes as are missing after the one or before the other.
    fn of(old: &'m Manifest, before: Option<ChunkPlace>, after: Option<ChunkPlace>, gap_bytes: u64) -> Option<Self> {
        let count = old.chunks().len() as u32;
        let reach = |index: &u32, spent: &mut u64| {
            let is_needed = *spent < gap_bytes;
            *spent += old.chunk(*index).map_or(0, |chunk| u64::from(chunk.len));
            is_needed
        };
        let mut spent = 0;
        let chunks = match (before, after) {
            (Some(before), Some(after)) if before.blob == after.blob && before.index < after.index => {
                before.index + 1..after.index
            }
            (Some(before), _) => {
                let from = before.index.checked_add(1)?;
                from..from + (from..count).take_while(|index| reach(index, &mut spent)).count() as u32
            }
            (None, Some(after)) => {
                let to = after.index.min(count);
                to - (0..to).rev().take_while(|index| reach(index, &mut spent)).count() as u32..to
            }
            (None, None) => return None,
        };
        let end = |index: u32| old.offset(index).unwrap_or(old.size_bytes());
        let bytes = end(chunks.end).checked_sub(end(chunks.start)).filter(|&bytes| bytes > 0)?;
        Some(Self { old, chunks, new_bytes: gap_bytes.max(1), bytes })
    }

    /// The chunks around what a place in the missing bytes was, as many as a basis may have, in order.
    fn around(&self, place: u64) -> Vec<ChunkHash> {
        let starts = self.old.offset(self.chunks.start).unwrap_or_default();
        let scaled = u128::from(place) * u128::from(self.bytes) / u128::from(self.new_bytes);
        let centre = self.old.chunk_at(starts + u64::try_from(scaled).unwrap_or(u64::MAX).min(self.bytes - 1));
        let (mut from, mut to) = (centre, centre + 1);
        let mut bytes = self.len(centre);
        loop {
            let wider = to - from < BASIS_CHUNKS_MAX as u32;
            let fits = |index: u32| bytes + self.len(index) <= u64::from(BASIS_BYTES_MAX);
            let behind = (wider && to < self.chunks.end && fits(to)).then_some(to);
            let before = from.checked_sub(1).filter(|&index| wider && index >= self.chunks.start && fits(index));
            // The nearer one first, so that the place stays in the middle.
            match (before, behind) {
                (Some(before), behind) if behind.is_none() || centre - from <= to - 1 - centre => {
                    from = before;
                    bytes += self.len(before);
                }
                (_, Some(behind)) => {
                    to = behind + 1;
                    bytes += self.len(behind);
                }
                _ => break,
            }
        }
        let mut basis: Vec<ChunkHash> = Vec::with_capacity(BASIS_CHUNKS_MAX);
        for chunk in (from..to).filter_map(|index| self.old.chunk(index)) {
            if !basis.contains(&chunk.hash) {
                basis.push(chunk.hash);
            }
        }
        basis
    }

    fn len(&self, index: u32) -> u64 {
        self.old.chunk(index).map_or(0, |chunk| u64::from(chunk.len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::{Chunk, Chunking};

    /// A blob of chunks with these names and lengths.
    fn blob(chunks: &[(u32, u32)]) -> Manifest {
        let chunk = |&(name, len): &(u32, u32)| Chunk { len, hash: hash(name) };
        let names: Vec<u8> = chunks.iter().flat_map(|(name, _)| name.to_be_bytes()).collect();
        let chunks = chunks.iter().map(chunk).collect();
        Manifest::new(BlobHash::of(&names), Chunking::ContentDefined, chunks).expect("it is small")
    }

    fn hash(name: u32) -> ChunkHash {
        ChunkHash::of(&name.to_be_bytes())
    }

    /// The bases of a new version where the old one is here.
    fn found(old: &Manifest, new: &Manifest) -> Bases {
        let mut places = BTreeMap::new();
        for (index, chunk) in (0u32..).zip(old.chunks()) {
            places.insert(chunk.hash, ChunkPlace { blob: old.blob(), index });
        }
        let mut have = Have::none(new.chunks().len() as u32);
        for (index, chunk) in (0u32..).zip(new.chunks()) {
            if places.contains_key(&chunk.hash) {
                have.insert(index);
            }
        }
        let asked = neighbours(new, &have);
        places.retain(|hash, _| asked.contains(hash));
        bases(new, &have, &places, &BTreeMap::from([(old.blob(), old.clone())]))
    }

    const KIB: u32 = 1024;

    #[test]
    fn a_chunk_between_two_that_are_here_is_told_from_what_lay_between_them() {
        let old = blob(&[(1, 256 * KIB), (2, 256 * KIB), (3, 256 * KIB)]);
        let new = blob(&[(1, 256 * KIB), (20, 256 * KIB + 1), (3, 256 * KIB)]);
        assert_eq!(found(&old, &new), Bases::from([(1, vec![hash(2)])]));
        let in_two = blob(&[(1, 256 * KIB), (20, 128 * KIB), (21, 129 * KIB), (3, 256 * KIB)]);
        assert_eq!(found(&old, &in_two), Bases::from([(1, vec![hash(2)]), (2, vec![hash(2)])]));
        let added = blob(&[(1, 256 * KIB), (20, 128 * KIB), (2, 256 * KIB), (3, 256 * KIB)]);
        assert_eq!(found(&old, &added), Bases::new(), "nothing lay there");
    }

    #[test]
    fn what_changed_at_an_end_is_told_from_what_lay_there() {
        let old = blob(&[(1, 256 * KIB), (2, 256 * KIB), (3, 256 * KIB)]);
        let first = blob(&[(10, 300 * KIB), (2, 256 * KIB), (3, 256 * KIB)]);
        assert_eq!(found(&old, &first), Bases::from([(0, vec![hash(1)])]));
        let last = blob(&[(1, 256 * KIB), (2, 256 * KIB), (30, 10 * KIB)]);
        assert_eq!(found(&old, &last), Bases::from([(2, vec![hash(3)])]));
        let longer = blob(&[(1, 256 * KIB), (2, 256 * KIB), (3, 256 * KIB), (4, 256 * KIB)]);
        assert_eq!(found(&old, &longer), Bases::new());
        let other = blob(&[(7, 256 * KIB), (8, 256 * KIB)]);
        assert_eq!(found(&old, &other), Bases::new(), "nothing of it is here");
    }

    #[test]
    fn of_many_changed_chunks_each_is_told_from_the_nearest() {
        let chunks = |names: Range<u32>| names.map(|name| (name, 256 * KIB)).collect::<Vec<_>>();
        let old = blob(&chunks(0..100));
        let new = blob(&[vec![(0, 256 * KIB)], chunks(1001..1099), vec![(99, 256 * KIB)]].concat());
        let found = found(&old, &new);
        assert_eq!(found.len(), 98);
        for (index, basis) in found {
            assert!(basis.len() <= BASIS_CHUNKS_MAX && basis.contains(&hash(index)), "chunk {index}: {basis:?}");
        }
    }

    proptest! {
        /// Whatever two blobs share, a basis is within its limits and of chunks that are here.
        #[test]
        fn a_basis_is_within_its_limits(
            old in vec((0u32..12, 1u32..=CHUNK_BYTES_MAX), 0..30),
            new in vec((0u32..20, 1u32..=CHUNK_BYTES_MAX), 0..30),
        ) {
            // A name stands for one content.
            let len = |name: u32| (name + 1) * 50_000;
            let of = |chunks: &[(u32, u32)]| blob(&chunks.iter().map(|&(name, _)| (name, len(name))).collect::<Vec<_>>());
            let (old, new) = (of(&old), of(&new));
            for (index, basis) in found(&old, &new) {
                prop_assert!(new.chunk(index).is_some());
                prop_assert!((1..=BASIS_CHUNKS_MAX).contains(&basis.len()));
                let mut bytes = 0;
                for hash in basis {
                    bytes += old.chunks().iter().find(|chunk| chunk.hash == hash).expect("it is here").len;
                }
                prop_assert!(bytes <= BASIS_BYTES_MAX);
            }
        }
    }
}
