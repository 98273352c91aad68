//! A chunk as its difference from chunks that the other end holds: one zstd frame (RFC 8878) whose dictionary, of raw content, is
//! the bytes of these, one after the other.
//!
//! Both ends verify the chunks that they use by their hashes, so they have the same bytes, and what comes out is verified by
//! its own. Neither making nor applying one takes more memory than its limits say, whatever is given.
//!
//! Not here: which chunks these are ([`basis`](super::basis)).

use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use super::basis::BASIS_BYTES_MAX;
use super::{CHUNK_BYTES_MAX, Chunk, ChunkHash};

/// The fastest finds what is the same as well as others do (docs/adr/0015-patches.md).
const LEVEL: i32 = 1;
/// A distance may reach from the end of the largest chunk to the start of the largest basis: 4 MiB.
const WINDOW_LOG: u32 = 22;
/// zstd looks through the last `8 << HASH_LOG` bytes of the basis only: all of the largest one.
const HASH_LOG: u32 = 19;
const _: () = assert!(BASIS_BYTES_MAX <= 8 << HASH_LOG);
const _: () = assert!(BASIS_BYTES_MAX + CHUNK_BYTES_MAX <= 1 << WINDOW_LOG);

/// Why a patch is not that of a chunk. Where the basis was sound, who sent it lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// Not a zstd frame, one that names what the basis does not have, or one of more bytes than the chunk.
    #[error("not a patch of {0} bytes")]
    Malformed(u32),
    /// What comes out is something else.
    #[error("a patch of another chunk")]
    Mismatch,
}

/// Makes the patch that turns `basis` into `chunk`; `None` if it would not be smaller than the chunk.
pub fn make(basis: &[u8], chunk: &[u8]) -> Option<Vec<u8>> {
    if basis.is_empty() || basis.len() > BASIS_BYTES_MAX as usize || chunk.len() > CHUNK_BYTES_MAX as usize {
        return None;
    }
    let mut context = CCtx::try_create()?;
    let parameters = [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::HashLog(HASH_LOG),
        // Both ends know the length, and without it the window is that of the basis, too.
        CParameter::ContentSizeFlag(false),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).ok()?;
    }
    context.ref_prefix(basis).ok()?;
    // What does not fit is not wanted.
    let mut patch = Vec::with_capacity(chunk.len().saturating_sub(1));
    context.compress2(&mut patch, chunk).ok()?;
    patch.shrink_to_fit();
    Some(patch)
}

/// Makes `chunk` from `basis` again, and takes no more memory than it says that it has.
///
/// # Errors
///
/// [`PatchError`] if what comes out is not the chunk.
pub fn apply(basis: &[u8], patch: &[u8], chunk: Chunk) -> Result<Vec<u8>, PatchError> {
    let malformed = PatchError::Malformed(chunk.len);
    let mut context = DCtx::try_create().ok_or(malformed)?;
    context.ref_prefix(basis).map_err(|_| malformed)?;
    let mut bytes = Vec::with_capacity(chunk.len.min(CHUNK_BYTES_MAX) as usize);
    context.decompress(&mut bytes, patch).map_err(|_| malformed)?;
    if bytes.len() == chunk.len as usize && ChunkHash::of(&bytes) == chunk.hash {
        Ok(bytes)
    } else {
        Err(PatchError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new_keyed(&[9; 32]).update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn named(bytes: &[u8]) -> Chunk {
        Chunk { len: bytes.len() as u32, hash: ChunkHash::of(bytes) }
    }

    /// What is done to bytes: at a place, so many are taken out and these put in.
    fn edited(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
        for (at, out, into) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + out).min(bytes.len());
            bytes.splice(at..end, into.iter().copied());
        }
        bytes.truncate(CHUNK_BYTES_MAX as usize);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever was edited and whatever basis is used, the chunk comes out, or there is no patch.
        #[test]
        fn every_edit_of_every_basis_arrives(
            len in 1usize..200_000,
            seed: u64,
            is_text: bool,
            edits in vec((any::<prop::sample::Index>(), 0usize..5_000, vec(any::<u8>(), 0..3_000)), 0..8),
            other_basis: bool,
        ) {
            let old = if is_text { b"to be or not to be, ".iter().copied().cycle().take(len).collect() } else { noise(len, seed) };
            let new = edited(old.clone(), &edits);
            prop_assume!(!new.is_empty());
            let basis = if other_basis { noise(len, !seed) } else { old };
            if let Some(patch) = make(&basis, &new) {
                prop_assert!(patch.len() < new.len());
                prop_assert_eq!(apply(&basis, &patch, named(&new)), Ok(new));
            }
        }

        /// Whatever is sent as a patch, it is refused or it is the chunk.
        #[test]
        fn made_up_patches_are_refused(patch in vec(any::<u8>(), 0..300), len in 1u32..1000, seed: u64) {
            let chunk = Chunk { len, hash: ChunkHash::of(b"never") };
            prop_assert!(apply(&noise(500, seed), &patch, chunk).is_err());
        }

        /// One flipped bit.
        #[test]
        fn a_patch_that_was_changed_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let basis = noise(10_000, 1);
            let mut new = basis.clone();
            new.splice(5_000..5_000, b"inserted".iter().copied());
            let mut patch = make(&basis, &new).expect("most of it is in the basis");
            *at.get_mut(&mut patch) ^= 1 << bit;
            if let Ok(bytes) = apply(&basis, &patch, named(&new)) {
                prop_assert_eq!(bytes, new);
            }
        }
    }

    /// A byte inserted into the largest chunk, whose basis is the largest, too, costs a few hundred bytes wherever it lies.
    #[test]
    fn the_largest_chunk_with_a_byte_inserted_costs_little() {
        let basis = noise(BASIS_BYTES_MAX as usize, 3);
        for from in [0, CHUNK_BYTES_MAX as usize / 2, CHUNK_BYTES_MAX as usize] {
            let mut new = basis[from..from + CHUNK_BYTES_MAX as usize - 1].to_vec();
            new.insert(new.len() / 2, b'!');
            let patch = make(&basis, &new).expect("most of it is in the basis");
            assert!(patch.len() < 600, "{} bytes from {from} on", patch.len());
            assert_eq!(apply(&basis, &patch, named(&new)), Ok(new));
        }
    }

    /// 64 MiB of zeros in a few kilobytes.
    #[test]
    fn a_patch_that_decompresses_past_its_chunk_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 3).unwrap();
        let chunk = named(&[0; 1000]);
        assert_eq!(apply(b"basis", &bomb, chunk), Err(PatchError::Malformed(1000)));
    }

    #[test]
    fn a_basis_over_its_limit_makes_no_patch() {
        let basis = noise(BASIS_BYTES_MAX as usize + 1, 3);
        assert_eq!(make(&basis, &basis[..1000]), None);
        assert_eq!(make(&[], b"anything"), None);
        assert_eq!(make(&basis[..5000], &noise(3000, 4)), None, "noise gets no smaller by other noise");
    }
}
