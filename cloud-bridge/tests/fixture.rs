//! What the tests run against, started once for all of them and gone with the process.

mod aws;
mod outage;
mod postgres;
mod process;

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use alexandria_sync::domain::{Media, Typed};
use alexandria_sync::hlc::{ClockQuality, HlcTime, Stamp};
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, RecordId};
use alexandria_sync::record::Record;
use alexandria_sync::store::Peer;

pub(crate) use aws::{Aws, parse_answer, request};
pub(crate) use outage::Outage;
pub(crate) use postgres::Database;

/// Nothing that a test waits for takes longer, unless it never comes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Says that the test running on this thread is skipped, and why.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // Past the capturing of the test runner, which hides what a passing test prints.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("ALEXANDRIA_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Waits until `look` sees what it looks for.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        // tidy-allow(sleep): this is the wait for a condition with a deadline.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) fn peer(number: u8) -> Peer {
    Peer { node: NodeId::from_bytes([number; 16]), epoch: Epoch(1) }
}

/// A stamp of a node, so many milliseconds after the present.
pub(crate) fn stamp(node: u8, after_ms: i64) -> Stamp {
    Stamp {
        time: HlcTime::from_unix_ms(now_ms().saturating_add_signed(after_ms)),
        node: NodeId::from_bytes([node; 16]),
        incarnation: Incarnation(1),
        quality: ClockQuality::Trusted,
    }
}

/// A medium with a title.
pub(crate) fn media(bucket: BucketId, id: RecordId, title: &str, stamp: Stamp) -> Record {
    Media { title: title.into(), languages: vec!["en".into(), "fr".into()], ..Media::default() }
        .to_record(bucket, id, stamp)
}

pub(crate) fn new_id() -> RecordId {
    RecordId::mint(now_ms(), rand::random())
}

pub(crate) fn a_collection() -> BucketId {
    BucketId::Collection(new_id())
}

/// Bytes that nothing compresses, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[3; 32]).update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
