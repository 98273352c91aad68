//! Rows side by side in blocks, each of which is one row of the engine's tree.
//!
//! The engine keeps about 150 bytes in memory for each page of its tree, and a page for every eight rows that arrive in order: more than
//! the rows themselves take, for rows as short as those of an index. So rows go into blocks of about [`BLOCK_BYTES`].
//!
//! - A block's name is its fence: no row in it, nor any that belongs into it, has a larger key. The last block of a tree is named [`LAST`].
//! - A row belongs into the block with the smallest fence that is not below its key. Looking it up is one step forward in the tree.
//! - Rows never move to a larger fence, so that whoever reads block after block while some are cut misses nothing.
//! - A value over [`INLINE_BYTES_MAX`] lies in pieces elsewhere; the block says how many there are, and what they come to.
//!
//! What earlier versions wrote reads as blocks of one row, whose fence is its key.

use std::collections::BTreeMap;

/// The fence of a tree's last block.
pub(super) const LAST: &[u8] = &[u8::MAX];
/// A block with more bytes is cut.
const BLOCK_BYTES: usize = 1024;
/// Longest value in a block.
pub(super) const INLINE_BYTES_MAX: usize = 768;

/// First byte of a row of earlier versions whose value follows whole.
const WHOLE: u8 = 0;
/// First byte of a row of earlier versions of whose value only the number of pieces follows.
const IN_PIECES: u8 = 1;
/// First byte of a block.
const BLOCK: u8 = 2;
/// Set in the length of a value that lies in pieces: the rest is their number.
const PIECES_FLAG: u16 = 0x8000;

/// A value as a block has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Held {
    /// The value.
    Here(Vec<u8>),
    /// It lies in pieces: how many, and the beginning of its hash, which earlier versions did not keep.
    InPieces(u16, Option<[u8; 8]>),
}

/// The rows of one block.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Block {
    pub(super) rows: BTreeMap<Vec<u8>, Held>,
}

impl Block {
    /// Reads a block; `None` if it does not have the form of one.
    pub(super) fn decode(fence: &[u8], stored: &[u8]) -> Option<Self> {
        let mut block = Self::default();
        match stored {
            [WHOLE, value @ ..] => drop(block.rows.insert(fence.to_vec(), Held::Here(value.to_vec()))),
            &[IN_PIECES, high, low] => {
                let count = u16::from_be_bytes([high, low]);
                block.rows.insert(fence.to_vec(), Held::InPieces(count, None));
            }
            [BLOCK, rows @ ..] => {
                let mut rest = rows;
                while !rest.is_empty() {
                    let (key, held, after) = read_row(rest)?;
                    if block.rows.last_key_value().is_some_and(|(before, _)| before.as_slice() >= key) {
                        return None;
                    }
                    block.rows.insert(key.to_vec(), held.to_held());
                    rest = after;
                }
            }
            _ => return None,
        }
        Some(block)
    }

    /// The value of one row, without reading all of them. `Err` if the block does not have the form of one.
    pub(super) fn find(fence: &[u8], stored: &[u8], key: &[u8]) -> Result<Option<Held>, Malformed> {
        let [BLOCK, rows @ ..] = stored else {
            return Ok(Self::decode(fence, stored).ok_or(Malformed)?.rows.remove(key));
        };
        let mut rest = rows;
        while !rest.is_empty() {
            let (found, held, after) = read_row(rest).ok_or(Malformed)?;
            if found == key {
                return Ok(Some(held.to_held()));
            }
            rest = after;
        }
        Ok(None)
    }

    /// Cuts the block, if it is too large, into blocks each with its fence, in order. `changed` is the largest key that was just
    /// written: rows that arrive in order follow it, so the cut comes after it, and what is before is left full.
    pub(super) fn cut(self, fence: Vec<u8>, changed: &[u8]) -> Vec<(Vec<u8>, Self)> {
        let mut cut = Vec::new();
        let mut last = Self::default();
        let mut size_bytes = 0;
        let is_large = self.size_bytes() > BLOCK_BYTES;
        let mut after_changed = false;
        for (key, held) in self.rows {
            let row_bytes = row_bytes(&key, &held);
            let full = size_bytes + row_bytes > BLOCK_BYTES || is_large && !after_changed && *key > *changed;
            after_changed |= *key > *changed;
            if full && let Some((end, _)) = last.rows.last_key_value() {
                cut.push((end.clone(), std::mem::take(&mut last)));
                size_bytes = 0;
            }
            size_bytes += row_bytes;
            last.rows.insert(key, held);
        }
        cut.push((fence, last));
        cut
    }

