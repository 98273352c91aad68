//! This crate's congestion controller beside quinn's BBR and CUBIC, on simulated lines, in virtual time.
//!
//! ```text
//! cargo bench -p alexandria-sync --bench congestion              all
//! cargo bench -p alexandria-sync --bench congestion -- --quick   the goals and two shared lines
//! cargo bench -p alexandria-sync --bench congestion -- 10 Mbit/s, 40 ms   lines of the grid with that in their name
//! ```
//!
//! Each transfer goes over a line of its own, from dialling until the last byte has been read, in the product's
//! transport settings. The figures follow from the seed: they are the same on any machine.

use std::time::{Duration, Instant};

use alexandria_sync::quic::TransportConfig;
use alexandria_sync::quic::simulated::Bench;
use alexandria_sync::quic::simulated::flow::{Controller, FlowConfig, Progress};
use alexandria_sync::quic::simulated::link::{LineStats, LinkProfile, Loss};

const SEED: u64 = 1;
const CONTROLLERS: [Controller; 3] = [Controller::Ours, Controller::Bbr, Controller::Cubic];
/// A transfer is as large as what its line carries in this time, and no smaller than the first megabyte and a half.
const TRANSFER: Duration = Duration::from_secs(30);
const TRANSFER_BYTES_MIN: u64 = 1_500_000;
/// A transfer that takes longer has failed.
const PATIENCE: Duration = Duration::from_hours(12);
/// Who shares a line: how long each is alone, then left to settle, then measured.
const ALONE: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_mins(1);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let began = Instant::now();
    println!("goodput in Mbit/s | UDP payload sent / useful | first megabyte | queue: longest, mean");
    let is_quick = args == ["--quick"];
    if is_quick || args.is_empty() {
        goals();
    }
    if !is_quick {
        grid(&args.join(" "), began);
    }
    if is_quick || args.is_empty() {
        shared(is_quick);
    }
    println!("\ntook {:.0} s", began.elapsed().as_secs_f64());
}

fn goals() {
    println!("\n# Goals");
    for (rate, round_trip, loss) in [(10.0, 600, 0.01), (10.0, 600, 0.05), (50.0, 600, 0.01), (0.1, 600, 0.05)] {
        transfer_row(&line(rate, round_trip, Loss::Random { chance: loss }, 1.0));
    }
}

fn shared(is_quick: bool) {
    println!("\n# Two flows on one line: which goes first, goodput of each, mean queue");
    let lines = [(10.0, 40, 1.0), (50.0, 40, 1.0), (50.0, 10, 1.0), (10.0, 300, 1.0), (10.0, 40, 4.0), (10.0, 40, 0.1)];
    for (rate, round_trip, queue) in lines.into_iter().take(if is_quick { 2 } else { lines.len() }) {
        let profile = line(rate, round_trip, Loss::NONE, queue);
        shared_row(&profile, Controller::Ours, Controller::Cubic);
        shared_row(&profile, Controller::Cubic, Controller::Ours);
        shared_row(&profile, Controller::Ours, Controller::Ours);
        shared_row(&profile, Controller::Bbr, Controller::Cubic);
        shared_row(&profile, Controller::Cubic, Controller::Cubic);
    }
}

fn line(mbit_per_s: f64, round_trip_ms: u64, loss: Loss, queue_share: f64) -> LinkProfile {
    let bits_per_s = (mbit_per_s * 1e6) as u64;
    let round_trip = Duration::from_millis(round_trip_ms);
    LinkProfile { bits_per_s, round_trip, queue_share, loss, jitter: Duration::ZERO }
}

/// What a transfer came to.
struct Outcome {
    goodput_mbit_per_s: f64,
    sent_to_useful: f64,
    progress: Progress,
    line: LineStats,
}

fn transfer(profile: &LinkProfile, controller: Controller) -> Outcome {
    let size_bytes = ((profile.bits_per_s as f64 / 8.0 * TRANSFER.as_secs_f64()) as u64).max(TRANSFER_BYTES_MIN);
    let mut bench = Bench::new(*profile, SEED);
    let flow = bench.dial(&FlowConfig { controller, transport: TransportConfig::default(), size_bytes });
    let took = bench.run_until_done(flow, PATIENCE).unwrap_or(PATIENCE);
    let progress = bench.progress(flow);
    Outcome {
        goodput_mbit_per_s: mbit_per_s(progress.read_bytes, took),
        sent_to_useful: progress.sent_bytes as f64 / progress.read_bytes as f64,
        progress,
        line: bench.line(),
    }
}

