//! One blob on its way in: manifest, missing chunks, durability, the check of the whole.
//!
//! What is asked for was claimed before. Where the store lets several sessions receive the blob, this one gets a lot of what is missing
//! at a time, and what it does not ask for soon it gives back (`claims`).

mod claims;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use self::claims::Rest;
pub(super) use self::claims::Supply;
use crate::chunk::{Bases, BlobHash, ChunkHash, Have, Manifest};
use crate::session::Begun;
use crate::store::Wanted;
use crate::wire::Class;

#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) wanted: Wanted,
    pub(super) stage: Stage,
    /// What asking for the manifest was admitted at.
    pub(super) manifest_cost: u64,
    /// The peer has said, on another lane than the answer's, that it has it now.
    pub(super) told_since: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    ManifestAsked,
    Beginning(Arc<Manifest>),
    Fetching(Box<Fetching>),
    Finishing(Arc<Manifest>),
}

impl Stage {
    pub(super) fn is_fetching(&self) -> bool {
        matches!(self, Self::Fetching(_))
    }
}

#[derive(Debug)]
pub(super) struct Fetching {
    manifest: Arc<Manifest>,
    /// Durable chunks.
    have: Have,
    /// Chunks that were had at the start, or are this session's: claimed, and asked for at once or a little later.
    known: Have,
    /// What of the others may be claimed.
    rest: Rest,
    /// Whether others receive the blob, too, as far as is known: it is not before something was claimed.
    is_shared: Option<bool>,
    /// Claimed and not asked for, in order.
    in_hand: VecDeque<u32>,
    /// What chunks are asked for as patches of.
    bases: Bases,
    /// More is claimed from here on, then from the start.
    next: u32,
    /// Asked for and not arrived, with their lengths.
    on_the_way: BTreeMap<u32, u64>,
    /// Arrived and being written.
    writing: BTreeMap<u32, u64>,
    /// Written and not covered by a sync.
    written: BTreeMap<u32, u64>,
    /// Covered by the sync that is under way.
    syncing: Option<BTreeMap<u32, u64>>,
}

impl Receiving {
    pub(super) fn asked(wanted: Wanted, manifest_cost: u64) -> Self {
        Self { wanted, stage: Stage::ManifestAsked, manifest_cost, told_since: false }
    }

    pub(super) fn blob(&self) -> BlobHash {
        self.wanted.blob
    }

    /// A reader waits for it, at this place.
    pub(super) fn read_from(&mut self, from_bytes: u64) {
        self.wanted.class = Class::Reader;
        self.wanted.from_bytes = from_bytes;
        if let Stage::Fetching(fetching) = &mut self.stage {
            fetching.next = fetching.manifest.chunk_at(from_bytes);
            let next = fetching.next;
            fetching.in_hand.make_contiguous().sort_by_key(|&index| (index < next, index));
        }
    }

    pub(super) fn began(&mut self, Begun { have, bases }: Begun) {
        if let Stage::Beginning(manifest) = &self.stage {
            self.stage = Stage::Fetching(Box::new(Fetching {
                manifest: Arc::clone(manifest),
                known: have.clone(),
                rest: Rest::Open,
                is_shared: None,
                in_hand: VecDeque::new(),
                have,
                bases,
                next: manifest.chunk_at(self.wanted.from_bytes),
                on_the_way: BTreeMap::new(),
                writing: BTreeMap::new(),
                written: BTreeMap::new(),
                syncing: None,
            }));
        }
    }

    pub(super) fn ask(&mut self, index: u32, len: u64) {
        if let Stage::Fetching(fetching) = &mut self.stage {
            fetching.on_the_way.insert(index, len);
            fetching.known.insert(index);
            if let Some(at) = fetching.in_hand.iter().position(|&in_hand| in_hand == index) {
                fetching.in_hand.remove(at);
            }
        }
    }

    /// What a chunk may be told from; `None` if it comes whole.
    pub(super) fn basis(&self, index: u32) -> Option<&Vec<ChunkHash>> {
        let Stage::Fetching(fetching) = &self.stage else { return None };
        fetching.bases.get(&index)
    }

    /// The basis of a chunk that was being written is gone: it is asked for again, whole. Tells its length.
    pub(super) fn needs_whole(&mut self, index: u32) -> u64 {
        let Stage::Fetching(fetching) = &mut self.stage else { return 0 };
        fetching.bases.remove(&index);
        fetching.in_hand.push_front(index);
        fetching.writing.remove(&index).unwrap_or_default()
    }

    /// What the bases take in memory.
    pub(super) fn bases_bytes(&self) -> usize {
        let Stage::Fetching(fetching) = &self.stage else { return 0 };
        let names = |basis: &Vec<ChunkHash>| size_of::<(u32, Vec<ChunkHash>)>() + size_of_val(&basis[..]);
        fetching.bases.values().map(names).sum()
    }

    /// The length of a chunk that was asked for and has not arrived.
    pub(super) fn expected(&self, index: u32) -> Option<u64> {
        let Stage::Fetching(fetching) = &self.stage else { return None };
        fetching.on_the_way.get(&index).copied()
    }

