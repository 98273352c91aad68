//! Who brings which chunk of one blob, where several sessions receive it together.
//!
//! Each claims a lot of missing chunks before it asks its peer for them, and gives back what it does not bring. It is all in
//! memory: after a restart nobody has claimed anything, and only what is durable counts.
//!
//! Invariants:
//! - No chunk is claimed by two at once, nor one that was written.
//! - What is claimed is written, given back, or freed when its holder leaves: nothing is claimed by who is not there.
//!
//! Not here: the bytes, and what makes them durable (the stores); how much is claimed (`session::fetch`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Have, Manifest};

/// Chunks of one lot, at most: as many as a session may ask for at a time.
pub const LOT_CHUNKS_MAX: usize = 2048;

/// What a session wants to bring of a blob.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claim {
    /// From this chunk on, then from the start.
    pub from: u32,
    /// About so many bytes: at least one chunk, unless it is 0.
    pub bytes_max: u64,
    /// Chunks that it had claimed and has not asked for: others may have them.
    pub returned: Vec<u32>,
}

/// What a session is to bring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lot {
    /// Everything that is missing: nobody else receives the blob, and nobody will while the session does.
    Everything,
    /// These chunks, in this order; of what is left more may be claimed. Nobody else receives the blob just now.
    Chunks(Vec<u32>),
    /// The same, and others receive the blob as well: what comes slowly holds them up in the end.
    Shared(Vec<u32>),
    /// Nothing: what is missing comes through others, or is on its way through this one already. Should they leave, there is more.
    Elsewhere,
    /// Nothing: every chunk was written. It can be finished.
    Complete,
}

/// The chunks of one blob on its way in, and who brings them.
#[derive(Clone, Debug)]
pub struct Shares<H> {
    durable: Have,
    /// Claimed or written, durably or not.
    taken: Have,
    /// Claimed and not written, and by whom.
    claimed: BTreeMap<u32, H>,
    holders: BTreeSet<H>,
}

impl<H: Copy + Ord> Shares<H> {
    /// Of a blob of which these chunks are durable.
    pub fn new(durable: Have) -> Self {
        Self { taken: durable.clone(), durable, claimed: BTreeMap::new(), holders: BTreeSet::new() }
    }

    /// Which chunks are durable.
    pub fn durable(&self) -> &Have {
        &self.durable
    }

    /// Lets `holder` bring a part of it.
    pub fn join(&mut self, holder: H) {
        self.holders.insert(holder);
    }

    /// How many receive it.
    pub fn holders(&self) -> usize {
        self.holders.len()
    }

    /// Takes back what `holder` does not bring, and gives it something that nobody brings.
    pub fn claim(&mut self, holder: H, manifest: &Manifest, claim: &Claim) -> Lot {
        for &index in &claim.returned {
            if self.claimed.get(&index) == Some(&holder) {
                self.claimed.remove(&index);
                self.taken.remove(index);
            }
        }
        if self.taken.is_complete() {
            return if self.claimed.is_empty() { Lot::Complete } else { Lot::Elsewhere };
        }
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        let from = claim.from.min(self.taken.chunks());
        for index in (from..self.taken.chunks()).chain(0..from) {
            let Some(chunk) = manifest.chunk(index).filter(|_| !self.taken.contains(index)) else { continue };
            bytes += u64::from(chunk.len);
            if chunks.len() == LOT_CHUNKS_MAX || bytes > claim.bytes_max && (claim.bytes_max == 0 || !chunks.is_empty())
            {
                break;
            }
            chunks.push(index);
        }
        for &index in &chunks {
            self.taken.insert(index);
            self.claimed.insert(index, holder);
        }
        if self.holders.len() > 1 { Lot::Shared(chunks) } else { Lot::Chunks(chunks) }
    }

    /// Whether a chunk was written, durably or not: it need not be written again.
    pub fn is_written(&self, index: u32) -> bool {
        self.taken.contains(index) && !self.claimed.contains_key(&index)
    }

    /// A chunk was written, by whomever.
    pub fn written(&mut self, index: u32) {
        self.claimed.remove(&index);
        self.taken.insert(index);
    }

    /// What was written is durable.
    pub fn synced(&mut self, chunks: impl IntoIterator<Item = u32>) {
        for index in chunks {
            self.written(index);
            self.durable.insert(index);
        }
    }

    /// What was written is not on the disk after all: it is missing again.
    pub fn lost(&mut self, chunks: impl IntoIterator<Item = u32>) {
        for index in chunks {
            self.claimed.remove(&index);
            self.taken.remove(index);
        }
    }

