//! A file behind a cache that loses power: what was written and not synced lands sector by sector, in part, or not at all.

use std::collections::BTreeMap;

use super::seeded::Seeded;

const SECTOR_BYTES: usize = 256;

/// One file.
#[derive(Clone, Debug)]
pub(super) struct SectorFile {
    pub(super) durable: Vec<u8>,
    pub(super) dirty: BTreeMap<usize, Vec<u8>>,
}

impl SectorFile {
    pub(super) fn new(len: usize) -> Self {
        Self { durable: vec![0; len], dirty: BTreeMap::new() }
    }

    pub(super) fn read(&self, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = self.durable[start..start + len].to_vec();
        for (&at, sector) in &self.dirty {
            for (offset, &byte) in (at..).zip(sector) {
                if (start..start + len).contains(&offset) {
                    bytes[offset - start] = byte;
                }
            }
        }
        bytes
    }

    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        let mut at = start - start % SECTOR_BYTES;
        while at < end {
            let sector_end = (at + SECTOR_BYTES).min(self.durable.len());
            let sector = self.dirty.entry(at).or_insert_with(|| self.durable[at..sector_end].to_vec());
            let (from, to) = (start.max(at), end.min(sector_end));
            sector[from - at..to - at].copy_from_slice(&bytes[from - start..to - start]);
            at += SECTOR_BYTES;
        }
    }

    pub(super) fn sync(&mut self) {
        for (at, sector) in std::mem::take(&mut self.dirty) {
            self.durable[at..at + sector.len()].copy_from_slice(&sector);
        }
    }

    pub(super) fn crash(&mut self, rng: &mut Seeded) {
        for (at, sector) in std::mem::take(&mut self.dirty) {
            let landed = match rng.below(3) {
                0 => 0,
                1 => sector.len(),
                _ => rng.below(sector.len() as u64) as usize,
            };
            self.durable[at..at + landed].copy_from_slice(&sector[..landed]);
        }
    }
}
