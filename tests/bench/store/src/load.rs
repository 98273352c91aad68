//! Size and speed: filling, updating, deleting, reopening, rewriting. Each scenario is a process of its own,
//! so that its resident set is its own.

use crate::engine::{self, Answer, Rows};
use crate::workload::{self, BATCH_RECORDS};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a store may settle (garbage collection runs behind writes) before its disk is measured.
const SETTLE: Duration = Duration::from_secs(4);
/// One record in this many survives the great deletion.
const SURVIVOR_OF: u64 = 10;
const SINGLE_WRITES: u64 = 400;

pub fn fill(name: &str, dir: &Path, records: u64, cache_bytes: usize, scattered: bool) -> Answer<()> {
    let store = engine::open(name, dir, cache_bytes)?;
    let started = Instant::now();
    for first in (0..records).step_by(BATCH_RECORDS as usize) {
        let mut rows = Rows::new();
        for number in first..(first + BATCH_RECORDS).min(records) {
            workload::push_create(&mut rows, number, number, scattered);
        }
        store.commit(rows)?;
    }
    let took = started.elapsed();
    std::thread::sleep(SETTLE);
    println!(
        "fill={:.1}s peak_rss={} steady_rss={} disk={}",
        took.as_secs_f64(),
        mib(memory_kib("VmHWM") * 1024),
        mib(memory_kib("VmRSS") * 1024),
        mib(disk_bytes(dir))
    );
    Ok(())
}

/// Updates every record once, then deletes nine of ten.
pub fn churn(name: &str, dir: &Path, records: u64, cache_bytes: usize) -> Answer<()> {
    let store = engine::open(name, dir, cache_bytes)?;
    let started = Instant::now();
    for first in (0..records).step_by(BATCH_RECORDS as usize) {
        let mut rows = Rows::new();
        for number in first..(first + BATCH_RECORDS).min(records) {
            workload::push_update(&mut rows, number, 1, number, records + number, false);
        }
        store.commit(rows)?;
    }
    let updated = started.elapsed();
    std::thread::sleep(SETTLE);
    let (disk_updated, rss_updated) = (disk_bytes(dir), memory_kib("VmRSS") * 1024);
    let started = Instant::now();
    for first in (0..records).step_by(BATCH_RECORDS as usize) {
        let mut rows = Rows::new();
        for number in (first..(first + BATCH_RECORDS).min(records)).filter(|n| n % SURVIVOR_OF != 0) {
            workload::push_delete(&mut rows, number, records + number, false);
        }
        store.commit(rows)?;
    }
    let deleted = started.elapsed();
    std::thread::sleep(SETTLE);
    println!(
        "update={:.1}s disk_updated={} rss_updated={} delete={:.1}s disk_deleted={} peak_rss={} steady_rss={}",
        updated.as_secs_f64(),
        mib(disk_updated),
        mib(rss_updated),
        deleted.as_secs_f64(),
        mib(disk_bytes(dir)),
        mib(memory_kib("VmHWM") * 1024),
        mib(memory_kib("VmRSS") * 1024)
    );
    Ok(())
}

/// Opens, reads one row, then reads all.
pub fn reopen(name: &str, dir: &Path, cache_bytes: usize) -> Answer<()> {
    let started = Instant::now();
    let store = engine::open(name, dir, cache_bytes)?;
    store.get(&workload::record_key(0, false))?;
    let opened = started.elapsed();
    let (open_rss, open_peak) = (memory_kib("VmRSS") * 1024, memory_kib("VmHWM") * 1024);
    let started = Instant::now();
    let mut rows = 0_u64;
    store.scan(b"", &mut |_, _| {
        rows += 1;
        true
    })?;
    println!(
        "open={:.2}s open_peak_rss={} open_rss={} scan={:.1}s rows={rows} scan_peak_rss={} disk={}",
        opened.as_secs_f64(),
        mib(open_peak),
        mib(open_rss),
        started.elapsed().as_secs_f64(),
        mib(memory_kib("VmHWM") * 1024),
        mib(disk_bytes(dir))
    );
    Ok(())
}

/// Streams a store into a fresh one: the only compaction that gives disk back for certain.
pub fn rewrite(name: &str, from: &Path, to: &Path, cache_bytes: usize) -> Answer<()> {
    let old = engine::open(name, from, cache_bytes)?;
    let new = engine::open(name, to, cache_bytes)?;
    let started = Instant::now();
    let mut rows = Rows::new();
    let mut failed = None;
    old.scan(b"", &mut |key, value| {
        rows.push((key.to_vec(), Some(value.to_vec())));
        if rows.len() as u64 >= 3 * BATCH_RECORDS {
            failed = new.commit(std::mem::take(&mut rows)).err();
        }
        failed.is_none()
    })?;
    if let Some(reason) = failed {
        return Err(reason);
    }
    new.commit(rows)?;
    let took = started.elapsed();
    drop(new);
    println!(
        "rewrite={:.1}s disk={} peak_rss={}",
        took.as_secs_f64(),
        mib(disk_bytes(to)),
        mib(memory_kib("VmHWM") * 1024)
    );
    Ok(())
}

/// Latency of one record written and flushed, on a store that holds `records` already.
pub fn single(name: &str, dir: &Path, records: u64, cache_bytes: usize) -> Answer<()> {
    let store = engine::open(name, dir, cache_bytes)?;
    let mut latencies: Vec<Duration> = Vec::new();
    for number in records..records + SINGLE_WRITES {
        let mut rows = Rows::new();
        // Far behind the feed numbers that `churn` will take.
        workload::push_create(&mut rows, number, 10 * number, false);
        let started = Instant::now();
        store.commit(rows)?;
        latencies.push(started.elapsed());
    }
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("single p50={:.2}ms p99={:.2}ms max={:.2}ms", at(50), at(99), at(100));
    Ok(())
}

/// Bytes that the files under `dir` occupy, not their lengths: both sleds punch and pre-extend.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn memory_kib(field: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with(field))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

fn mib(bytes: u64) -> String {
    format!("{}MiB", bytes / (1 << 20))
}
