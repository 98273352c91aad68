//! `kill -9`, again and again, over one store that lives on.
//!
//! A writer process commits numbered batches and prints each number once it is durable; it is killed at a random
//! moment. The checker then demands exactly the state after batch `head`, where `head` is a row of every batch:
//! at least what was acknowledged, at most one batch more, each row of it, and not one row else.
//!
//! What this cannot show: a power cut. The page cache survives `kill -9`.

use crate::engine::{self, Answer, Rows};
use crate::workload::{self, Random};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// New records in each batch; as many updated and as many deleted.
const CREATED: u64 = 60;
/// A record is updated so many batches after it was created …
const UPDATED_AFTER: u64 = 3;
/// … and deleted so many after.
const DELETED_AFTER: u64 = 200;
/// Feed numbers that a batch takes.
const SEQS: u64 = 2 * CREATED;
const HEAD: &[u8] = b"head";
const CACHE_BYTES: usize = 32 << 20;
/// The writer is killed so long after its first acknowledgement, at most.
const KILL_WITHIN_MS: u64 = 250;
/// A store that takes longer to open is counted as hung.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

fn rows_of(batch: u64) -> Rows {
    let mut rows = Rows::new();
    for i in 0..CREATED {
        workload::push_create(&mut rows, batch * CREATED + i, batch * SEQS + i, false);
        if let Some(older) = batch.checked_sub(UPDATED_AFTER) {
            let number = older * CREATED + i;
            workload::push_update(&mut rows, number, 1, older * SEQS + i, batch * SEQS + CREATED + i, false);
        }
        if let Some(oldest) = batch.checked_sub(DELETED_AFTER) {
            let seq = (oldest + UPDATED_AFTER) * SEQS + CREATED + i;
            workload::push_delete(&mut rows, oldest * CREATED + i, seq, false);
        }
    }
    rows.push((HEAD.to_vec(), Some(batch.to_be_bytes().to_vec())));
    rows
}

fn head(store: &dyn engine::Engine) -> Answer<Option<u64>> {
    let bytes = store.get(HEAD)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
}

