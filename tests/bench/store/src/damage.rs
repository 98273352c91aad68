//! Damage: a store is copied, one thing is broken, and a process with a deadline tries to open and read it all.
//!
//! The one answer that must never come is "ok, but less, and nothing said".

use crate::engine::{self, Answer, Rows};
use crate::workload::{self, BATCH_RECORDS, Random};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RECORDS: u64 = 20_000;
const CACHE_BYTES: usize = 32 << 20;
const DEADLINE: Duration = Duration::from_secs(30);
const FLIPPED_BYTES: u64 = 16;
const PAGE_BYTES: u64 = 4096;
/// A file that is removed to give a store on a full disk room to recover in.
const BALLAST_BYTES: usize = 8 << 20;
/// Places at which the main file is flipped, one a run.
const FLIPS: u64 = 30;

/// Fills the store that is to be broken; closes it cleanly.
pub fn prepare(name: &str, dir: &Path) -> Answer<()> {
    let store = engine::open(name, dir, CACHE_BYTES)?;
    for first in (0..RECORDS).step_by(BATCH_RECORDS as usize) {
        let mut rows = Rows::new();
        for number in first..first + BATCH_RECORDS {
            workload::push_create(&mut rows, number, number, false);
        }
        store.commit(rows)?;
    }
    Ok(())
}

/// Opens a store, reads all of it, and says whether that is all, then whether it still takes a write.
pub fn inspect(name: &str, dir: &Path) -> Answer<()> {
    let store = engine::open(name, dir, CACHE_BYTES).map_err(|e| format!("open: {e}"))?;
    let (mut rows, mut wrong) = (0_u64, 0_u64);
    store
        .scan(b"", &mut |key, value| {
            rows += 1;
            if key.first() == Some(&b'r') {
                let number = value.get(..8).and_then(|b| b.try_into().ok()).map_or(u64::MAX, u64::from_be_bytes);
                let intact = number < RECORDS
                    && key == workload::record_key(number, false)
                    && value == workload::value(number, 0);
                wrong += u64::from(!intact);
            }
            true
        })
        .map_err(|e| format!("scan: {e}"))?;
    let mut row = Rows::new();
    workload::push_create(&mut row, RECORDS + 1, RECORDS + 1, false);
    let mut gone = Rows::new();
    workload::push_delete(&mut gone, RECORDS + 1, RECORDS + 1, false);
    // Taken back at once, so that a second inspection counts the same.
    let written = store.commit(row).and_then(|()| store.commit(gone));
    let write = written.map_or_else(|e| format!("refused ({e})"), |()| "taken".to_owned());
    let verdict = if rows == 3 * RECORDS && wrong == 0 { "whole" } else { "SILENTLY-LESS" };
    println!("{verdict} rows={rows} of {} wrong={wrong} write={write}", 3 * RECORDS);
    Ok(())
}

/// What is done to a file of the given length.
type Break = fn(&std::fs::File, u64) -> std::io::Result<()>;

pub fn all(name: &str, dir: &Path, seed: u64) -> Answer<()> {
    let pristine = dir.join("pristine");
    prepare(name, &pristine)?;
    println!("  untouched: {}", run_self(&["inspect", name, &copy(&pristine, dir)?.to_string_lossy()], DEADLINE));
    for file in damageable(&pristine) {
        let length = std::fs::metadata(pristine.join(&file)).map_err(|e| e.to_string())?.len();
        let ways: [(&str, Break); 6] = [
            ("cut to half", |f, len| f.set_len(len / 2)),
            ("last 1000 bytes gone", |f, len| f.set_len(len.saturating_sub(1000))),
            ("16 bytes flipped in the middle", |f, len| flip(f, len / 2)),
            ("4 KiB zeroed at a third", |f, len| {
                f.write_all_at(&vec![0; PAGE_BYTES.min(len) as usize], len / 3 / PAGE_BYTES * PAGE_BYTES)
            }),
            ("emptied", |f, _| f.set_len(0)),
            ("16 bytes flipped at the start", |f, _| flip(f, 0)),
        ];
        for (way, damage) in ways {
            let victim = copy(&pristine, dir)?;
            damage_file(&victim.join(&file), |f| damage(f, length))?;
            let answer = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
            let again = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
            println!("  {} ({} KiB) {way}: {answer} | second open: {again}", file.display(), length / 1024);
        }
        let victim = copy(&pristine, dir)?;
        std::fs::remove_file(victim.join(&file)).map_err(|e| e.to_string())?;
        println!("  {} removed: {}", file.display(), run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE));
    }
    if let Some(file) = damageable(&pristine).first() {
        // Would the log alone, without its snapshot, have told more?
        let victim = copy(&pristine, dir)?;
        damage_file(&victim.join(file), |f| flip(f, f.metadata()?.len() / 2))?;
        for entry in std::fs::read_dir(&victim).map_err(|e| e.to_string())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                std::fs::remove_file(entry.path()).map_err(|e| e.to_string())?;
            }
        }
        let answer = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
        println!("  {} flipped in the middle, snap.* removed: {answer}", file.display());
        // What a power cut while opening, or a disk that filled up, leaves of sled 0.34's next snapshot.
        let victim = copy(&pristine, dir)?;
        let leftover = victim.join("snap.0000000004000000.generating");
        std::fs::write(&leftover, [0; 5000]).map_err(|e| e.to_string())?;
        let answer = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
        std::fs::remove_file(&leftover).map_err(|e| e.to_string())?;
        let again = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
        println!("  half a snap.*.generating left behind: {answer} | after its removal: {again}");
    }
    let mut random = Random(seed);
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    if let Some(file) = damageable(&pristine).first() {
        for _ in 0..FLIPS {
            let victim = copy(&pristine, dir)?;
            damage_file(&victim.join(file), |f| flip(f, random.below(f.metadata()?.len() - FLIPPED_BYTES)))?;
            let answer = run_self(&["inspect", name, &victim.to_string_lossy()], DEADLINE);
            let class: String = answer.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            *outcomes.entry(class).or_default() += 1;
        }
    }
    println!("  {FLIPS} random flips of the main file, seed={seed}: {outcomes:?}");
    Ok(())
}

