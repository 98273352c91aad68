//! A blob store in memory that crashes: whole blobs, and parts whose sectors and bits reach the disk only when synced.
//!
//! A sector that was written and not synced may land, land in part, or be lost, each on its own: disks reorder.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Sabotage;
use super::records::SimRecords;
use super::seeded::Seeded;
use crate::chunk::{BlobHash, ChunkIndex, Have, Manifest};
use crate::domain::{Blob, Typed};
use crate::erase;
use crate::id::NodeId;
use crate::session::Scope;
use crate::store::{BlobStore, WriteBlobError};

const SECTOR_BYTES: usize = 256;
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
}

#[derive(Debug)]
struct Inner {
    disk: BlobsCopy,
    claims: BTreeSet<BlobHash>,
    index: ChunkIndex,
    urgent: BTreeSet<BlobHash>,
    scopes: BTreeMap<NodeId, Scope>,
    quota_bytes: u64,
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

/// A file behind a cache that loses power.
#[derive(Clone, Debug)]
struct SectorFile {
    durable: Vec<u8>,
    dirty: BTreeMap<usize, Vec<u8>>,
}

impl SectorFile {
    fn new(len: usize) -> Self {
        Self { durable: vec![0; len], dirty: BTreeMap::new() }
    }

    fn read(&self, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = self.durable[start..start + len].to_vec();
        for (&at, sector) in &self.dirty {
            for (offset, &byte) in (at..).zip(sector) {
                if (start..start + len).contains(&offset) {
                    bytes[offset - start] = byte;
                }
            }
        }
        bytes
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        let mut at = start - start % SECTOR_BYTES;
        while at < end {
            let sector_end = (at + SECTOR_BYTES).min(self.durable.len());
            let sector = self.dirty.entry(at).or_insert_with(|| self.durable[at..sector_end].to_vec());
            let (from, to) = (start.max(at), end.min(sector_end));
            sector[from - at..to - at].copy_from_slice(&bytes[from - start..to - start]);
            at += SECTOR_BYTES;
        }
    }

    fn sync(&mut self) {
        for (at, sector) in std::mem::take(&mut self.dirty) {
            self.durable[at..at + sector.len()].copy_from_slice(&sector);
        }
    }

    fn crash(&mut self, rng: &mut Seeded) {
        for (at, sector) in std::mem::take(&mut self.dirty) {
            let landed = match rng.below(3) {
                0 => 0,
                1 => sector.len(),
                _ => rng.below(sector.len() as u64) as usize,
            };
            self.durable[at..at + landed].copy_from_slice(&sector[..landed]);
        }
    }
}

impl SimBlobs {
    /// An empty store of blobs to which `records` refer.
    pub fn new(records: Arc<SimRecords>, sabotage: Option<Sabotage>) -> Self {
        let disk = BlobsCopy { whole: BTreeMap::new(), parts: BTreeMap::new() };
        let inner = Inner {
            disk,
            claims: BTreeSet::new(),
            index: ChunkIndex::new(CHUNK_INDEX_ENTRIES),
            urgent: BTreeSet::new(),
            scopes: BTreeMap::new(),
            quota_bytes: u64::MAX,
            bytes_read: 0,
            sabotage,
        };
        Self { records, inner: Mutex::new(inner) }
    }

    /// Lets `peer` read and write the blobs of `scope`.
    pub fn permit(&self, peer: NodeId, scope: Scope) {
        self.lock().scopes.insert(peer, scope);
    }

