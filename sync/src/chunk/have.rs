//! Which chunks of one blob are durable here (invariant 11: a bit that says verified means verified bytes on disk).

/// One bit for each chunk of a blob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Have {
    bits: Vec<u8>,
    chunks: u32,
    set: u32,
}

impl Have {
    /// None of `chunks` chunks.
    pub fn none(chunks: u32) -> Self {
        Self { bits: vec![0; chunks.div_ceil(8) as usize], chunks, set: 0 }
    }

    /// Reads what [`Self::as_bytes`] gave for a blob of `chunks` chunks; `None` if the length is wrong.
    pub fn from_bytes(chunks: u32, bytes: &[u8]) -> Option<Self> {
        let mut have = Self::none(chunks);
        if bytes.len() != have.bits.len() {
            return None;
        }
        for index in 0..chunks {
            if bytes[(index / 8) as usize] >> (index % 8) & 1 == 1 {
                have.insert(index);
            }
        }
        Some(have)
    }

    /// The bits, lowest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Sets the bit of `index`; false if it was set already or lies past the end.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.chunks || self.contains(index) {
            return false;
        }
        self.bits[(index / 8) as usize] |= 1 << (index % 8);
        self.set += 1;
        true
    }

    /// Clears the bit of `index`; false if it was not set.
    pub fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.bits[(index / 8) as usize] &= !(1 << (index % 8));
        self.set -= 1;
        true
    }

    /// Whether chunk `index` is there.
    pub fn contains(&self, index: u32) -> bool {
        index < self.chunks && self.bits[(index / 8) as usize] >> (index % 8) & 1 == 1
    }

    /// How many chunks are there.
    pub fn count(&self) -> u32 {
        self.set
    }

    /// How many chunks the blob has.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Whether all are there.
    pub fn is_complete(&self) -> bool {
        self.set == self.chunks
    }

    /// The chunks that are not there, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.chunks).filter(|&index| !self.contains(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bitmap_reads_back_and_counts_what_is_set(chunks in 0u32..100, set in prop::collection::btree_set(0u32..100, 0..50)) {
            let mut have = Have::none(chunks);
            for &index in &set {
                prop_assert_eq!(have.insert(index), index < chunks);
            }
            let inside = set.iter().filter(|&&index| index < chunks).count() as u32;
            prop_assert_eq!(have.count(), inside);
            prop_assert_eq!(have.missing().count() as u32, chunks - inside);
            prop_assert_eq!(Have::from_bytes(chunks, have.as_bytes()), Some(have.clone()));
            for &index in &set {
                prop_assert_eq!(have.remove(index), index < chunks);
            }
            prop_assert_eq!(have, Have::none(chunks));
        }
    }
}
