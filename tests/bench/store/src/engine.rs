//! The candidates behind one narrow port, so that every scenario asks each of them for exactly the same thing.
//!
//! Not here: what is written (`workload`), and what is judged (`load`, `crash`, `damage`, `readers`).

mod redb;
mod sled034;
mod sled1;

use std::path::Path;

/// Rows of one atomic batch, in the order in which they are to be applied; `None` deletes.
pub type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What an engine answered, as text: the bench only reports it.
pub type Answer<T> = Result<T, String>;

/// One open store. Dropping it is a clean close.
pub trait Engine: Send {
    /// One more handle on the same store, for another thread: sled 1.0's `Db` is `Send`, but not `Sync`.
    fn another(&self) -> Box<dyn Engine>;

    /// Applies all rows or none, and returns when they are durable by the engine's own account.
    fn commit(&self, rows: Rows) -> Answer<()>;

    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>>;

    /// Visits the rows under `prefix` in key order; stops when `visit` answers false.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Answer<()>;
}

pub const NAMES: [&str; 5] = ["sled034", "sled034+guards", "sled1-1024", "sled1-128", "redb"];

/// Opens `name` at `dir` with a page cache of `cache_bytes`.
///
/// `sled034+guards` is sled 0.34.7 as the node would hold it: its log is synced after each flush, since sled itself
/// calls only `sync_file_range`, which empties no disk write cache; and a half-written or damaged snapshot, which
/// would keep the store from opening, is removed, since the log says the same. `sled1-N` is sled 1.0-alpha with a leaf fanout of N.
pub fn open(name: &str, dir: &Path, cache_bytes: usize) -> Answer<Box<dyn Engine>> {
    match name {
        "sled034" => sled034::open(dir, cache_bytes, false),
        "sled034+guards" => sled034::open(dir, cache_bytes, true),
        "sled1-1024" => sled1::open::<1024>(dir, cache_bytes, None),
        "sled1-128" => sled1::open::<128>(dir, cache_bytes, None),
        // With its background flusher, as the defaults have it: only the full-disk scenario asks for this one.
        "sled1-128-flusher" => sled1::open::<128>(dir, cache_bytes, Some(200)),
        "redb" => redb::open(dir, cache_bytes),
        other => Err(format!("no engine is called {other}")),
    }
}
