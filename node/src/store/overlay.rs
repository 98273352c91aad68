//! Rows that are about to be written, over the rows that are stored: what one group of operations sees.
//!
//! Two layers: what the operation at hand wrote, which can be taken back, and what earlier ones of the group wrote.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::engine::{Direction, Engine, EngineError, Row, end_of_prefix};

type Layer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Pending rows over an engine.
pub(crate) struct Overlay<'e> {
    engine: &'e Engine,
    group: Layer,
    operation: Layer,
    size_bytes: usize,
}

impl<'e> Overlay<'e> {
    pub(crate) fn new(engine: &'e Engine) -> Self {
        Self { engine, group: Layer::new(), operation: Layer::new(), size_bytes: 0 }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self.operation.get(key).or_else(|| self.group.get(key)) {
            Some(pending) => Ok(pending.clone()),
            None => self.engine.get(key),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, EngineError> {
        match self.operation.get(key).or_else(|| self.group.get(key)) {
            Some(pending) => Ok(pending.is_some()),
            None => self.engine.contains(key),
        }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.operation.insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.operation.insert(key, None);
    }

    /// The rows whose keys start with `prefix`, in order. Only for prefixes that few rows share.
    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> Result<Vec<Row>, EngineError> {
        let mut rows = BTreeMap::new();
        for row in self.engine.scan_prefix(prefix) {
            let (key, value) = row?;
            rows.insert(key, Some(value));
        }
        for layer in [&self.group, &self.operation] {
            rows.extend(in_prefix(layer, prefix).map(|(key, value)| (key.clone(), value.clone())));
        }
        Ok(rows.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect())
    }

    /// At most `limit` stored rows under `prefix` after `after`, as far as no pending row replaces them.
    pub(crate) fn stored_after(&self, after: Vec<u8>, prefix: &[u8], limit: usize) -> Result<Vec<Row>, EngineError> {
        let scan = self.engine.scan(Bound::Excluded(after), end_of_prefix(prefix), Direction::Ascending);
        let unchanged = |key: &[u8]| !self.operation.contains_key(key) && !self.group.contains_key(key);
        scan.filter(|row| row.as_ref().map_or(true, |(key, _)| unchanged(key))).take(limit).collect()
    }

    /// What is stored, without what is pending.
    pub(crate) fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// A key that starts with `prefix`, if there is any.
    pub(crate) fn any_with_prefix(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let pending = |key: &[u8]| self.operation.get(key).or_else(|| self.group.get(key));
        let in_layers = [&self.operation, &self.group]
            .into_iter()
            .flat_map(|layer| in_prefix(layer, prefix))
            .find(|(key, _)| pending(key).is_some_and(Option::is_some));
        if let Some((key, _)) = in_layers {
            return Ok(Some(key.clone()));
        }
        for row in self.engine.scan_prefix(prefix) {
            let (key, _) = row?;
            if pending(&key).is_none() {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Keeps what the operation at hand wrote.
    pub(crate) fn keep(&mut self) {
        let written = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        self.size_bytes += self.operation.iter().map(written).sum::<usize>();
        self.group.append(&mut self.operation);
    }

    /// Takes back what the operation at hand wrote.
    pub(crate) fn take_back(&mut self) {
        self.operation.clear();
    }

    /// Whether nothing was kept so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// Bytes of all rows kept so far.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The rows kept, to be applied as one batch.
    pub(crate) fn into_rows(self) -> Layer {
        self.group
    }
}

fn in_prefix<'l>(
    layer: &'l Layer,
    prefix: &'l [u8],
) -> impl Iterator<Item = (&'l Vec<u8>, &'l Option<Vec<u8>>)> + use<'l> {
    layer.range(prefix.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_operations_see_earlier_ones_and_what_is_taken_back_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(&dir.path().join("records"), 1 << 20).unwrap();
        engine.apply([(b"ta".to_vec(), Some(vec![1])), (b"tb".to_vec(), Some(vec![2]))]).unwrap();
        let mut rows = Overlay::new(&engine);
        rows.put(b"tc".to_vec(), vec![3]);
        rows.remove(b"ta".to_vec());
        rows.keep();
        rows.put(b"td".to_vec(), vec![4]);
        rows.remove(b"tc".to_vec());
        let keys = |rows: &Overlay<'_>| -> Vec<Vec<u8>> {
            rows.with_prefix(b"t").unwrap().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&rows), [b"tb", b"td"]);
        rows.take_back();
        assert_eq!(keys(&rows), [b"tb", b"tc"]);
        assert_eq!(rows.any_with_prefix(b"ta").unwrap(), None);
        assert_eq!(rows.any_with_prefix(b"tb").unwrap(), Some(b"tb".to_vec()));
        assert_eq!(rows.get(b"tc").unwrap(), Some(vec![3]));
    }
}
