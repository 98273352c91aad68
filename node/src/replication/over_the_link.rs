//! The content store as the session with the bridge sees it: what comes from elsewhere is not wanted, nor is the rest of what it has begun
//! while a neighbour brings it.

use alexandria_sync::chunk::{Bases, BlobHash, ChunkHash, Claim, Have, Lot, Manifest};
use alexandria_sync::id::NodeId;
use alexandria_sync::store::{BlobStore, Wanted, WriteBlobError};
use bytes::Bytes;
use tokio::time::Instant;

use crate::library::nearby::Nearby;
use crate::store::BlobSession;

/// [`BlobSession`], but for what neighbours hold, bring, or are to fetch for all.
pub(super) struct OverTheLink {
    blobs: BlobSession,
    here: NodeId,
    nearby: Nearby,
    /// Somebody waits until everything is here, and does not care from where.
    is_asked_for: bool,
}

impl OverTheLink {
    pub(super) fn new(blobs: BlobSession, here: NodeId, nearby: Nearby, is_asked_for: bool) -> Self {
        nearby.begin();
        Self { blobs, here, nearby, is_asked_for }
    }

    fn of(&self, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
        if self.is_asked_for {
            return wanted;
        }
        wanted.retain(|wanted| !self.blobs.comes_from_elsewhere(wanted.blob));
        self.nearby.over_the_link(self.here, wanted, |blob| self.blobs.receives(blob), Instant::now())
    }
}

impl BlobStore for OverTheLink {
    type Error = <BlobSession as BlobStore>::Error;

    async fn urgent(&self, peer: NodeId) -> Result<Vec<Wanted>, Self::Error> {
        Ok(self.of(self.blobs.urgent(peer).await?))
    }

    async fn wanted(
        &self,
        peer: NodeId,
        mut after: Option<BlobHash>,
        limit: usize,
    ) -> Result<Vec<Wanted>, Self::Error> {
        let mut all = Vec::new();
        loop {
            let page = self.blobs.wanted(peer, after, limit).await?;
            let is_last = page.len() < limit;
            after = page.last().map(|wanted| wanted.blob).or(after);
            all.extend(self.of(page));
            // A short list says that there are no more; a long one may be cut off, and what is cut off comes next.
            if is_last || all.len() >= limit {
                all.truncate(limit);
                return Ok(all);
            }
        }
    }

    async fn manifest(&self, reader: NodeId, blob: BlobHash) -> Result<Option<Manifest>, Self::Error> {
        self.blobs.manifest(reader, blob).await
    }

    async fn read(&self, manifest: &Manifest, index: u32) -> Result<Option<Bytes>, Self::Error> {
        self.blobs.read(manifest, index).await
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Have, WriteBlobError<Self::Error>> {
        self.blobs.begin(manifest).await
    }

    async fn claim(&self, manifest: &Manifest, claim: Claim) -> Result<Lot, WriteBlobError<Self::Error>> {
        if self.is_asked_for || !self.blobs.comes_from_elsewhere(manifest.blob()) {
            return self.blobs.claim(manifest, claim).await;
        }
        match self.blobs.claim(manifest, Claim { bytes_max: 0, ..claim }).await? {
            Lot::Chunks(_) | Lot::Shared(_) => Ok(Lot::Elsewhere),
            lot => Ok(lot),
        }
    }

    async fn bases(&self, peer: NodeId, manifest: &Manifest, have: &Have) -> Result<Bases, Self::Error> {
        self.blobs.bases(peer, manifest, have).await
    }

    async fn known_chunk(&self, reader: Option<NodeId>, chunk: ChunkHash) -> Result<Option<Bytes>, Self::Error> {
        self.blobs.known_chunk(reader, chunk).await
    }

    async fn write(&self, manifest: &Manifest, index: u32, bytes: Bytes) -> Result<(), WriteBlobError<Self::Error>> {
        self.blobs.write(manifest, index, bytes).await
    }

    async fn sync(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Self::Error>> {
        self.blobs.sync(manifest).await
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), WriteBlobError<Self::Error>> {
        self.blobs.finish(manifest).await
    }

    async fn release(&self, blob: BlobHash) {
        self.blobs.release(blob).await;
    }
}

#[cfg(test)]
mod tests {
    use alexandria_sync::chunk::{Chunk, Chunking};

    use super::*;
    use crate::store::{Config, Store};

    #[tokio::test]
    async fn what_a_neighbour_brings_is_not_claimed_over_the_link_unless_everything_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Config { min_free_bytes: 0, ..Config::new(dir.path().join("data")) }).unwrap();
        let chunks = (1u8..=6).map(|len| Chunk { len: len.into(), hash: ChunkHash::of(&[len]) }).collect();
        let manifest = Manifest::new(BlobHash::of(b"film"), Chunking::Fixed, chunks).unwrap();
        let here = NodeId::from_bytes([1; 16]);
        let link = |is_asked_for| OverTheLink::new(store.blobs.session(), here, Nearby::default(), is_asked_for);
        let one = || Claim { from: 0, bytes_max: 1, returned: Vec::new() };
        let (usual, asked_for) = (link(false), link(true));
        usual.begin(&manifest).await.unwrap();
        assert_eq!(usual.claim(&manifest, one()).await.unwrap(), Lot::Chunks(vec![0]));

        let neighbour = store.blobs.session();
        neighbour.begin(&manifest).await.unwrap();
        let returned = Claim { returned: vec![0], ..one() };
        assert_eq!(usual.claim(&manifest, returned).await.unwrap(), Lot::Elsewhere);
        assert_eq!(neighbour.claim(&manifest, one()).await.unwrap(), Lot::Shared(vec![0]), "it was given back");
        asked_for.begin(&manifest).await.unwrap();
        assert_eq!(asked_for.claim(&manifest, one()).await.unwrap(), Lot::Shared(vec![1]));

        drop((neighbour, asked_for));
        assert_eq!(usual.claim(&manifest, one()).await.unwrap(), Lot::Chunks(vec![0]), "it has gone");
    }
}
