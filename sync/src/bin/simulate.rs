//! Lives through simulated worlds on every core for as long as it is told, tells what it has seen, and makes what fails small.
//!
//! `tests/simulate` builds and runs it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alexandria_sync::sim::{Figures, Plan, Sweep, judge, shrink};

const USAGE: &str = "\
usage: tests/simulate [HOW LONG] [--seeds N] [--from SEED] [--jobs N] [--tries N] [--cards | --absences | --dense | --sticks]

  HOW LONG      30s, 20m, 2h or 2h30m; without it and without --seeds, 1m
  --seeds N     so many worlds instead
  --from SEED   the first one; without it, chosen by the time
  --jobs N      threads; without it, one for each core
  --cards       worlds without additions, in all of which cards are put back and copied
  --absences    worlds in which nodes stay away for longer than their leases, most of them with neighbours, sticks and cards
  --dense       worlds with most additions at once
  --sticks      worlds in all of which sticks are carried, most of them beside links and with others of the additions
  --tries N     worlds that are lived through to make a failing one small, at most; without it, 2000

Ends with 1 if a promise was broken, after the first world in which one was.";

/// Worlds that are lived through to make a failing one small, at most, unless told otherwise.
const SHRINK_TRIES_MAX: u64 = 2_000;
const TELL_EVERY: Duration = Duration::from_secs(30);
const YEAR_MS: f64 = 365.25 * 24.0 * 3600.0 * 1000.0;

struct Options {
    until: Option<Duration>,
    seeds: u64,
    from: u64,
    jobs: usize,
    tries: u32,
    worlds: Worlds,
}

/// Which worlds are lived through.
#[derive(Clone, Copy)]
enum Worlds {
    Usual,
    Cards,
    Absences,
    Dense,
    Sticks,
}

impl Options {
    fn world(&self, seed: u64) -> Plan {
        match self.worlds {
            Worlds::Usual => Plan::of(seed),
            Worlds::Cards => Plan::with_cards(seed),
            Worlds::Absences => Plan::with_absences(seed),
            Worlds::Dense => Plan::dense(seed),
            Worlds::Sticks => Plan::with_sticks(seed),
        }
    }
}

fn main() -> ExitCode {
    if std::env::args().skip(1).any(|argument| ["--help", "-h"].contains(&argument.as_str())) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("from seed {} on {} threads", options.from, options.jobs);
    let swept = run(&options);
    let Some(broken) = swept.violations.first() else { return ExitCode::SUCCESS };
    println!("\ninvariant {} is broken in the world of seed {}: {}", broken.invariant, broken.seed, broken.text);
    let worlds = match options.worlds {
        Worlds::Usual => "",
        Worlds::Cards => " --cards",
        Worlds::Absences => " --absences",
        Worlds::Dense => " --dense",
        Worlds::Sticks => " --sticks",
    };
    println!("replay: tests/simulate --from {} --seeds 1{worlds}", broken.seed);
    println!("making it small ...");
    let plan = options.world(broken.seed);
    match shrink(&plan, None, broken.invariant, options.tries) {
        Some(shrunk) => println!("after {} tries: {}\n{}", shrunk.tries, shrunk.text, shrunk.plan),
        None => println!("{plan}"),
    }
    ExitCode::FAILURE
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Seeds of two runs do not meet.
    let mut options =
        Options { until: None, seeds: u64::MAX, from: now_s << 20, jobs: cores, tries: 0, worlds: Worlds::Usual };
    let mut tries = SHRINK_TRIES_MAX;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().ok_or(format!("{argument} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{argument} needs a number, not `{text}`"))
        };
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--cards" => options.worlds = Worlds::Cards,
            "--absences" => options.worlds = Worlds::Absences,
            "--dense" => options.worlds = Worlds::Dense,
            "--sticks" => options.worlds = Worlds::Sticks,
            "--tries" => tries = number()?,
            "--jobs" => options.jobs = number()?.clamp(1, 1024) as usize,
            text => options.until = Some(duration(text).ok_or(format!("`{text}` is not understood"))?),
        }
    }
    options.tries = u32::try_from(tries).unwrap_or(u32::MAX);
    if options.until.is_none() && options.seeds == u64::MAX {
        options.until = Some(Duration::from_mins(1));
    }
    Ok(options)
}

/// Reads `30s`, `20m`, or `2h30m`: larger units before smaller ones, each once.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut smaller_than) = (text, Duration::ZERO, u64::MAX);
    while !rest.is_empty() {
        let at = rest.find(|digit: char| !digit.is_ascii_digit())?;
        let seconds = match rest.as_bytes()[at] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        if seconds >= smaller_than {
            return None;
        }
        let count: u64 = rest[..at].parse().ok()?;
        total = total.checked_add(Duration::from_secs(count.checked_mul(seconds)?))?;
        (rest, smaller_than) = (&rest[at + 1..], seconds);
    }
    (!text.is_empty()).then_some(total)
}

fn run(options: &Options) -> Sweep {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let swept = Mutex::new(Sweep::default());
    thread::scope(|scope| {
        let worker = || {
            while !is_over.load(Ordering::Relaxed) && options.until.is_none_or(|until| began.elapsed() < until) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= options.seeds {
                    return;
                }
                let (violations, figures) = judge(&options.world(options.from.wrapping_add(number)), None);
                is_over.fetch_or(!violations.is_empty(), Ordering::Relaxed);
                let mut swept = swept.lock().expect("no world panics while it holds this");
                swept.figures.add(&figures);
                swept.violations.extend(violations);
            }
        };
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(worker)).collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::park_timeout(Duration::from_millis(200));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&swept.lock().expect("no world panics while it holds this").figures, began.elapsed());
            }
        }
    });
    let mut swept = swept.into_inner().expect("every worker has ended");
    swept.violations.sort_by_key(|violation| violation.seed);
    tell(&swept.figures, began.elapsed());
    println!("{}", in_full(&swept.figures));
    swept
}

fn tell(figures: &Figures, elapsed: Duration) {
    let years = figures.replica_ms as f64 / YEAR_MS;
    let rate = figures.worlds as f64 / elapsed.as_secs_f64().max(0.001);
    println!(
        "{:>6} s: {} worlds ({rate:.1} a second), {years:.1} node-years, {} power cuts, {} link cuts, {} sessions",
        elapsed.as_secs(),
        figures.worlds,
        figures.crashes,
        figures.cuts,
        figures.sessions
    );
    // Whoever reads this through a pipe wants to see it.
    let _ = std::io::stdout().flush();
}

fn in_full(figures: &Figures) -> String {
    let mut text = String::new();
    for (what, count) in figures.named() {
        let _ = writeln!(text, "{what:>24} {count}");
    }
    text
}