    /// Leaves room for this much content.
    pub fn set_quota(&self, bytes: u64) {
        self.lock().quota_bytes = bytes;
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

    /// Removes what erasures list and no live record names, whole or in part; what a session is receiving just now stays
    /// for the next time, which is told by `false`.
    pub fn purge_erased(&self) -> bool {
        let records = self.records.all();
        let named = records.iter().filter(|record| record.key.kind != Blob::KIND).flat_map(erase::blobs_named);
        let held = erase::content(&records).into_iter().map(|(_, blob)| blob);
        let kept: BTreeSet<BlobHash> = held.chain(named).collect();
        let erased = records.iter().filter_map(erase::Order::read).flat_map(|order| order.blobs);
        let gone: BTreeSet<BlobHash> = erased.filter(|blob| !kept.contains(blob)).collect();
        let mut inner = self.lock();
        let busy = gone.iter().any(|blob| inner.claims.contains(blob));
        inner.disk.whole.retain(|blob, _| !gone.contains(blob));
        let Inner { disk, claims, .. } = &mut *inner;
        disk.parts.retain(|blob, _| !gone.contains(blob) || claims.contains(blob));
        inner.urgent.retain(|blob| !gone.contains(blob));
        !busy
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

    /// What claims to be verified and is not (invariant 11), if anything. What is not durable does not count.
    pub fn unverified(&self) -> Option<String> {
        let inner = self.lock();
        for (blob, (_, bytes)) in &inner.disk.whole {
            if BlobHash::of(bytes) != *blob {
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

    /// Blobs of records in buckets that `peer` may have.
    fn referred(&self, inner: &Inner, peer: NodeId) -> BTreeSet<BlobHash> {
        let Some(scope) = inner.scopes.get(&peer) else { return BTreeSet::new() };
        let records = self.records.all();
        let content = erase::content(records.iter().filter(|record| scope.contains(record.key.bucket)));
        content.into_iter().map(|(_, blob)| blob).collect()
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
        self.disk.whole.insert(manifest.blob(), (manifest, bytes));
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

impl BlobStore for SimBlobs {
    type Error = Infallible;

    async fn urgent(&self, peer: NodeId) -> Result<Vec<BlobHash>, Infallible> {
        let inner = self.lock();
        let referred = self.referred(&inner, peer);
        Ok(inner.urgent.iter().filter(|blob| referred.contains(blob)).copied().collect())
    }

    async fn wanted(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Infallible> {
        let inner = self.lock();
        let wanted = self.referred(&inner, peer).into_iter();
        let wanted = wanted.filter(|blob| after.is_none_or(|after| *blob > after));
        Ok(wanted.filter(|blob| !inner.disk.whole.contains_key(blob)).take(limit).collect())
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, Infallible> {
        let inner = self.lock();
        if !self.referred(&inner, reader).contains(&blob) {
            return Ok(None);
        }
        Ok(inner.disk.whole.get(&blob).map(|(manifest, _)| manifest.clone()))
    }

    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, Infallible> {
        let mut inner = self.lock();
        let Some((manifest, bytes)) = inner.disk.whole.get(&manifest.blob()) else { return Ok(None) };
        let range = manifest.offset(index).zip(manifest.chunk(index));
        let bytes = range.map(|(start, chunk)| bytes.slice(start as usize..start as usize + chunk.len as usize));
        inner.bytes_read += bytes.as_ref().map_or(0, Bytes::len) as u64;
        Ok(bytes)
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteBlobError<Infallible>> {
        let mut inner = self.lock();
        let blob = manifest.blob();
        let chunks = manifest.chunks().len() as u32;
        if inner.disk.whole.contains_key(&blob) {
            return Ok(Have::from_bytes(chunks, &vec![0xff; chunks.div_ceil(8) as usize]).unwrap_or(Have::none(chunks)));
        }
        if inner.claims.contains(&blob) {
            return Err(WriteBlobError::Busy);
        }
        let known = inner.disk.parts.remove(&blob).filter(|part| part.manifest == *manifest);
        if known.is_none() && inner.used_bytes() + manifest.size_bytes() > inner.quota_bytes {
            return Err(WriteBlobError::Full);
        }
        let mut part = known.unwrap_or_else(|| Part {
            manifest: manifest.clone(),
            file: SectorFile::new(manifest.size_bytes() as usize),
            have: Have::none(chunks),
            written: BTreeSet::new(),
        });
        inner.copy_known_chunks(&mut part);
        let have = part.have.clone();
        inner.claims.insert(blob);
        inner.disk.parts.insert(blob, part);
        Ok(have)
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteBlobError<Infallible>> {
        if !manifest.verifies(index, &bytes) {
            return Err(WriteBlobError::Mismatch);
        }
        let mut inner = self.lock();
        if inner.used_bytes() > inner.quota_bytes {
            return Err(WriteBlobError::Full);
        }
        if let Some(part) = inner.disk.parts.get_mut(&manifest.blob()) {
            part.file.write(manifest.offset(index).unwrap_or_default() as usize, &bytes);
            part.written.insert(index);
        }
        Ok(())
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        let mut inner = self.lock();
        let bits_before_data = inner.sabotage == Some(Sabotage::BitsBeforeData);
        if let Some(part) = inner.disk.parts.get_mut(&manifest.blob()) {
            if !bits_before_data {
                part.file.sync();
            }
            for index in std::mem::take(&mut part.written) {
                part.have.insert(index);
            }
        }
        Ok(())
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        let mut inner = self.lock();
        let blob = manifest.blob();
        inner.claims.remove(&blob);
        if inner.disk.whole.contains_key(&blob) {
            return Ok(());
        }
        let Some(part) = inner.disk.parts.remove(&blob) else { return Err(WriteBlobError::Mismatch) };
        let bytes = part.file.read(0, manifest.size_bytes() as usize);
        if BlobHash::of(&bytes) != blob {
            return Err(WriteBlobError::Mismatch);
        }
        inner.publish(part.manifest, bytes.into());
        Ok(())
    }

    async fn release(&self, blob: BlobHash) {
        self.lock().claims.remove(&blob);
    }
}
