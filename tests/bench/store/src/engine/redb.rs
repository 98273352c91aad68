//! redb, the yardstick: not a candidate, since the engineering document names sled.

use super::{Answer, Engine, Rows};
use redb::{Database, ReadableDatabase, TableDefinition};
use std::path::Path;
use std::sync::Arc;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb(Arc<Database>);

pub fn open(dir: &Path, cache_bytes: usize) -> Answer<Box<dyn Engine>> {
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let db = Database::builder().set_cache_size(cache_bytes).create(dir.join("redb")).map_err(|e| e.to_string())?;
    Ok(Box::new(Redb(Arc::new(db))))
}

impl Redb {
    fn try_commit(&self, rows: Rows) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn try_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = match self.0.begin_read()?.open_table(ROWS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn try_scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), redb::Error> {
        let table = match self.0.begin_read()?.open_table(ROWS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            table => table?,
        };
        for row in table.range(prefix..)? {
            let (key, value) = row?;
            if !key.value().starts_with(prefix) || !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for Redb {
    fn another(&self) -> Box<dyn Engine> {
        Box::new(Redb(Arc::clone(&self.0)))
    }

    fn commit(&self, rows: Rows) -> Answer<()> {
        self.try_commit(rows).map_err(|e| e.to_string())
    }

    fn get(&self, key: &[u8]) -> Answer<Option<Vec<u8>>> {
        self.try_get(key).map_err(|e| e.to_string())
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Answer<()> {
        self.try_scan(prefix, visit).map_err(|e| e.to_string())
    }
}
