//! sled 0.34.7, one tree, prefixes for tables.

use super::{Answer, Engine, Rows};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone)]
struct Sled034 {
    db: sled034::Db,
    /// sled's own log file, opened once more to be synced for real.
    log: Option<Arc<File>>,
}

pub fn open(dir: &Path, cache_bytes: usize, guards: bool) -> Answer<Box<dyn Engine>> {
    let config = sled034::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes as u64)
        .mode(sled034::Mode::LowSpace)
        .flush_every_ms(flush_every_ms());
    if !guards {
        let db = config.open().map_err(|e| e.to_string())?;
        return Ok(Box::new(Sled034 { db, log: None }));
    }
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    remove_snapshots(dir, ".generating").map_err(|e| e.to_string())?;
    let db = match config.open() {
        Err(sled034::Error::Corruption { .. }) => {
            remove_snapshots(dir, "").map_err(|e| e.to_string())?;
            config.open()
        }
        opened => opened,
    }
    .map_err(|e| e.to_string())?;
    let log = File::open(dir.join("db")).map_err(|e| e.to_string())?;
    Ok(Box::new(Sled034 { db, log: Some(Arc::new(log)) }))
}

/// sled takes whatever begins with `snap.` for a snapshot, one that it was killed while writing included.
fn remove_snapshots(dir: &Path, ending: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(ending) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The background flusher is also the only garbage collector, of pages in memory as of segments on disk.
const FLUSH_EVERY_MS: u64 = 50;

/// `SLED_FLUSH_MS=500` shows sled's own default, `SLED_FLUSH_MS=0` the store without a flusher.
fn flush_every_ms() -> Option<u64> {
    let asked = std::env::var("SLED_FLUSH_MS").ok().and_then(|ms| ms.parse().ok());
    Some(asked.unwrap_or(FLUSH_EVERY_MS)).filter(|ms| *ms > 0)
}

impl Engine for Sled034 {
    fn another(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }

    fn commit(&self, rows: Rows) -> Answer<()> {
        let mut batch = sled034::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|e| e.to_string())?;
        self.db.flush().map_err(|e| e.to_string())?;
        if let Some(log) = &self.log {
            log.sync_data().map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        self.db.get(key).map(|found| found.map(|value| value.to_vec())).map_err(|e| e.to_string())
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Answer<()> {
        for row in self.db.scan_prefix(prefix) {
            let (key, value) = row.map_err(|e| e.to_string())?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