    /// The block as it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut stored = Vec::with_capacity(1 + self.size_bytes());
        stored.push(BLOCK);
        for (key, held) in &self.rows {
            stored.extend((key.len() as u16).to_be_bytes());
            stored.extend(key);
            match held {
                Held::Here(value) => {
                    stored.extend((value.len() as u16).to_be_bytes());
                    stored.extend(value);
                }
                Held::InPieces(count, hash) => {
                    stored.extend((PIECES_FLAG | count).to_be_bytes());
                    stored.push(u8::from(hash.is_some()));
                    stored.extend(hash.unwrap_or_default());
                }
            }
        }
        stored
    }

    fn size_bytes(&self) -> usize {
        self.rows.iter().map(|(key, held)| row_bytes(key, held)).sum()
    }
}

/// A block does not have the form of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// A value where it lies.
enum Lying<'b> {
    Here(&'b [u8]),
    InPieces(u16, Option<[u8; 8]>),
}

impl Lying<'_> {
    fn to_held(&self) -> Held {
        match self {
            Self::Here(value) => Held::Here(value.to_vec()),
            Self::InPieces(count, hash) => Held::InPieces(*count, *hash),
        }
    }
}

/// What a row takes in a block, in bytes.
fn row_bytes(key: &[u8], held: &Held) -> usize {
    let value_bytes = match held {
        Held::Here(value) => value.len(),
        Held::InPieces(..) => 9,
    };
    4 + key.len() + value_bytes
}

/// The first row of what is left of a block, and what follows it.
fn read_row(rows: &[u8]) -> Option<(&[u8], Lying<'_>, &[u8])> {
    let (len, rest) = rows.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = u16::from_be_bytes(*len);
    if len & PIECES_FLAG == 0 {
        let (value, rest) = rest.split_at_checked(len.into())?;
        return Some((key, Lying::Here(value), rest));
    }
    let (&[hashed], rest) = rest.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let hash = match hashed {
        0 => None,
        1 => Some(*hash),
        _ => return None,
    };
    Some((key, Lying::InPieces(len & !PIECES_FLAG, hash), rest))
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    fn held() -> impl Strategy<Value = Held> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..INLINE_BYTES_MAX).prop_map(Held::Here),
            (0u16..1000, any::<Option<[u8; 8]>>()).prop_map(|(count, hash)| Held::InPieces(count, hash)),
        ]
    }

    proptest! {
        /// However a block is cut, its rows are there once each, in blocks that they belong into, and each block reads back.
        #[test]
        fn cutting_and_writing_keep_every_row(
            rows in btree_map(proptest::collection::vec(1u8..250, 1..60), held(), 1..60),
            place: prop::sample::Index,
        ) {
            let changed = rows.keys().nth(place.index(rows.len())).unwrap().clone();
            let cut = Block { rows: rows.clone() }.cut(LAST.to_vec(), &changed);
            let mut below = Vec::new();
            let mut found = BTreeMap::new();
            for (fence, block) in &cut {
                prop_assert!(block.rows.keys().all(|key| *key > below && key <= fence));
                prop_assert!(block.size_bytes() <= BLOCK_BYTES || block.rows.len() == 1);
                let stored = block.encode();
                prop_assert_eq!(Block::decode(fence, &stored), Some(block.clone()));
                for (key, held) in &block.rows {
                    prop_assert_eq!(Block::find(fence, &stored, key), Ok(Some(held.clone())));
                }
                prop_assert_eq!(Block::find(fence, &stored, b"nowhere\0"), Ok(None));
                found.extend(block.rows.clone());
                below.clone_from(fence);
            }
            prop_assert_eq!(found, rows);
            prop_assert_eq!(cut.last().map(|(fence, _)| fence.as_slice()), Some(LAST));
        }

        /// What is no block is said to be none, and never more than that.
        #[test]
        fn any_bytes_are_read_or_refused(fence: Vec<u8>, stored: Vec<u8>) {
            if let Some(block) = Block::decode(&fence, &stored) {
                for (key, held) in block.rows {
                    prop_assert_eq!(Block::find(&fence, &stored, &key), Ok(Some(held)));
                }
            }
        }
    }
}
