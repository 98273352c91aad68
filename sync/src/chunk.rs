//! Content: immutable blobs named by their BLAKE3 hash, cut into chunks that are verified one by one.
//!
//! - [`hash`]: the names of blobs and chunks.
//! - [`chunker`]: where a blob is cut, by its kind.
//! - [`manifest`]: the chunks of one blob, in order.
//! - [`have`]: which chunks of a blob are durable here.
//! - [`index`]: which blob already holds a chunk, so that a new version costs its difference.
//! - [`shares`]: who brings which chunk, where several sessions receive one blob.
//! - [`basis`], [`patch`]: what of a chunk that has changed is new.

pub mod basis;
pub mod chunker;
pub mod hash;
pub mod have;
pub mod index;
pub mod manifest;
pub mod patch;
pub mod shares;

pub use basis::Bases;
pub use chunker::{Chunker, Chunking};
pub use hash::{BlobHash, ChunkHash};
pub use have::Have;
pub use index::{ChunkIndex, ChunkPlace};
pub use manifest::{Chunk, Manifest, ManifestError};
pub use shares::{Claim, Lot, Shares};

/// Bytes of one chunk, at most.
pub const CHUNK_BYTES_MAX: u32 = 1024 * 1024;
