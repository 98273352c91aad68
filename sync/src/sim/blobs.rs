//! A blob store in memory that crashes: whole blobs, and parts whose sectors and bits reach the disk only when synced.
//!
//! A sector that was written and not synced may land, land in part, or be lost, each on its own: disks reorder. A whole
//! blob may rot, unseen until somebody reads it or [`SimBlobs::scrub`] looks; then what is sound of it is kept, and the rest is wanted again.
//!
//! - `room`: what leaves.
//! - `port`: the store as sessions see it; several may receive one blob ([`SimBlobs::receive_together`]).
//!
//! Not here: sectors ([`sectors`](super::sectors)).

mod port;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Sabotage;
use super::records::SimRecords;
use super::sectors::SectorFile;
use super::seeded::Seeded;
use crate::chunk::{BlobHash, ChunkIndex, Have, Manifest};
use crate::domain::{Blob, Typed};
use crate::erase;
use crate::id::NodeId;
use crate::session::Scope;

const CHUNK_INDEX_ENTRIES: usize = 10_000;

/// Blobs in memory.
#[derive(Debug)]
pub struct SimBlobs {
    records: Arc<SimRecords>,
    inner: Mutex<Inner>,
}

/// What was durable at one moment.
#[derive(Clone, Debug)]
pub struct BlobsCopy {
    whole: BTreeMap<BlobHash, (Manifest, Bytes)>,
    parts: BTreeMap<BlobHash, Part>,
    /// Rotten, and nobody has looked: known to the world, not to the store.
    rotten: BTreeSet<BlobHash>,
    room: room::Room,
}

#[derive(Debug)]
struct Inner {
    disk: BlobsCopy,
    claims: BTreeMap<BlobHash, port::Receivers>,
    /// Sessions may receive a blob together.
    together: bool,
    index: ChunkIndex,
    urgent: BTreeSet<BlobHash>,
    scopes: BTreeMap<NodeId, Scope>,
    quota_bytes: u64,
    /// There is no room for anything.
    full: bool,
    /// Damage was found since it was last asked for.
    damage_found: bool,
    bytes_read: u64,
    sabotage: Option<Sabotage>,
}

/// A blob on its way in.
#[derive(Clone, Debug)]
struct Part {
    manifest: Manifest,
    file: SectorFile,
    /// Durable bits.
    have: Have,
    /// Written since the last sync; known only to the running program.
    written: BTreeSet<u32>,
}

impl SimBlobs {
    /// An empty store of blobs to which `records` refer.
    pub fn new(records: Arc<SimRecords>, sabotage: Option<Sabotage>) -> Self {
        let room = room::Room::default();
        let disk = BlobsCopy { whole: BTreeMap::new(), parts: BTreeMap::new(), rotten: BTreeSet::new(), room };
        let inner = Inner {
            disk,
            claims: BTreeMap::new(),
            together: false,
            index: ChunkIndex::new(CHUNK_INDEX_ENTRIES),
            urgent: BTreeSet::new(),
            scopes: BTreeMap::new(),
            quota_bytes: u64::MAX,
            full: false,
            damage_found: false,
            bytes_read: 0,
            sabotage,
        };
        Self { records, inner: Mutex::new(inner) }
    }

    /// Lets `peer` read and write the blobs of `scope`.
    pub fn permit(&self, peer: NodeId, scope: Scope) {
        self.lock().scopes.insert(peer, scope);
    }

    /// Lets sessions that bring the same blob receive it together, as nodes do.
    pub fn receive_together(&self) {
        self.lock().together = true;
    }

    /// Leaves room for this much content.
    pub fn set_quota(&self, bytes: u64) {
        self.lock().quota_bytes = bytes;
    }

    /// Fills the disk up, in the middle of whatever is under way, or makes room again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets one of the whole blobs rot, unseen. Tells which.
    pub fn rot(&self, rng: &mut Seeded) -> Option<BlobHash> {
        let mut inner = self.lock();
        let whole: Vec<BlobHash> = inner.disk.whole.keys().copied().collect();
        let blob = *rng.pick(&whole)?;
        let (_, bytes) = inner.disk.whole.get_mut(&blob)?;
        let mut rotten = bytes.to_vec();
        let at = rng.below(rotten.len() as u64) as usize;
        *rotten.get_mut(at)? ^= 1 << rng.below(8);
        *bytes = rotten.into();
        inner.disk.rotten.insert(blob);
        Some(blob)
    }