    /// An expected chunk has arrived and is going to be written.
    pub(super) fn arrived(&mut self, index: u32) -> Option<Arc<Manifest>> {
        let Stage::Fetching(fetching) = &mut self.stage else { return None };
        let len = fetching.on_the_way.remove(&index)?;
        fetching.writing.insert(index, len);
        Some(Arc::clone(&fetching.manifest))
    }

    /// The peer no longer has a chunk that was asked for.
    pub(super) fn refused(&mut self, index: u32) {
        if let Stage::Fetching(fetching) = &mut self.stage {
            fetching.on_the_way.remove(&index);
        }
    }

    /// Chunks asked for and not answered.
    pub(super) fn asks(&self) -> usize {
        if let Stage::Fetching(fetching) = &self.stage { fetching.on_the_way.len() } else { 0 }
    }

    /// Which ones, with their lengths in bytes.
    pub(super) fn on_the_way(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let fetching = if let Stage::Fetching(fetching) = &self.stage { Some(fetching) } else { None };
        fetching.into_iter().flat_map(|fetching| fetching.on_the_way.iter().map(|(index, len)| (*index, *len)))
    }

    /// Whether the store has let receiving begin, so that it is to be released.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self.stage, Stage::Fetching(_) | Stage::Finishing(_))
    }

    /// Disk requests under way.
    pub(super) fn disk_requests(&self) -> usize {
        match &self.stage {
            Stage::ManifestAsked => 0,
            Stage::Beginning(_) | Stage::Finishing(_) => 1,
            Stage::Fetching(fetching) => {
                let claiming = usize::from(matches!(fetching.rest, Rest::Claiming(_)));
                fetching.writing.len() + usize::from(fetching.syncing.is_some()) + claiming
            }
        }
    }

    /// Whether something waits for a sync to be started.
    pub(super) fn has_written(&self) -> bool {
        matches!(&self.stage, Stage::Fetching(fetching) if !fetching.written.is_empty())
    }

    pub(super) fn wrote(&mut self, index: u32) {
        if let Stage::Fetching(fetching) = &mut self.stage
            && let Some(len) = fetching.writing.remove(&index)
        {
            fetching.written.insert(index, len);
        }
    }

    /// Starts a sync if there is something to make durable and it is `due`, or nothing else is to come.
    pub(super) fn start_sync(&mut self, due: bool) -> Option<Arc<Manifest>> {
        let Stage::Fetching(fetching) = &mut self.stage else { return None };
        let all_arrived = fetching.is_drained() && fetching.has_no_more();
        if fetching.syncing.is_some() || fetching.written.is_empty() || !(due || all_arrived) {
            return None;
        }
        fetching.syncing = Some(std::mem::take(&mut fetching.written));
        Some(Arc::clone(&fetching.manifest))
    }

    /// The sync is done. Tells how many bytes became durable.
    pub(super) fn synced(&mut self) -> u64 {
        let Stage::Fetching(fetching) = &mut self.stage else { return 0 };
        let mut durable = 0;
        for (index, len) in fetching.syncing.take().unwrap_or_default() {
            fetching.have.insert(index);
            durable += len;
        }
        fetching.note_share_durable();
        durable
    }

    /// Ends the blob if all of it is durable, or was written by others.
    pub(super) fn start_finish(&mut self) -> Option<Arc<Manifest>> {
        let Stage::Fetching(fetching) = &self.stage else { return None };
        if !(fetching.have.is_complete() || fetching.rest == Rest::Written && fetching.has_nothing_to_sync()) {
            return None;
        }
        let manifest = Arc::clone(&fetching.manifest);
        self.stage = Stage::Finishing(Arc::clone(&manifest));
        Some(manifest)
    }

    /// The manifest, once receiving was begun.
    pub(super) fn manifest(&self) -> Option<&Arc<Manifest>> {
        match &self.stage {
            Stage::ManifestAsked => None,
            Stage::Beginning(manifest) | Stage::Finishing(manifest) => Some(manifest),
            Stage::Fetching(fetching) => Some(&fetching.manifest),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.manifest().map_or(0, |manifest| manifest.size_bytes())
    }

    /// Bytes that are not durable here yet, without what is known to come through others.
    pub(super) fn bytes_missing(&self) -> u64 {
        let Stage::Fetching(fetching) = &self.stage else { return 0 };
        let by_others = |index: u32| fetching.rest.is_elsewhere() && !fetching.known.contains(index);
        (0u32..)
            .zip(fetching.manifest.chunks())
            .filter(|(index, _)| !fetching.have.contains(*index) && !by_others(*index))
            .map(|(_, chunk)| u64::from(chunk.len))
            .sum()
    }

    /// Bytes on the way, and bytes arrived but not durable.
    pub(super) fn bytes_not_durable(&self) -> (u64, u64) {
        let Stage::Fetching(fetching) = &self.stage else { return (0, 0) };
        let sum = |chunks: &BTreeMap<u32, u64>| chunks.values().sum::<u64>();
        let syncing = fetching.syncing.as_ref().map_or(0, sum);
        (sum(&fetching.on_the_way), sum(&fetching.writing) + sum(&fetching.written) + syncing)
    }
}
