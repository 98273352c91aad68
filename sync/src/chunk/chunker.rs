//! Where a blob is cut.
//!
//! Media that compresses to nothing and never changes by parts is cut every 1 MiB. What changes by parts (text,
//! archives, catalogue snapshots, software images) is cut where its content says so (FastCDC, Xia et al., USENIX ATC
//! 2016), so that a new version shares the chunks around a change. Why both: docs/adr/0002-chunking.md.

use minicbor::{Decode, Encode};

use super::{BlobHash, CHUNK_BYTES_MAX, Chunk, ChunkHash, Manifest, ManifestError};

/// Smallest content-defined chunk, in bytes (but for the last).
pub const CONTENT_DEFINED_MIN_BYTES: usize = 64 * 1024;
/// Mean content-defined chunk, in bytes.
pub const CONTENT_DEFINED_MEAN_BYTES: usize = 256 * 1024;

/// How a blob is cut.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum Chunking {
    /// Every 1 MiB.
    #[n(0)]
    Fixed,
    /// FastCDC, version 2020, 64 KiB / 256 KiB / 1 MiB.
    #[n(1)]
    ContentDefined,
}

impl Chunking {
    /// The chunking that suits content of this media type (RFC 6838).
    pub fn for_media_type(media_type: &str) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        // In an archive the parts are compressed one by one: those that did not change are there again, elsewhere.
        let by_parts = essence.starts_with("text/")
            || essence.ends_with("+zip")
            || matches!(
                essence,
                "application/json"
                    | "application/pdf"
                    | "application/xml"
                    | "application/x-cbz"
                    | "application/x-tar"
                    | "application/zip"
                    | "application/octet-stream"
                    | "application/vnd.alexandria.catalogue"
                    | "application/vnd.sqlite3"
            );
        if by_parts { Self::ContentDefined } else { Self::Fixed }
    }
}

/// Cuts and hashes one blob as its bytes stream through. Holds at most two chunks in memory.
pub struct Chunker {
    chunking: Chunking,
    whole: blake3::Hasher,
    pending: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl Chunker {
    /// Starts a blob.
    pub fn new(chunking: Chunking) -> Self {
        Self { chunking, whole: blake3::Hasher::new(), pending: Vec::new(), chunks: Vec::new() }
    }

    /// Takes the blob's next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let room = CHUNK_BYTES_MAX as usize - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            // A cut may depend on the bytes up to the largest chunk, so none is made before they are there.
            if self.pending.len() == CHUNK_BYTES_MAX as usize {
                self.cut_one();
            }
        }
    }

    /// Ends the blob.
    ///
    /// # Errors
    ///
    /// [`ManifestError::TooManyChunks`] if it is larger than a manifest may describe.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        while !self.pending.is_empty() {
            self.cut_one();
        }
        Manifest::new(BlobHash::from(self.whole.finalize()), self.chunking, self.chunks)
    }

    fn cut_one(&mut self) {
        let len = match self.chunking {
            Chunking::Fixed => self.pending.len(),
            Chunking::ContentDefined => content_defined_cut(&self.pending),
        };
        let chunk = &self.pending[..len];
        self.chunks.push(Chunk { len: len as u32, hash: ChunkHash::of(chunk) });
        self.pending.drain(..len);
    }
}

/// The length of the first content-defined chunk of `bytes`, which must hold a largest chunk or the end of the blob.
fn content_defined_cut(bytes: &[u8]) -> usize {
    let cdc = fastcdc::v2020::FastCDC::new(
        bytes,
        CONTENT_DEFINED_MIN_BYTES,
        CONTENT_DEFINED_MEAN_BYTES,
        CHUNK_BYTES_MAX as usize,
    );
    let (_, end) = cdc.cut(0, bytes.len());
    end.clamp(1, bytes.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new_keyed(&[7; 32]).update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn manifest(chunking: Chunking, bytes: &[u8], piece: usize) -> Manifest {
        let mut chunker = Chunker::new(chunking);
        bytes.chunks(piece).for_each(|piece| chunker.update(piece));
        chunker.finish().expect("small enough")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn cuts_do_not_depend_on_how_the_bytes_arrive(len in 0usize..3_000_000, piece in 1usize..200_000, seed: u64) {
            let bytes = noise(len, seed);
            for chunking in [Chunking::Fixed, Chunking::ContentDefined] {
                let whole = manifest(chunking, &bytes, len.max(1));
                prop_assert_eq!(&manifest(chunking, &bytes, piece), &whole);
                prop_assert_eq!(whole.size_bytes(), len as u64);
                prop_assert_eq!(whole.blob(), BlobHash::of(&bytes));
                for (index, chunk) in (0u32..).zip(whole.chunks()) {
                    let start = whole.offset(index).unwrap() as usize;
                    prop_assert!(whole.verifies(index, &bytes[start..start + chunk.len as usize]));
                }
                prop_assert_eq!(Manifest::from_bytes(&whole.to_bytes()).unwrap(), whole);
            }
        }
    }

    #[test]
    fn a_byte_inserted_into_a_text_changes_few_chunks() {
        let mut bytes = noise(8_000_000, 1);
        let before = manifest(Chunking::ContentDefined, &bytes, 65_536);
        bytes.insert(3_000_000, b'!');
        let after = manifest(Chunking::ContentDefined, &bytes, 65_536);
        let known: HashSet<_> = before.chunks().iter().map(|chunk| chunk.hash).collect();
        let new = after.chunks().iter().filter(|chunk| !known.contains(&chunk.hash)).count();
        assert!(new <= 3, "{new} of {} chunks are new", after.chunks().len());
    }
}