    /// Reads every whole blob; what is damaged is whole no more and wanted again. Tells how many.
    pub fn scrub(&self) -> usize {
        let mut inner = self.lock();
        let damaged: Vec<BlobHash> = inner
            .disk
            .whole
            .iter()
            .filter(|(blob, (_, bytes))| BlobHash::of(bytes) != **blob)
            .map(|(&b, _)| b)
            .collect();
        for &blob in &damaged {
            inner.set_aside(blob);
        }
        damaged.len()
    }

    /// Whether damage was found since this was last asked, so that there is more to want.
    pub fn take_damage_found(&self) -> bool {
        std::mem::take(&mut self.lock().damage_found)
    }

    /// A reader waits for `blob`.
    pub fn want_now(&self, blob: BlobHash) {
        self.lock().urgent.insert(blob);
    }

    /// Takes in a blob that was made here; durable.
    pub fn import(&self, manifest: Manifest, bytes: Bytes) {
        self.lock().publish(manifest, bytes);
    }

    /// The bytes of a blob that is whole here.
    pub fn whole(&self, blob: BlobHash) -> Option<Bytes> {
        self.lock().disk.whole.get(&blob).map(|(_, bytes)| bytes.clone())
    }

    /// Every blob that is whole here.
    pub fn whole_blobs(&self) -> Vec<BlobHash> {
        self.lock().disk.whole.keys().copied().collect()
    }

    /// Whether a blob is whole here and not rotten.
    pub fn is_sound(&self, blob: BlobHash) -> bool {
        let inner = self.lock();
        inner.disk.whole.contains_key(&blob) && !inner.disk.rotten.contains(&blob)
    }

    /// Removes what erasures list and no live record names, whole or in part; what a session is receiving just now stays
    /// for the next time, which is told by `false`.
    pub fn purge_erased(&self) -> bool {
        let gone = self.erased();
        let mut inner = self.lock();
        if inner.sabotage == Some(Sabotage::ErasedContentStays) {
            return true;
        }
        let busy = gone.iter().any(|blob| inner.claims.contains_key(blob));
        let Inner { disk, claims, .. } = &mut *inner;
        disk.whole.retain(|blob, _| !gone.contains(blob) || claims.contains_key(blob));
        disk.parts.retain(|blob, _| !gone.contains(blob) || claims.contains_key(blob));
        inner.urgent.retain(|blob| !gone.contains(blob));
        !busy
    }

    /// What erasures list and no live record names.
    fn erased(&self) -> BTreeSet<BlobHash> {
        let records = self.records.all();
        let named = records.iter().filter(|record| record.key.kind != Blob::KIND).flat_map(erase::blobs_named);
        let held = erase::content(&records).into_iter().map(|(_, blob)| blob);
        let kept: BTreeSet<BlobHash> = held.chain(named).collect();
        let erased = records.iter().filter_map(erase::Order::read).flat_map(|order| order.blobs);
        erased.filter(|blob| !kept.contains(blob)).collect()
    }

    /// Whether anything of `blob` is here.
    pub(super) fn has_any_of(&self, blob: BlobHash) -> bool {
        let inner = self.lock();
        inner.disk.whole.contains_key(&blob) || inner.disk.parts.contains_key(&blob)
    }

    /// Whether a chunk of `blob` is durable here, in whatever form.
    pub fn has_durable(&self, blob: BlobHash, index: u32) -> bool {
        let inner = self.lock();
        inner.disk.whole.contains_key(&blob)
            || inner.disk.parts.get(&blob).is_some_and(|part| part.have.contains(index))
    }

    /// Bytes of chunks read for peers, in all.
    pub fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// What claims to be verified and is not (invariant 11), if anything. What is not durable does not count, nor rot that
    /// nobody has looked at.
    pub fn unverified(&self) -> Option<String> {
        let inner = self.lock();
        for (blob, (_, bytes)) in &inner.disk.whole {
            if BlobHash::of(bytes) != *blob && !inner.disk.rotten.contains(blob) {
                return Some(format!("whole blob {blob} is damaged"));
            }
        }
        for (blob, part) in &inner.disk.parts {
            for (index, chunk) in (0u32..).zip(part.manifest.chunks()).filter(|(index, _)| part.have.contains(*index)) {
                let start = part.manifest.offset(index).unwrap_or_default() as usize;
                if !part.manifest.verifies(index, &part.file.durable[start..start + chunk.len as usize]) {
                    return Some(format!("chunk {index} of {blob} has its bit but not its bytes"));
                }
            }
        }
        None
    }