/// A disk that fills up: writes until refused, then reads and deletes. Then `run` opens it once as full as it is,
/// and once after a file beside the store (`ballast`, written first) was removed.
pub fn full_disk(name: &str, dir: &Path) -> Answer<()> {
    std::fs::write(dir.join("ballast"), vec![0; BALLAST_BYTES]).map_err(|e| e.to_string())?;
    let store = engine::open(name, &dir.join("store"), CACHE_BYTES)?;
    let mut acknowledged = 0;
    let refused = loop {
        let mut rows = Rows::new();
        for number in acknowledged * BATCH_RECORDS..(acknowledged + 1) * BATCH_RECORDS {
            workload::push_create(&mut rows, number, number, false);
        }
        match store.commit(rows) {
            Ok(()) => acknowledged += 1,
            Err(reason) => break reason,
        }
    };
    println!("    refused after {acknowledged} batches: {refused}");
    println!("    read: {:?}", store.get(&workload::record_key(0, false)).map(|found| found.is_some()));
    let mut rows = Rows::new();
    workload::push_delete(&mut rows, 1, 1, false);
    println!("    delete: {:?}", store.commit(rows));
    drop(store);
    // Beside the full disk, which takes no more files.
    std::fs::write(dir.with_extension("acknowledged"), acknowledged.to_string()).map_err(|e| e.to_string())
}

/// Opens the store that met the full disk, and counts what was acknowledged on it.
pub fn after_full_disk(name: &str, dir: &Path) -> Answer<()> {
    let acknowledged: u64 =
        std::fs::read_to_string(dir.with_extension("acknowledged")).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let store = engine::open(name, &dir.join("store"), CACHE_BYTES).map_err(|e| format!("open: {e}"))?;
    let mut missing = 0_u64;
    for number in 2..acknowledged * BATCH_RECORDS {
        missing += u64::from(store.get(&workload::record_key(number, false))?.is_none());
    }
    let mut rows = Rows::new();
    workload::push_delete(&mut rows, 2, 2, false);
    println!("opened; acknowledged records missing={missing}; delete: {:?}", store.commit(rows));
    Ok(())
}

/// Runs this program again with a deadline, and says in one line how that ended.
pub fn run_self(args: &[&str], deadline: Duration) -> String {
    let spawned = std::env::current_exe()
        .and_then(|exe| Command::new(exe).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn());
    let Ok(mut child) = spawned else { return "could not start".to_owned() };
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < deadline => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return "HANG past the deadline".to_owned();
            }
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    let _ = child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out));
    let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut err));
    let said = out.lines().last().unwrap_or("").trim();
    let complaint: String = err.lines().filter(|l| !l.is_empty()).take(2).collect::<Vec<_>>().join(" / ");
    let complaint: String = complaint.chars().take(180).collect();
    match (status.code(), status.signal()) {
        (Some(0), _) => format!("ok {said}"),
        (Some(101), _) => format!("PANIC {complaint}"),
        (Some(_), _) => format!("error {complaint}"),
        (None, Some(6)) => format!("ABORT {complaint}"),
        (None, signal) => format!("SIGNAL {signal:?} {complaint}"),
    }
}

/// The files that hold data, the largest first; a sled 1.0 store has 78 slab files, most of them empty.
fn damageable(dir: &Path) -> Vec<PathBuf> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<(u64, PathBuf)>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                walk(root, &entry.path(), found);
            } else if meta.len() > 0
                && let Ok(relative) = entry.path().strip_prefix(root)
            {
                found.push((meta.len(), relative.to_path_buf()));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let mut slabs = 0;
    found.retain(|(_, path)| {
        slabs += usize::from(path.starts_with("slabs"));
        !path.starts_with("slabs") || slabs <= 1
    });
    found.into_iter().map(|(_, path)| path).take(4).collect()
}

fn flip(file: &std::fs::File, at: u64) -> std::io::Result<()> {
    let mut bytes = [0; FLIPPED_BYTES as usize];
    let got = file.read_at(&mut bytes, at)?;
    for byte in &mut bytes {
        *byte ^= 0xA5;
    }
    file.write_all_at(&bytes[..got], at)
}

fn damage_file(path: &Path, damage: impl FnOnce(&std::fs::File) -> std::io::Result<()>) -> Answer<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(|e| e.to_string())?;
    damage(&file).map_err(|e| e.to_string())
}

fn copy(pristine: &Path, dir: &Path) -> Answer<PathBuf> {
    let victim = dir.join("victim");
    let _ = std::fs::remove_dir_all(&victim);
    let copied = Command::new("cp").arg("-a").arg(pristine).arg(&victim).status().map_err(|e| e.to_string())?;
    if copied.success() { Ok(victim) } else { Err("cp failed".to_owned()) }
}
