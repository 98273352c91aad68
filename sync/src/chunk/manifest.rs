//! The manifest of a blob: its chunks in order, each with its length and hash.

use minicbor::{Decoder, Encode};

use super::{BlobHash, CHUNK_BYTES_MAX, ChunkHash, Chunking};

/// Chunks in one blob, at most: 256 GiB of 1 MiB chunks, a manifest of 10 MB.
pub const CHUNKS_MAX: usize = 256 * 1024;

/// One chunk of a blob.
#[derive(Clone, Copy, Debug, Encode, Eq, PartialEq)]
#[cbor(array)]
pub struct Chunk {
    /// Its length in bytes: 1 to [`CHUNK_BYTES_MAX`].
    #[n(0)]
    pub len: u32,
    /// Its hash.
    #[n(1)]
    pub hash: ChunkHash,
}

/// Where every chunk of one blob lies. Checked when it is made or read: offsets never overflow, lengths are in range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    blob: BlobHash,
    chunking: Chunking,
    chunks: Vec<Chunk>,
    /// Where each chunk starts, and the size of the blob at the end.
    offsets: Vec<u64>,
}

/// An entry of a chunk has at least this many bytes: an array of two, a length, a hash.
const CHUNK_ENTRY_BYTES_MIN: usize = 1 + 1 + 34;

#[derive(Encode)]
struct ManifestWire {
    #[n(0)]
    blob: BlobHash,
    #[n(1)]
    chunking: Chunking,
    #[n(2)]
    chunks: Vec<Chunk>,
}

/// Why something is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not CBOR, or not of the right form.
    #[error("malformed manifest: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// Over [`CHUNKS_MAX`].
    #[error("manifest of {0} chunks is over the limit of {CHUNKS_MAX}")]
    TooManyChunks(usize),
    /// Empty, or over [`CHUNK_BYTES_MAX`].
    #[error("chunk {index} of {len} bytes is not between 1 and {CHUNK_BYTES_MAX}")]
    ChunkLength {
        /// Which chunk.
        index: usize,
        /// The length that it claims, in bytes.
        len: u32,
    },
}

impl Manifest {
    /// The manifest of `blob`, cut into `chunks`. An empty blob has none.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if there are too many chunks or one has a length out of range.
    pub fn new(blob: BlobHash, chunking: Chunking, chunks: Vec<Chunk>) -> Result<Self, ManifestError> {
        if chunks.len() > CHUNKS_MAX {
            return Err(ManifestError::TooManyChunks(chunks.len()));
        }
        let mut offsets = Vec::with_capacity(chunks.len() + 1);
        let mut end = 0;
        offsets.push(end);
        for (index, chunk) in chunks.iter().enumerate() {
            if chunk.len == 0 || chunk.len > CHUNK_BYTES_MAX {
                return Err(ManifestError::ChunkLength { index, len: chunk.len });
            }
            end += u64::from(chunk.len);
            offsets.push(end);
        }
        Ok(Self { blob, chunking, chunks, offsets })
    }

    /// The blob that it describes.
    pub fn blob(&self) -> BlobHash {
        self.blob
    }

    /// How it was cut.
    pub fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// Its chunks, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Size of the whole blob, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.offsets[self.chunks.len()]
    }

    /// Where chunk `index` starts, in bytes; `None` past the last.
    pub fn offset(&self, index: u32) -> Option<u64> {
        let index = index as usize;
        (index < self.chunks.len()).then(|| self.offsets[index])
    }

    /// The chunk that holds the byte at `offset_bytes`; the first if there is none.
    pub fn chunk_at(&self, offset_bytes: u64) -> u32 {
        if offset_bytes >= self.size_bytes() {
            return 0;
        }
        (self.offsets.partition_point(|&start| start <= offset_bytes) - 1) as u32
    }

    /// The chunk at `index`; `None` past the last.
    pub fn chunk(&self, index: u32) -> Option<Chunk> {
        self.chunks.get(index as usize).copied()
    }

    /// Whether `bytes` are chunk `index`: its length and its hash.
    pub fn verifies(&self, index: u32, bytes: &[u8]) -> bool {
        self.chunk(index).is_some_and(|chunk| chunk.len as usize == bytes.len() && chunk.hash == ChunkHash::of(bytes))
    }

    /// Its bytes on disk and on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = ManifestWire { blob: self.blob, chunking: self.chunking, chunks: self.chunks.clone() };
        minicbor::to_vec(wire).expect("encoding to memory cannot fail")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`ManifestError`]; nothing is allocated from a count that `bytes` does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut d = Decoder::new(bytes);
        expect_array(&mut d, 3)?;
        let (blob, chunking) = (d.decode()?, d.decode()?);
        let count = d.array()?.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        if count > CHUNKS_MAX {
            return Err(ManifestError::TooManyChunks(count));
        }
        if count > (bytes.len() - d.position()) / CHUNK_ENTRY_BYTES_MIN {
            return Err(minicbor::decode::Error::end_of_input().into());
        }
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            expect_array(&mut d, 2)?;
            chunks.push(Chunk { len: d.decode()?, hash: d.decode()? });
        }
        if d.position() != bytes.len() {
            return Err(minicbor::decode::Error::message("bytes follow the manifest").at(d.position()).into());
        }
        Self::new(blob, chunking, chunks)
    }
}

fn expect_array(d: &mut Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    if d.array()? == Some(len) {
        Ok(())
    } else {
        Err(minicbor::decode::Error::message("array of unexpected length").at(d.position()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(chunks: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x83];
        bytes.extend(minicbor::to_vec(BlobHash::of(b"blob")).unwrap());
        bytes.push(0x00);
        bytes.extend(chunks);
        bytes
    }

    #[test]
    fn a_manifest_of_more_chunks_than_it_holds_or_may_hold_takes_no_memory_for_them() {
        let too_many = Manifest::from_bytes(&encoded(&[0x9a, 0x00, 0x04, 0x00, 0x01]));
        assert!(matches!(too_many, Err(ManifestError::TooManyChunks(262_145))), "{too_many:?}");
        let endless = Manifest::from_bytes(&encoded(&[0x9f]));
        assert!(matches!(endless, Err(ManifestError::TooManyChunks(_))), "{endless:?}");
        let cut = Manifest::from_bytes(&encoded(&[0x9a, 0x00, 0x04, 0x00, 0x00]));
        assert!(matches!(&cut, Err(ManifestError::Malformed(error)) if error.is_end_of_input()), "{cut:?}");
    }

    #[test]
    fn bytes_after_a_manifest_or_more_entries_in_it_are_refused() {
        let empty = encoded(&[0x80]);
        assert!(Manifest::from_bytes(&empty).is_ok());
        assert!(Manifest::from_bytes(&[&empty[..], &[0x00]].concat()).is_err());
        let mut longer = [&empty[..], &[0x00]].concat();
        longer[0] = 0x84;
        assert!(Manifest::from_bytes(&longer).is_err());
    }
}
