//! Stores in real folders, and things to put into them.

use alexandria_node::store::{Config, Store};
use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::hlc::{ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, RecordId};
use alexandria_sync::record::Record;
use alexandria_sync::store::Peer;
use tempfile::TempDir;

/// A folder on a real disk: fsync means nothing on tmpfs.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable")
}

pub(crate) fn config(dir: &TempDir) -> Config {
    Config { cache_bytes: 4 << 20, min_free_bytes: 1 << 20, ..Config::new(dir.path().join("data")) }
}

pub(crate) fn open(dir: &TempDir) -> Store {
    Store::open(&config(dir)).expect("the store opens")
}

pub(crate) fn peer(number: u8, epoch: u64) -> Peer {
    Peer { node: NodeId::from_bytes([number; 16]), epoch: Epoch(epoch) }
}

pub(crate) fn shelf() -> BucketId {
    BucketId::Collection(RecordId::from_bytes([0xc0; 16]))
}

pub(crate) fn id(number: u64) -> RecordId {
    RecordId::mint(1_700_000_000_000 + number, [7; 10])
}

pub(crate) fn media(title: &str) -> Media {
    Media { title: title.into(), ..Media::default() }
}

pub(crate) fn stamp(unix_ms: u64, node: u8) -> Stamp {
    Stamp {
        time: HlcTime::from_unix_ms(unix_ms),
        node: NodeId::from_bytes([node; 16]),
        incarnation: Incarnation(1),
        quality: ClockQuality::Estimated,
    }
}

pub(crate) fn media_record(number: u64, title: &str, stamp: Stamp) -> Record {
    media(title).to_record(shelf(), id(number), stamp)
}

/// Bytes that no compression and no accident repeats.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[9; 32]).update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
