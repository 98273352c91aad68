//! How a blob is cut into the parts of a multipart upload, and how the parts' hashes make the blob's.
//!
//! A part is a power of two long, so it is a whole subtree of BLAKE3's tree (BLAKE3 specification, section 2.1). Its
//! chaining value is computed while its bytes pass through; all of them together give the blob's hash without reading
//! anything back from S3.

use alexandria_sync::chunk::BlobHash;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a part, unless the blob is so large that it would have too many. S3 wants at least 5 MiB.
pub(super) const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Parts of one upload, at most: a limit of S3.
const PARTS_MAX: u64 = 10_000;

/// The parts of one blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Parts {
    size_bytes: u64,
    part_bytes: u64,
}

impl Parts {
    /// The parts of a blob of `size_bytes`.
    pub(super) fn of(size_bytes: u64) -> Self {
        let mut part_bytes = PART_BYTES;
        while size_bytes.div_ceil(part_bytes) > PARTS_MAX {
            part_bytes *= 2;
        }
        Self { size_bytes, part_bytes }
    }

    /// How many there are: at least one, which is empty for an empty blob.
    pub(super) fn count(self) -> u32 {
        self.size_bytes.div_ceil(self.part_bytes).max(1) as u32
    }

    /// Bytes of each but the last.
    pub(super) fn part_bytes(self) -> u64 {
        self.part_bytes
    }

    /// The part in which byte `at` lies.
    pub(super) fn index_of(self, at: u64) -> u32 {
        (at / self.part_bytes) as u32
    }

    /// The bytes `start..end` of a part.
    pub(super) fn range(self, part: u32) -> (u64, u64) {
        let start = u64::from(part) * self.part_bytes;
        (start, (start + self.part_bytes).min(self.size_bytes))
    }

    /// The chaining value of a part of a blob of several parts.
    pub(super) fn chaining_value(self, part: u32, bytes: &[u8]) -> ChainingValue {
        blake3::Hasher::new().set_input_offset(u64::from(part) * self.part_bytes).update(bytes).finalize_non_root()
    }

    /// The blob's hash, from the chaining values of all its parts, of which there are several.
    pub(super) fn root(self, chaining_values: &[ChainingValue]) -> BlobHash {
        let (left, right) = self.children(chaining_values, self.size_bytes);
        merge_subtrees_root(&left, &right, Mode::Hash).into()
    }

    fn children(self, values: &[ChainingValue], len: u64) -> (ChainingValue, ChainingValue) {
        let left_len = left_subtree_len(len);
        let (left, right) = values.split_at((left_len / self.part_bytes) as usize);
        (self.subtree(left, left_len), self.subtree(right, len - left_len))
    }

    fn subtree(self, values: &[ChainingValue], len: u64) -> ChainingValue {
        if let [value] = values {
            return *value;
        }
        let (left, right) = self.children(values, len);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_hashes_make_the_hash_of_the_whole(len in 4097usize..200_000, seed: u8) {
            let bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(seed) ^ (at >> 8) as u8).collect();
            let parts = Parts { size_bytes: len as u64, part_bytes: 4096 };
            let values: Vec<_> = (0..parts.count())
                .map(|part| {
                    let (start, end) = parts.range(part);
                    parts.chaining_value(part, &bytes[start as usize..end as usize])
                })
                .collect();
            prop_assert_eq!(parts.root(&values), BlobHash::of(&bytes));
        }
    }

    #[test]
    fn the_largest_blob_fits_the_parts_that_s3_allows() {
        let largest = alexandria_sync::chunk::manifest::CHUNKS_MAX as u64 * 1024 * 1024;
        let parts = Parts::of(largest);
        assert!(u64::from(parts.count()) <= PARTS_MAX);
        assert!(parts.part_bytes().is_power_of_two());
        assert_eq!(parts.range(parts.count() - 1).1, largest);
        assert_eq!(Parts::of(0).count(), 1);
    }
}