fn transfer_row(profile: &LinkProfile) -> [Outcome; 3] {
    print!("{:<42}", describe(profile));
    CONTROLLERS.map(|controller| {
        let outcome = transfer(profile, controller);
        print!(
            " | {controller:?} {:6.3} {:5.3} {:6.2} s {:5.0} {:4.0} ms",
            outcome.goodput_mbit_per_s,
            outcome.sent_to_useful,
            outcome.progress.first_megabyte.unwrap_or(PATIENCE).as_secs_f64(),
            outcome.line.queue_delay_max.as_secs_f64() * 1e3,
            outcome.line.queue_delay_mean().as_secs_f64() * 1e3,
        );
        if controller == Controller::Cubic {
            println!();
        }
        outcome
    })
}

fn grid(name: &str, began: Instant) {
    println!("\n# Grid");
    let random = [0.0, 0.001, 0.01, 0.02, 0.05].map(|chance| Loss::Random { chance });
    let losses = random.into_iter().chain([Loss::BURSTS]);
    let mut summaries = Vec::new();
    for loss in losses {
        let mut summary = CONTROLLERS.map(|_| Summary::default());
        for rate in [0.1, 10.0, 50.0] {
            for round_trip in [40, 300, 600] {
                for queue in [0.1, 1.0] {
                    let profile = line(rate, round_trip, loss, queue);
                    if !describe(&profile).contains(name) {
                        continue;
                    }
                    for (summary, outcome) in summary.iter_mut().zip(transfer_row(&profile)) {
                        summary.add(&profile, &outcome);
                    }
                }
            }
        }
        summaries.push((loss, summary));
        println!("({} of 6 losses, {:.0} s)", summaries.len(), began.elapsed().as_secs_f64());
    }
    println!(
        "\n# Grid, by loss: goodput / line rate, mean and worst | sent / useful, mean and worst | mean queue / round trip"
    );
    for (loss, summary) in summaries {
        print!("{:<12}", describe_loss(loss));
        for (controller, summary) in CONTROLLERS.iter().zip(summary) {
            print!(" | {controller:?} {summary}");
        }
        println!();
    }
}

/// What a controller came to on the lines of one loss.
#[derive(Default)]
struct Summary {
    rows: f64,
    used_sum: f64,
    used_worst: f64,
    sent_sum: f64,
    sent_worst: f64,
    queue_sum: f64,
}

impl Summary {
    fn add(&mut self, profile: &LinkProfile, outcome: &Outcome) {
        let used = outcome.goodput_mbit_per_s * 1e6 / profile.bits_per_s as f64;
        self.used_worst = if self.rows == 0.0 { used } else { self.used_worst.min(used) };
        self.sent_worst = self.sent_worst.max(outcome.sent_to_useful);
        self.used_sum += used;
        self.sent_sum += outcome.sent_to_useful;
        self.queue_sum += outcome.line.queue_delay_mean().as_secs_f64() / profile.round_trip.as_secs_f64();
        self.rows += 1.0;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = |sum: f64| sum / self.rows.max(1.0);
        write!(
            f,
            "{:.2} {:.2}  {:.3} {:.3}  {:.2}",
            mean(self.used_sum),
            self.used_worst,
            mean(self.sent_sum),
            self.sent_worst,
            mean(self.queue_sum)
        )
    }
}

fn shared_row(profile: &LinkProfile, first: Controller, second: Controller) {
    let mut bench = Bench::new(*profile, SEED);
    let endless = |controller| FlowConfig { controller, transport: TransportConfig::default(), size_bytes: u64::MAX };
    let mut flows = vec![bench.dial(&endless(first))];
    bench.run_until(ALONE);
    flows.push(bench.dial(&endless(second)));
    bench.run_until(ALONE + SETTLING);
    let before: Vec<Progress> = flows.iter().map(|&flow| bench.progress(flow)).collect();
    bench.run_until(ALONE + SETTLING + MEASURED);
    let goodput =
        |index: usize| mbit_per_s(bench.progress(flows[index]).read_bytes - before[index].read_bytes, MEASURED);
    println!(
        "{:<42} | {first:?} {:.2}, then {second:?} {:.2} | {:.1} ms",
        describe(profile),
        goodput(0),
        goodput(1),
        bench.line().queue_delay_mean().as_secs_f64() * 1e3
    );
}

fn mbit_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()
}

fn describe(profile: &LinkProfile) -> String {
    format!(
        "{} Mbit/s, {} ms, {}, queue {}",
        profile.bits_per_s as f64 / 1e6,
        profile.round_trip.as_millis(),
        describe_loss(profile.loss),
        profile.queue_share
    )
}

fn describe_loss(loss: Loss) -> String {
    match loss {
        Loss::Random { chance } => format!("{} %", (chance * 1e5).round() / 1e3),
        Loss::Bursts { .. } => "2 % bursts".to_owned(),
    }
}
