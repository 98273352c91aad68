//! sled 1.0.0-alpha.124, one tree, prefixes for tables.

use super::{Answer, Engine, Rows};
use std::path::Path;

struct Sled1<const FANOUT: usize>(sled1::Db<FANOUT>);

pub fn open<const FANOUT: usize>(
    dir: &Path,
    cache_bytes: usize,
    flush_every_ms: Option<usize>,
) -> Answer<Box<dyn Engine>> {
    sled1::Config::new()
        .path(dir)
        .cache_capacity_bytes(cache_bytes)
        .flush_every_ms(flush_every_ms)
        .open::<FANOUT>()
        .map(|db| Box::new(Sled1(db)) as Box<dyn Engine>)
        .map_err(|e| e.to_string())
}

impl<const FANOUT: usize> Engine for Sled1<FANOUT> {
    fn another(&self) -> Box<dyn Engine> {
        Box::new(Sled1(self.0.clone()))
    }

    fn commit(&self, rows: Rows) -> Answer<()> {
        let mut batch = sled1::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.0.apply_batch(batch).map_err(|e| e.to_string())?;
        self.0.flush().map(drop).map_err(|e| e.to_string())
    }

    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        self.0.get(key).map(|found| found.map(|value| value.to_vec())).map_err(|e| e.to_string())
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Answer<()> {
        for row in self.0.scan_prefix(prefix) {
            let (key, value) = row.map_err(|e| e.to_string())?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
