//! The store as sessions see it. Where several may receive a blob together, each is known by its peer ([`SimBlobs::of_session`]);
//! whoever comes without a name has a blob alone.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;

use super::{Inner, Part, SimBlobs};
use crate::chunk::{Bases, BlobHash, ChunkHash, Claim, Have, Lot, Manifest, Shares, basis};
use crate::id::NodeId;
use crate::sim::Sabotage;
use crate::sim::sectors::SectorFile;
use crate::store::{BlobStore, Wanted, WriteBlobError};
use crate::wire::Class;

/// The sessions that receive one blob.
#[derive(Debug)]
pub(super) struct Receivers {
    /// Their peers; `None` for one that has the blob alone.
    holders: BTreeSet<Option<NodeId>>,
    shares: Shares<NodeId>,
}

impl Receivers {
    fn join(&mut self, holder: Option<NodeId>) {
        self.holders.insert(holder);
        if let Some(peer) = holder {
            self.shares.join(peer);
        }
    }
}

/// The store as the session with one peer uses it.
#[derive(Debug)]
pub struct SimSession {
    blobs: Arc<SimBlobs>,
    peer: NodeId,
}

impl SimBlobs {
    /// The store as the session with this peer uses it.
    pub fn of_session(self: &Arc<Self>, peer: NodeId) -> SimSession {
        SimSession { blobs: Arc::clone(self), peer }
    }

    fn begin_by(&self, holder: Option<NodeId>, manifest: &Manifest) -> Result<Have, WriteBlobError<Infallible>> {
        let blob = manifest.blob();
        // Asked for before it was erased.
        let is_erased = self.records.has_erasures() && self.erased().contains(&blob);
        let mut inner = self.lock();
        let chunks = manifest.chunks().len() as u32;
        if inner.disk.whole.contains_key(&blob) {
            return Ok(Have::from_bytes(chunks, &vec![0xff; chunks.div_ceil(8) as usize]).unwrap_or(Have::none(chunks)));
        }
        if is_erased {
            return Err(WriteBlobError::Busy);
        }
        let together = inner.together && holder.is_some();
        let is_same = inner.disk.parts.get(&blob).is_some_and(|part| part.manifest == *manifest);
        if let Some(receivers) = inner.claims.get_mut(&blob) {
            if !together || !is_same || receivers.holders.contains(&None) {
                return Err(WriteBlobError::Busy);
            }
            receivers.join(holder);
            return Ok(receivers.shares.durable().clone());
        }
        let known = inner.disk.parts.remove(&blob).filter(|part| part.manifest == *manifest);
        if known.is_none() && (inner.full || inner.used_bytes() + manifest.size_bytes() > inner.quota_bytes) {
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
        let mut receivers = Receivers { holders: BTreeSet::new(), shares: Shares::new(have.clone()) };
        receivers.join(holder);
        inner.claims.insert(blob, receivers);
        inner.disk.parts.insert(blob, part);
        Ok(have)
    }

    fn release_by(&self, holder: Option<NodeId>, blob: BlobHash) {
        let mut inner = self.lock();
        let Some(receivers) = inner.claims.get_mut(&blob) else { return };
        receivers.holders.remove(&holder);
        if let Some(peer) = holder {
            receivers.shares.leave(peer);
        }
        if receivers.holders.is_empty() {
            inner.claims.remove(&blob);
            // Nobody remembers what was written and not synced: whoever begins it again asks for it.
            if let Some(part) = inner.disk.parts.get_mut(&blob) {
                part.written.clear();
            }
        }
    }
}

impl Inner {
    /// A blob that was begun; `None` if it is whole since.
    fn begun(
        &mut self,
        blob: BlobHash,
    ) -> Result<Option<(&mut Part, &mut Shares<NodeId>)>, WriteBlobError<Infallible>> {
        if self.disk.whole.contains_key(&blob) {
            return Ok(None);
        }
        let part = self.disk.parts.get_mut(&blob);
        match part.zip(self.claims.get_mut(&blob)) {
            Some((part, receivers)) => Ok(Some((part, &mut receivers.shares))),
            None => Err(WriteBlobError::Gone),
        }
    }

