//! Readers and scans beside a writer: is a batch seen whole, is a scan a snapshot, does anything stop?

use crate::engine::{self, Answer, Rows};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_secs(8);
const KEYS: u64 = 300;
const CACHE_BYTES: usize = 32 << 20;

fn key(table: u8, number: u64) -> Vec<u8> {
    let mut key = vec![table];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn generation(value: Option<Vec<u8>>) -> u64 {
    value.and_then(|value| value.get(..8).and_then(|b| b.try_into().ok())).map_or(0, u64::from_be_bytes)
}

/// One writer sets all keys of three tables to one generation in one batch; readers compare tables.
pub fn run(name: &str, dir: &Path) -> Answer<()> {
    let store = engine::open(name, dir, CACHE_BYTES)?;
    let (for_writer, for_reader, for_scanner) = (store.another(), store.another(), store.another());
    let stop = AtomicBool::new(false);
    let (torn, pairs, scans, mixed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let slowest_us = AtomicU64::new(0);
    let committed = AtomicU64::new(0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let (stop, committed, torn, pairs) = (&stop, &committed, &torn, &pairs);
        let (scans, mixed, slowest_us) = (&scans, &mixed, &slowest_us);
        let writer = scope.spawn(move || -> Answer<()> {
            while !stop.load(Ordering::Relaxed) {
                let number = committed.load(Ordering::Relaxed) + 1;
                let mut rows = Rows::new();
                for i in 0..KEYS {
                    for table in *b"abc" {
                        let mut value = number.to_be_bytes().to_vec();
                        value.resize(200, table);
                        rows.push((key(table, i), Some(value)));
                    }
                }
                for_writer.commit(rows)?;
                committed.store(number, Ordering::Relaxed);
            }
            Ok(())
        });
        let pair_reader = scope.spawn(move || -> Answer<()> {
            while !stop.load(Ordering::Relaxed) {
                for (first, second) in [(key(b'a', 0), key(b'c', KEYS - 1)), (key(b'c', KEYS - 1), key(b'a', 0))] {
                    let started = Instant::now();
                    let earlier = generation(for_reader.get(&first)?);
                    let later = generation(for_reader.get(&second)?);
                    slowest_us.fetch_max(started.elapsed().as_micros() as u64, Ordering::Relaxed);
                    pairs.fetch_add(1, Ordering::Relaxed);
                    torn.fetch_add(u64::from(later < earlier), Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let scanner = scope.spawn(move || -> Answer<()> {
            while !stop.load(Ordering::Relaxed) {
                let (mut least, mut most) = (u64::MAX, 0);
                for_scanner.scan(b"", &mut |_, value| {
                    let seen = generation(Some(value.to_vec()));
                    (least, most) = (least.min(seen), most.max(seen));
                    true
                })?;
                scans.fetch_add(1, Ordering::Relaxed);
                mixed.fetch_add(u64::from(most > least), Ordering::Relaxed);
            }
            Ok(())
        });
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        [("writer", writer), ("reader", pair_reader), ("scanner", scanner)]
            .into_iter()
            .filter_map(|(who, thread)| match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(reason)) => Some(format!("{who}: {reason}")),
                Err(_) => Some(format!("{who}: panicked")),
            })
            .collect()
    });
    println!(
        "batches={} pair_reads={} torn_batches_seen={} slowest_pair={}us scans={} scans_that_mixed={} failures={failures:?}",
        committed.into_inner(),
        pairs.into_inner(),
        torn.into_inner(),
        slowest_us.into_inner(),
        scans.into_inner(),
        mixed.into_inner()
    );
    Ok(())
}