    /// Frees what `holder` has claimed and not brought. Tells whether there was any.
    pub fn leave(&mut self, holder: H) -> bool {
        self.holders.remove(&holder);
        let before = self.claimed.len();
        let taken = &mut self.taken;
        self.claimed.retain(|index, by| *by != holder || !taken.remove(*index));
        self.claimed.len() < before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::chunk::{BlobHash, Chunk, ChunkHash, Chunking};

    const CHUNKS: u32 = 24;
    const HOLDERS: u8 = 3;

    fn manifest() -> Manifest {
        let chunks = (1..=CHUNKS).map(|len| Chunk { len, hash: ChunkHash::of(&len.to_be_bytes()) }).collect();
        Manifest::new(BlobHash::of(b"blob"), Chunking::Fixed, chunks).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim { by: u8, from: u32, bytes_max: u64, returned: usize },
        Write { by: u8, at: usize },
        Sync,
        FailedSync,
        Leave(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let by = || 0..HOLDERS;
        prop_oneof![
            (by(), 0..CHUNKS + 2, 0..80u64, 0..3usize).prop_map(|(by, from, bytes_max, returned)| Step::Claim {
                by,
                from,
                bytes_max,
                returned
            }),
            (by(), any::<usize>()).prop_map(|(by, at)| Step::Write { by, at }),
            Just(Step::Sync),
            Just(Step::FailedSync),
            by().prop_map(Step::Leave),
        ]
    }

    proptest! {
        /// Whoever claims, writes, fails and leaves in whatever order: no chunk is two sessions' at once, each is somebody's, free
        /// or written, and once all have left but one, that one is given everything that is missing.
        #[test]
        fn every_chunk_is_brought_by_one(had in prop::collection::btree_set(0..CHUNKS, 0..6), steps in prop::collection::vec(step(), 0..120)) {
            let manifest = manifest();
            let mut durable = Have::none(CHUNKS);
            for index in had {
                durable.insert(index);
            }
            let mut shares = Shares::new(durable);
            (0..HOLDERS).for_each(|by| shares.join(by));
            let mut held: [BTreeSet<u32>; HOLDERS as usize] = Default::default();
            let mut unsynced = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Claim { by, from, bytes_max, returned } => {
                        let mine = &mut held[usize::from(by)];
                        let returned: Vec<u32> = mine.iter().copied().take(returned).collect();
                        mine.retain(|index| !returned.contains(index));
                        shares.join(by);
                        let lot = shares.claim(by, &manifest, &Claim { from, bytes_max, returned });
                        let claimed: usize = held.iter().map(BTreeSet::len).sum();
                        let is_free = |index: &u32| !shares.is_written(*index) && !held.iter().any(|held| held.contains(index));
                        match lot {
                            Lot::Everything => prop_assert!(false, "there are others"),
                            Lot::Complete => prop_assert!(claimed == 0 && (0..CHUNKS).all(|index| shares.is_written(index))),
                            Lot::Elsewhere => prop_assert!(claimed > 0 && !(0..CHUNKS).any(|index| is_free(&index))),
                            Lot::Chunks(chunks) | Lot::Shared(chunks) => {
                                prop_assert_eq!(chunks.is_empty(), bytes_max == 0);
                                prop_assert!(chunks.iter().all(is_free));
                                let bytes: u64 = chunks.iter().map(|&index| u64::from(manifest.chunk(index).unwrap().len)).sum();
                                prop_assert!(chunks.len() <= 1 || bytes <= bytes_max);
                                held[usize::from(by)].extend(chunks);
                            }
                        }
                    }
                    Step::Write { by, at } => {
                        let mine = &mut held[usize::from(by)];
                        if let Some(&index) = mine.iter().nth(at % mine.len().max(1)) {
                            mine.remove(&index);
                            shares.written(index);
                            unsynced.insert(index);
                        }
                    }
                    Step::Sync => shares.synced(std::mem::take(&mut unsynced)),
                    Step::FailedSync => shares.lost(std::mem::take(&mut unsynced)),
                    Step::Leave(by) => {
                        let mine = std::mem::take(&mut held[usize::from(by)]);
                        prop_assert_eq!(shares.leave(by), !mine.is_empty());
                    }
                }
            }
            for by in 1..HOLDERS {
                shares.leave(by);
            }
            let mut brought = held[0].len();
            while let Lot::Chunks(chunks) = shares.claim(0, &manifest, &Claim { from: 0, bytes_max: 40, returned: vec![] }) {
                brought += chunks.len();
            }
            let written = (0..CHUNKS).filter(|&index| shares.is_written(index)).count();
            prop_assert_eq!(brought + written, CHUNKS as usize);
            for index in 0..CHUNKS {
                shares.written(index);
            }
            prop_assert_eq!(shares.claim(0, &manifest, &Claim::default()), Lot::Complete);
        }
    }

    #[test]
    fn a_lot_begins_where_it_is_wanted_and_goes_on_from_the_start() {
        let manifest = manifest();
        let mut shares = Shares::new(Have::none(CHUNKS));
        shares.join(1);
        let claim = |from, bytes_max| Claim { from, bytes_max, returned: Vec::new() };
        assert_eq!(shares.claim(1, &manifest, &claim(22, 50)), Lot::Chunks(vec![22, 23, 0, 1]), "alone");
        shares.join(2);
        assert_eq!(shares.claim(2, &manifest, &claim(22, 1)), Lot::Shared(vec![2]), "one, however large");
        assert_eq!(shares.claim(2, &manifest, &claim(23, 1_000)), Lot::Shared((3..22).collect()));
        assert_eq!(shares.claim(1, &manifest, &claim(0, 1_000)), Lot::Elsewhere);
        assert!(shares.leave(2));
        assert_eq!(shares.claim(1, &manifest, &claim(5, 13)), Lot::Chunks(vec![5, 6]), "what was freed is to be had");
    }
}