    fn make_durable(&mut self, blob: BlobHash) -> Result<(), WriteBlobError<Infallible>> {
        let bits_before_data = self.sabotage == Some(Sabotage::BitsBeforeData);
        let Some((part, shares)) = self.begun(blob)? else { return Ok(()) };
        if !bits_before_data {
            part.file.sync();
        }
        let written = std::mem::take(&mut part.written);
        for &index in &written {
            part.have.insert(index);
        }
        shares.synced(written);
        Ok(())
    }
}

impl BlobStore for SimSession {
    type Error = Infallible;

    async fn urgent(&self, peer: NodeId) -> Result<Vec<Wanted>, Infallible> {
        self.blobs.urgent(peer).await
    }

    async fn wanted(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<Wanted>, Infallible> {
        self.blobs.wanted(peer, after, limit).await
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, Infallible> {
        self.blobs.manifest(reader, blob).await
    }

    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, Infallible> {
        self.blobs.read(manifest, index).await
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteBlobError<Infallible>> {
        self.blobs.begin_by(Some(self.peer), manifest)
    }

    async fn claim(&self, manifest: &Manifest, claim: Claim) -> Result<Lot, WriteBlobError<Infallible>> {
        let mut inner = self.blobs.lock();
        if !inner.together {
            return Ok(Lot::Everything);
        }
        let all_to_all = inner.sabotage == Some(Sabotage::ChunksAreClaimedTwice);
        let Some((_, shares)) = inner.begun(manifest.blob())? else { return Ok(Lot::Complete) };
        if all_to_all {
            return Ok(Lot::Everything);
        }
        Ok(shares.claim(self.peer, manifest, &claim))
    }

    async fn bases(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, Infallible> {
        self.blobs.bases(peer, manifest, have).await
    }

    async fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Bytes>, Infallible> {
        self.blobs.known_chunk(reader, chunk).await
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteBlobError<Infallible>> {
        self.blobs.write(manifest, index, bytes).await
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        self.blobs.sync(manifest).await
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        self.blobs.finish(manifest).await
    }

    async fn release(&self, blob: BlobHash) {
        self.blobs.release_by(Some(self.peer), blob);
    }
}

/// Each class has some, always the same.
fn any_class(blob: BlobHash) -> Class {
    [Class::Software, Class::Pinned, Class::Background][usize::from(blob.as_bytes()[0]) % 3]
}

impl BlobStore for SimBlobs {
    type Error = Infallible;

    async fn urgent(&self, peer: NodeId) -> Result<Vec<Wanted>, Infallible> {
        let inner = self.lock();
        let referred = self.referred(&inner, peer);
        let urgent = inner.urgent.iter().filter_map(|blob| Some((*blob, *referred.get(blob)?)));
        let wanted = |(blob, size_bytes)| Wanted { blob, class: Class::Reader, size_bytes, from_bytes: 0 };
        Ok(urgent.map(wanted).collect())
    }

    async fn wanted(&self, peer: NodeId, after: Option<BlobHash>, limit: usize) -> Result<Vec<Wanted>, Infallible> {
        let inner = self.lock();
        let wanted = self.referred(&inner, peer).into_iter();
        let wanted = wanted.filter(|(blob, _)| after.is_none_or(|after| *blob > after));
        let is_here = |blob: &BlobHash| inner.disk.whole.contains_key(blob) || inner.disk.room.is_on_demand(*blob);
        let missing = wanted.filter(|(blob, _)| !is_here(blob)).take(limit);
        let missing =
            missing.map(|(blob, size_bytes)| Wanted { blob, class: any_class(blob), size_bytes, from_bytes: 0 });
        Ok(missing.collect())
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, Infallible> {
        let inner = self.lock();
        if !self.referred(&inner, reader).contains_key(&blob) {
            return Ok(None);
        }
        Ok(inner.disk.whole.get(&blob).map(|(manifest, _)| manifest.clone()))
    }

    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, Infallible> {
        let mut inner = self.lock();
        let blob = manifest.blob();
        let Some((manifest, bytes)) = inner.disk.whole.get(&blob) else { return Ok(None) };
        let Some((start, chunk)) = manifest.offset(index).zip(manifest.chunk(index)) else { return Ok(None) };
        let bytes = bytes.slice(start as usize..start as usize + chunk.len as usize);
        // A damaged blob is found by the first who reads it, and handed to nobody.
        if !manifest.verifies(index, &bytes) && inner.sabotage != Some(Sabotage::RotIsHandedOut) {
            inner.set_aside(blob);
            return Ok(None);
        }
        inner.bytes_read += bytes.len() as u64;
        Ok(Some(bytes))
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteBlobError<Infallible>> {
        self.begin_by(None, manifest)
    }

    async fn bases(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, Infallible> {
        let inner = self.lock();
        let referred = self.referred(&inner, peer);
        let neighbours = basis::neighbours(manifest, have).into_iter();
        let places: BTreeMap<_, _> = neighbours.filter_map(|chunk| Some((chunk, inner.index.find(chunk)?))).collect();
        let older = places.values().filter(|place| referred.contains_key(&place.blob));
        let older = older.filter_map(|place| Some((place.blob, inner.disk.whole.get(&place.blob)?.0.clone())));
        Ok(basis::bases(manifest, have, &places, &older.collect()))
    }

    async fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Bytes>, Infallible> {
        let inner = self.lock();
        let Some(place) = inner.index.find(chunk) else { return Ok(None) };
        if reader.is_some_and(|reader| !self.referred(&inner, reader).contains_key(&place.blob)) {
            return Ok(None);
        }
        let Some((manifest, bytes)) = inner.disk.whole.get(&place.blob) else { return Ok(None) };
        let Some((start, known)) = manifest.offset(place.index).zip(manifest.chunk(place.index)) else {
            return Ok(None);
        };
        let bytes = bytes.slice(start as usize..start as usize + known.len as usize);
        // Of a damaged one nothing is told; who reads it for its own sake finds out.
        Ok(Some(bytes).filter(|bytes| ChunkHash::of(bytes) == chunk))
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteBlobError<Infallible>> {
        if !manifest.verifies(index, &bytes) {
            return Err(WriteBlobError::Mismatch);
        }
        let mut inner = self.lock();
        if !inner.has_room() {
            return Err(WriteBlobError::Full);
        }
        let blob = manifest.blob();
        let Some((part, shares)) = inner.begun(blob)? else { return Ok(()) };
        if !shares.is_written(index) {
            part.file.write(manifest.offset(index).unwrap_or_default() as usize, &bytes);
            part.written.insert(index);
            shares.written(index);
        }
        Ok(())
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        let mut inner = self.lock();
        // The data may be in place; there is no room for the bits that say so.
        if inner.full {
            return Err(WriteBlobError::Full);
        }
        inner.make_durable(manifest.blob())
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Infallible>> {
        let mut inner = self.lock();
        let blob = manifest.blob();
        if inner.full {
            return Err(WriteBlobError::Full);
        }
        inner.make_durable(blob)?;
        let is_complete = match inner.begun(blob)? {
            Some((part, _)) => part.have.is_complete(),
            None => true,
        };
        inner.claims.remove(&blob);
        let Some(part) = inner.disk.parts.remove(&blob).filter(|_| is_complete) else {
            return if is_complete { Ok(()) } else { Err(WriteBlobError::Gone) };
        };
        let bytes = part.file.read(0, manifest.size_bytes() as usize);
        if BlobHash::of(&bytes) != blob {
            return Err(WriteBlobError::Mismatch);
        }
        inner.publish(part.manifest, bytes.into());
        Ok(())
    }

    async fn release(&self, blob: BlobHash) {
        self.release_by(None, blob);
    }
}