/// Writes until it is killed.
pub fn write_forever(name: &str, dir: &Path) -> Answer<()> {
    let store = engine::open(name, dir, CACHE_BYTES)?;
    let mut batch = head(store.as_ref())?.map_or(0, |head| head + 1);
    let mut out = std::io::stdout();
    loop {
        store.commit(rows_of(batch))?;
        writeln!(out, "{batch}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
        batch += 1;
    }
}

/// Compares the store with what it must hold; prints the head that it found.
pub fn check(name: &str, dir: &Path) -> Answer<()> {
    let started = Instant::now();
    let store = engine::open(name, dir, CACHE_BYTES)?;
    let head = head(store.as_ref())?;
    let open_ms = started.elapsed().as_millis();
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    if let Some(head) = head {
        for batch in head.saturating_sub(DELETED_AFTER + UPDATED_AFTER)..=head {
            for (key, value) in rows_of(batch) {
                match value {
                    Some(value) => drop(expected.insert(key, value)),
                    None => drop(expected.remove(&key)),
                }
            }
        }
        // Replaying starts in the middle: what was deleted before the window's end must not be expected.
        let oldest = (head + 1).saturating_sub(DELETED_AFTER);
        for number in (oldest.saturating_sub(UPDATED_AFTER + 1) * CREATED)..(oldest * CREATED) {
            let (batch, i) = (number / CREATED, number % CREATED);
            for key in [
                workload::record_key(number, false),
                workload::index_key(number, false),
                workload::feed_key(number, batch * SEQS + i),
                workload::feed_key(number, (batch + UPDATED_AFTER) * SEQS + CREATED + i),
            ] {
                expected.remove(&key);
            }
        }
    }
    let mut wrong = 0_u64;
    let mut surplus = 0_u64;
    store.scan(b"", &mut |key, value| {
        match expected.remove(key) {
            Some(wanted) if wanted == value => {}
            Some(_) => wrong += 1,
            None => surplus += 1,
        }
        true
    })?;
    let head = head.map_or_else(|| "none".to_owned(), |head| head.to_string());
    println!("head={head} missing={} wrong={wrong} surplus={surplus} open_ms={open_ms}", expected.len());
    Ok(())
}

/// What became of all rounds.
#[derive(Default)]
struct Tally {
    whole: u32,
    lost_acknowledged: u32,
    torn: u32,
    unopenable: u32,
    open_ms: Vec<u64>,
    acknowledged: u64,
}

/// Kills a writer `rounds` times; `in_open` kills it while it opens instead of while it writes.
pub fn rounds(name: &str, dir: &Path, rounds: u32, seed: u64, in_open: bool) -> Answer<()> {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut acknowledged: Option<u64> = None;
    let mut open_ms = 40;
    for round in 0..rounds {
        let wait = if in_open && round > 0 {
            Kill::AfterStart(Duration::from_micros(random.below(open_ms * 1_300 + 2_000)))
        } else {
            Kill::AfterFirstAck(Duration::from_millis(random.below(KILL_WITHIN_MS)))
        };
        acknowledged = run_writer(name, dir, &wait)?.or(acknowledged);
        let answer = crate::damage::run_self(&["check", name, &dir.to_string_lossy()], OPEN_TIMEOUT);
        let Some(field) = answer.strip_prefix("ok ").map(|line| fields(line)) else {
            tally.unopenable += 1;
            println!("  round {round}: {answer}");
            break;
        };
        let found = field.get("head").and_then(|head| head.parse::<u64>().ok());
        let in_flight = acknowledged.map_or(0, |batch| batch + 1);
        if found < acknowledged || found > Some(in_flight) {
            tally.lost_acknowledged += 1;
            println!("  round {round}: acknowledged {acknowledged:?}, {answer}");
        } else if ["missing", "wrong", "surplus"].iter().any(|name| field.get(*name).is_none_or(|n| n != "0")) {
            tally.torn += 1;
            println!("  round {round}: acknowledged {acknowledged:?}, {answer}");
        } else {
            tally.whole += 1;
        }
        acknowledged = found;
        open_ms = field.get("open_ms").and_then(|ms| ms.parse().ok()).unwrap_or(open_ms);
        tally.open_ms.push(open_ms);
    }
    tally.acknowledged = acknowledged.map_or(0, |batch| batch + 1);
    tally.open_ms.sort_unstable();
    println!(
        "kills={rounds} in_open={in_open} seed={seed} whole={} lost={} torn={} unopenable={} batches={} \
         open_ms_median={} open_ms_max={} disk={}MiB",
        tally.whole,
        tally.lost_acknowledged,
        tally.torn,
        tally.unopenable,
        tally.acknowledged,
        tally.open_ms.get(tally.open_ms.len() / 2).copied().unwrap_or(0),
        tally.open_ms.last().copied().unwrap_or(0),
        crate::load::disk_bytes(dir) >> 20
    );
    Ok(())
}

enum Kill {
    AfterFirstAck(Duration),
    AfterStart(Duration),
}

/// Runs the writer until it is killed; answers the last batch that it acknowledged.
fn run_writer(name: &str, dir: &Path, kill: &Kill) -> Answer<Option<u64>> {
    let mut writer = Command::new(std::env::current_exe().map_err(|e| e.to_string())?)
        .args(["write", name])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(writer.stdout.take().ok_or("no stdout")?);
    let mut last = None;
    let mut line = String::new();
    let wait = match kill {
        Kill::AfterFirstAck(wait) => {
            lines.read_line(&mut line).map_err(|e| e.to_string())?;
            last = line.trim().parse().ok();
            wait
        }
        Kill::AfterStart(wait) => wait,
    };
    std::thread::sleep(*wait);
    writer.kill().map_err(|e| e.to_string())?;
    writer.wait().map_err(|e| e.to_string())?;
    for line in lines.lines().map_while(Result::ok) {
        last = line.trim().parse().ok().or(last);
    }
    Ok(last)
}

fn fields(line: &str) -> BTreeMap<&str, String> {
    line.split_whitespace()
        .filter_map(|field| field.split_once('=').map(|(name, value)| (name, value.to_owned())))
        .collect()
}
