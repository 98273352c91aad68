//! What of a new version is known here: chunks that older blobs hold, from which the changed ones can be told.
//!
//! Only whole blobs count, whose bytes are durable. What is read is verified, and a damaged or removed one is taken for
//! unknown: then a chunk goes, or comes, whole.
//!
//! Not here: chunks that are the same in both, which are copied ([`receive`](super::receive)).

use std::collections::BTreeMap;

use alexandria_sync::chunk::basis::{self, OLDER_BLOBS_MAX};
use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, Chunking, Have, Manifest};
use alexandria_sync::id::NodeId;

use super::receive::read_chunk;
use super::{BlobError, Blobs, failed, read_manifest};

impl Blobs {
    /// What the missing chunks of a blob may be told from, of what `peer` may have. Blocks.
    pub(super) fn bases_of(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, BlobError> {
        // Of one that is all new, or all here, nothing can be told.
        if manifest.chunking() != Chunking::ContentDefined || have.count() == 0 || have.is_complete() {
            return Ok(Bases::new());
        }
        let neighbours = basis::neighbours(manifest, have);
        let places: BTreeMap<_, _> = self.with_chunk_index(|known| {
            neighbours.into_iter().filter_map(|chunk| Some((chunk, known.find(chunk)?))).collect()
        })?;
        let mut older: BTreeMap<BlobHash, Manifest> = BTreeMap::new();
        for place in places.values() {
            if older.len() < OLDER_BLOBS_MAX
                && !older.contains_key(&place.blob)
                && self.may(peer, place.blob)?
                && let Some(manifest) = read_manifest(&self.inner.layout.manifest(place.blob), place.blob)
            {
                older.insert(place.blob, manifest);
            }
        }
        Ok(basis::bases(manifest, have, &places, &older))
    }

    /// A chunk of some whole blob, verified, which `reader` may have. Blocks.
    pub(super) fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(place) = self.with_chunk_index(|known| known.find(chunk))? else { return Ok(None) };
        if self.held(place.blob)?.is_none() || !reader.map_or(Ok(true), |reader| self.may(reader, place.blob))? {
            return Ok(None);
        }
        let layout = &self.inner.layout;
        let manifest = read_manifest(&layout.manifest(place.blob), place.blob);
        let lies = manifest.and_then(|manifest| manifest.offset(place.index).zip(manifest.chunk(place.index)));
        let Some((offset, known)) = lies else { return Ok(None) };
        let path = layout.blob(place.blob);
        let bytes = read_chunk(&path, offset, known.len).map_err(failed("read", &path))?;
        Ok(bytes.filter(|bytes| ChunkHash::of(bytes) == chunk))
    }
}
