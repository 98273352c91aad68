//! Patches of chunks that a peer sends.

use alexandria_sync::chunk::basis::BASIS_BYTES_MAX;
use alexandria_sync::chunk::{CHUNK_BYTES_MAX, Chunk, ChunkHash, patch};

/// A basis, preceded by its length, a chunk's length, and a patch: what comes out is the chunk, or it is refused. The same bytes
/// as a chunk come back from their own patch.
pub fn patch(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((len, rest)) = rest.split_first_chunk::<3>() else { return };
    let (basis, patched) = rest.split_at(usize::from(u16::from_be_bytes(*head)).min(rest.len()));
    let len = u32::from_be_bytes([0, len[0], len[1], len[2]]).min(CHUNK_BYTES_MAX);
    // Nobody finds what has this hash: whatever comes out is something else.
    assert!(patch::apply(basis, patched, Chunk { len, hash: ChunkHash::of(b"never") }).is_err());
    assert!(basis.len() <= BASIS_BYTES_MAX as usize);
    if let Some(made) = patch::make(basis, patched) {
        assert!(made.len() < patched.len());
        let chunk = Chunk { len: patched.len() as u32, hash: ChunkHash::of(patched) };
        assert_eq!(patch::apply(basis, &made, chunk).as_deref(), Ok(patched));
    }
}
