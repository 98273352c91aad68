//! What is written: the node's three rows of a record, as the record store lays them out in one tree.
//!
//! - `r | bucket(17) | kind(2) | id(16 + tail)`: the record itself, about 300 bytes;
//! - `f | bucket(17) | seq(8)`: the one feed row of the record, moved to the end at each update;
//! - `i | id(16)`: where the record lives.
//!
//! Everything is a function of the record's number and generation, so that a checker needs no second copy.

use crate::engine::Rows;

pub const BATCH_RECORDS: u64 = 500;
const BUCKETS: u64 = 8;
/// Opaque tail of a value, as hashes and stamps are: does not compress.
const OPAQUE_BYTES: usize = 100;
/// Text of a value, as titles and names are: compresses.
const TEXT_BYTES: usize = 200;
const WORDS: [&str; 16] = [
    "water", "village", "medicine", "teacher", "history", "library", "language", "season", "farming", "letter",
    "children", "science", "journey", "music", "bridge", "harbour",
];

/// The `SplitMix64` generator: small, seedable, good enough to spread bytes.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// UUIDv7-like: milliseconds first, then randomness. `scattered` hashes the time away, to show what that costs.
fn id(number: u64, scattered: bool) -> [u8; 16] {
    let mut random = Random(number ^ 0xA1E8_0000);
    let mut id = [0; 16];
    let time = if scattered { random.next() } else { (1_780_000_000_000 + number / 3) << 16 | ((number % 3) << 14) };
    id[..8].copy_from_slice(&time.to_be_bytes());
    id[8..].copy_from_slice(&random.next().to_be_bytes());
    id
}

fn bucket(number: u64) -> [u8; 17] {
    let mut bucket = [0x42; 17];
    bucket[16] = (number / BATCH_RECORDS % BUCKETS) as u8;
    bucket
}

/// The 45-byte key of a record: tag, bucket, kind, id, padded with the kind's sub-key.
pub fn record_key(number: u64, scattered: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(45);
    key.push(b'r');
    key.extend_from_slice(&bucket(number));
    key.extend_from_slice(&[0, 3]);
    key.extend_from_slice(&id(number, scattered));
    key.resize(45, 0);
    key
}

pub fn feed_key(number: u64, seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(26);
    key.push(b'f');
    key.extend_from_slice(&bucket(number));
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

pub fn index_key(number: u64, scattered: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(b'i');
    key.extend_from_slice(&id(number, scattered));
    key
}

/// The value of record `number` in its `generation`: the same bytes each time it is asked for.
pub fn value(number: u64, generation: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(31).wrapping_add(generation));
    let mut value = Vec::with_capacity(16 + TEXT_BYTES + 16 + OPAQUE_BYTES);
    value.extend_from_slice(&number.to_be_bytes());
    value.extend_from_slice(&generation.to_be_bytes());
    while value.len() < TEXT_BYTES {
        value.extend_from_slice(WORDS[random.below(WORDS.len() as u64) as usize].as_bytes());
        value.push(b' ');
    }
    while value.len() < TEXT_BYTES + OPAQUE_BYTES {
        value.extend_from_slice(&random.next().to_be_bytes());
    }
    value
}

/// Adds the rows of a record that is new.
pub fn push_create(rows: &mut Rows, number: u64, seq: u64, scattered: bool) {
    let key = record_key(number, scattered);
    rows.push((feed_key(number, seq), Some(key[18..].to_vec())));
    rows.push((index_key(number, scattered), Some(key[1..20].to_vec())));
    rows.push((key, Some(value(number, 0))));
}

/// Adds the rows of an update, which moves the feed row from `seq_before` to `seq`.
pub fn push_update(rows: &mut Rows, number: u64, generation: u64, seq_before: u64, seq: u64, scattered: bool) {
    let key = record_key(number, scattered);
    rows.push((feed_key(number, seq_before), None));
    rows.push((feed_key(number, seq), Some(key[18..].to_vec())));
    rows.push((key, Some(value(number, generation))));
}

/// Adds the deletion of all that a record left.
pub fn push_delete(rows: &mut Rows, number: u64, seq: u64, scattered: bool) {
    rows.push((record_key(number, scattered), None));
    rows.push((feed_key(number, seq), None));
    rows.push((index_key(number, scattered), None));
}