    /// What is durable now.
    pub fn copy(&self) -> BlobsCopy {
        let mut copy = self.lock().disk.clone();
        for part in copy.parts.values_mut() {
            part.file.dirty.clear();
            part.written.clear();
        }
        copy
    }

    /// Goes back to `copy`.
    pub fn restore(&self, copy: BlobsCopy) {
        let mut inner = self.lock();
        inner.disk = copy;
        inner.forget();
    }

    /// Loses power and comes back with what is durable.
    pub fn crash(&self, rng: &mut Seeded) {
        let mut inner = self.lock();
        for part in inner.disk.parts.values_mut() {
            part.file.crash(rng);
            part.written.clear();
        }
        inner.forget();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blobs of records in buckets that `peer` may have, with their sizes.
    fn referred(&self, inner: &Inner, peer: NodeId) -> BTreeMap<BlobHash, u64> {
        let Some(scope) = inner.scopes.get(&peer) else { return BTreeMap::new() };
        let records = self.records.all();
        let content = erase::content(records.iter().filter(|record| scope.contains(record.key.bucket)));
        let blobs = records.iter().filter_map(Blob::from_record);
        let sizes: BTreeMap<_, _> = blobs.filter_map(|blob| Some((blob.hash?, blob.size_bytes))).collect();
        let size = |blob| sizes.get(&blob).copied().unwrap_or_default();
        content.into_iter().map(|(_, blob)| (blob, size(blob))).collect()
    }
}

impl Inner {
    /// What a running program knows and a restarted one does not.
    fn forget(&mut self) {
        self.claims.clear();
        self.urgent.clear();
        self.index = ChunkIndex::new(CHUNK_INDEX_ENTRIES);
        for (manifest, _) in self.disk.whole.values() {
            self.index.add(manifest);
        }
    }

    fn publish(&mut self, manifest: Manifest, bytes: Bytes) {
        self.index.add(&manifest);
        self.urgent.remove(&manifest.blob());
        self.disk.parts.remove(&manifest.blob());
        self.disk.rotten.remove(&manifest.blob());
        self.disk.room.note_whole(manifest.blob());
        self.disk.whole.insert(manifest.blob(), (manifest, bytes));
    }

    /// Takes a damaged blob away from readers, and keeps the chunks of it that are sound.
    fn set_aside(&mut self, blob: BlobHash) {
        let Some((manifest, bytes)) = self.disk.whole.remove(&blob) else { return };
        self.disk.rotten.remove(&blob);
        self.damage_found = true;
        let mut have = Have::none(manifest.chunks().len() as u32);
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let start = manifest.offset(index).unwrap_or_default() as usize;
            if manifest.verifies(index, &bytes[start..start + chunk.len as usize]) {
                have.insert(index);
            }
        }
        let mut file = SectorFile::new(bytes.len());
        file.durable.copy_from_slice(&bytes);
        self.disk.parts.insert(blob, Part { manifest, file, have, written: BTreeSet::new() });
    }

    fn has_room(&self) -> bool {
        !self.full && self.used_bytes() <= self.quota_bytes
    }

    fn used_bytes(&self) -> u64 {
        let parts = self.disk.parts.values().map(|part| part.manifest.size_bytes());
        self.disk.whole.values().map(|(manifest, _)| manifest.size_bytes()).chain(parts).sum()
    }

    /// Copies the chunks that other blobs here hold.
    fn copy_known_chunks(&self, part: &mut Part) {
        for (index, chunk) in (0u32..).zip(part.manifest.chunks()) {
            let Some(place) = self.index.find(chunk.hash) else { continue };
            let Some((manifest, bytes)) = self.disk.whole.get(&place.blob) else { continue };
            let start = manifest.offset(place.index).unwrap_or_default() as usize;
            let known = &bytes[start..start + chunk.len as usize];
            if part.manifest.verifies(index, known) {
                part.file.write(part.manifest.offset(index).unwrap_or_default() as usize, known);
                part.have.insert(index);
            }
        }
        part.file.sync();
    }
}
