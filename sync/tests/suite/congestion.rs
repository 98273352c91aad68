//! The congestion controller on whole connections over simulated lines, in virtual time. The figures at full length are
//! the benchmark's (`benches/congestion.rs`); here are the promises, on transfers that are short enough for every run.

use std::time::Duration;

use alexandria_sync::quic::TransportConfig;
use alexandria_sync::quic::congestion::CongestionConfig;
use alexandria_sync::quic::simulated::Bench;
use alexandria_sync::quic::simulated::flow::{Controller, FlowConfig, Progress};
use alexandria_sync::quic::simulated::link::{LineStats, LinkProfile, Loss};

const SEED: u64 = 7;
const PATIENCE: Duration = Duration::from_hours(1);

fn line(kbit_per_s: u64, round_trip_ms: u64, loss: f64, queue_share: f64) -> LinkProfile {
    LinkProfile {
        bits_per_s: kbit_per_s * 1000,
        round_trip: Duration::from_millis(round_trip_ms),
        queue_share,
        loss: Loss::Random { chance: loss },
        jitter: Duration::ZERO,
    }
}

fn ours(size_bytes: u64) -> FlowConfig {
    FlowConfig { controller: Controller::Ours, transport: TransportConfig::default(), size_bytes }
}

/// Kilobits that a transfer of `size_bytes` got through in a second, and what it and the line came to.
fn transfer(profile: LinkProfile, size_bytes: u64) -> (f64, Progress, LineStats) {
    transfer_from(SEED, profile, size_bytes)
}

fn transfer_from(seed: u64, profile: LinkProfile, size_bytes: u64) -> (f64, Progress, LineStats) {
    let mut bench = Bench::new(profile, seed);
    let flow = bench.dial(&ours(size_bytes));
    let took = bench.run_until_done(flow, PATIENCE).expect("it gets through");
    (size_bytes as f64 * 8e-3 / took.as_secs_f64(), bench.progress(flow), bench.line())
}

fn sent_to_useful(progress: Progress) -> f64 {
    progress.sent_bytes as f64 / progress.read_bytes as f64
}

#[test]
fn one_percent_of_random_loss_costs_no_more_than_a_twentieth() {
    let (without, _, _) = transfer(line(10_000, 300, 0.0, 1.0), 8_000_000);
    let (with, progress, _) = transfer(line(10_000, 300, 0.01, 1.0), 8_000_000);
    assert!(with > without * 0.95, "{with:.0} kbit/s of {without:.0}");
    assert!(sent_to_useful(progress) < 1.05, "{progress:?}");
}

#[test]
fn five_percent_of_random_loss_is_not_taken_for_congestion() {
    let (without, _, _) = transfer(line(10_000, 300, 0.0, 1.0), 8_000_000);
    // Which datagrams are lost follows from the seed and from the lengths of signatures, which chance decides.
    let mut goodputs = [7, 8, 9, 10, 11, 12, 13, 14, 15].map(|seed| {
        let (goodput, progress, _) = transfer_from(seed, line(10_000, 300, 0.05, 1.0), 8_000_000);
        assert!(sent_to_useful(progress) < 1.10, "seed {seed}: {progress:?}");
        goodput
    });
    goodputs.sort_by(f64::total_cmp);
    assert!(goodputs[4] > without * 0.85, "{goodputs:.0?} kbit/s of {without:.0}");
    println!("{goodputs:.0?} kbit/s of {without:.0}");
}

#[test]
fn on_a_slow_lossy_line_hardly_more_is_sent_than_what_was_lost() {
    for round_trip_ms in [40, 600] {
        let (_, progress, line) = transfer(line(100, round_trip_ms, 0.05, 1.0), 1_500_000);
        assert!(sent_to_useful(progress) < 1.12, "{progress:?}");
        let gone = line.lost + line.dropped;
        assert!(progress.deemed_lost <= gone + gone / 20, "{progress:?} {line:?}");
    }
}

#[test]
fn the_first_megabyte_over_a_cold_satellite_line_takes_three_seconds() {
    let (_, progress, _) = transfer(line(10_000, 600, 0.01, 1.0), 3_000_000);
    assert!(progress.first_megabyte.is_some_and(|took| took < Duration::from_secs(3)), "{progress:?}");
}

/// The queue could hold four round trips. A controller that waits for losses fills it.
#[test]
fn a_growing_queue_makes_it_back_off() {
    let (goodput, _, line) = transfer(line(10_000, 100, 0.0, 4.0), 8_000_000);
    assert!(line.queue_delay_mean() < Duration::from_millis(12), "{line:?}");
    assert!(line.queue_delay_max < Duration::from_millis(40), "{line:?}");
    assert!(goodput > 8_500.0, "{goodput:.0} kbit/s");
}

/// Judged second by second, with the headers that the operator's figure includes.
#[test]
fn a_link_profile_is_never_exceeded() {
    const LIMIT_BITS_PER_S: u64 = 2_000_000;
    /// What the pacer may send in a row.
    const BURST_BYTES: u64 = 10 * 1480;
    let mut bench = Bench::new(line(20_000, 100, 0.01, 1.0), SEED);
    let congestion = CongestionConfig { rate_limit_bits_per_s: Some(LIMIT_BITS_PER_S) };
    let transport = TransportConfig { congestion, ..TransportConfig::default() };
    let flow = bench.dial(&FlowConfig { transport, ..ours(u64::MAX) });
    let mut before = 0;
    for second in 1..=20 {
        bench.run_until(Duration::from_secs(second));
        let sent = bench.line().offered_bytes;
        assert!(sent - before <= LIMIT_BITS_PER_S / 8 + BURST_BYTES, "second {second}: {} bytes", sent - before);
        before = sent;
    }
    let goodput = bench.progress(flow).read_bytes as f64 * 8.0 / 20.0;
    assert!(goodput > LIMIT_BITS_PER_S as f64 * 0.85, "{goodput:.0} bit/s");
}

/// The line becomes five times slower, then as fast as before.
#[test]
fn a_line_that_changes_is_followed_both_ways() {
    let (fast, slow) = (line(5_000, 100, 0.01, 4.0), line(1_000, 100, 0.01, 4.0));
    let mut bench = Bench::new(fast, SEED);
    let flow = bench.dial(&ours(u64::MAX));
    let goodput_until = |bench: &mut Bench, from_s: u64, until_s: u64| {
        bench.run_until(Duration::from_secs(from_s));
        let before = bench.progress(flow).read_bytes;
        bench.run_until(Duration::from_secs(until_s));
        (bench.progress(flow).read_bytes - before) * 8 / (until_s - from_s) / 1000
    };
    assert!(goodput_until(&mut bench, 2, 6) > 4_200);
    bench.change_link(slow);
    assert!(goodput_until(&mut bench, 8, 12) > 800);
    let before = bench.line();
    bench.run_until(Duration::from_secs(20));
    let waited = bench.line().queue_delay_sum.saturating_sub(before.queue_delay_sum);
    let carried = (bench.line().offered - before.offered) as u32;
    assert!(waited / carried < Duration::from_millis(130), "{:?} in the queue of the slower line", waited / carried);
    bench.change_link(fast);
    assert!(goodput_until(&mut bench, 26, 30) > 4_000);
}

#[test]
fn after_an_outage_the_transfer_goes_on_at_full_rate() {
    let good = line(5_000, 300, 0.01, 1.0);
    let mut bench = Bench::new(good, SEED);
    let flow = bench.dial(&ours(u64::MAX));
    bench.run_until(Duration::from_secs(6));
    bench.change_link(LinkProfile { loss: Loss::Random { chance: 1.0 }, ..good });
    bench.run_until(Duration::from_secs(16));
    let before = bench.progress(flow).read_bytes;
    bench.change_link(good);
    // The next probe may be as far away as the outage was long.
    bench.run_until(Duration::from_secs(36));
    let goodput = (bench.progress(flow).read_bytes - before) * 8 / 20;
    assert!(goodput > 2_000_000, "{goodput} bit/s in the 20 s after it");
}

/// What a small machine does to a connection when it is busy: a tenth of a second's datagrams find no room now and then, because nobody took
/// the earlier ones out, and acknowledgements come some milliseconds late.
#[test]
fn a_machine_that_is_busy_now_and_then_costs_a_fraction_of_the_rate() {
    let calm = line(20_000, 300, 0.01, 1.0);
    let busy = LinkProfile { jitter: Duration::from_millis(6), ..calm };
    let stalled = LinkProfile { loss: Loss::Random { chance: 1.0 }, ..busy };
    let goodput = |profile: LinkProfile, stalls: bool| {
        let mut bench = Bench::new(profile, SEED);
        let flow = bench.dial(&ours(u64::MAX));
        for second in 1..=40 {
            if stalls && second % 4 == 0 {
                bench.change_link(stalled);
                bench.run_until(bench.now() + Duration::from_millis(100));
                bench.change_link(profile);
            }
            bench.run_until(Duration::from_secs(second));
        }
        bench.progress(flow).read_bytes * 8 / 40 / 1000
    };
    let (calm, busy) = (goodput(calm, false), goodput(busy, true));
    println!("{busy} kbit/s of {calm}");
    assert!(busy > calm * 3 / 4, "{busy} kbit/s of {calm}");
}

/// CUBIC stands in for TCP.
#[test]
fn beside_a_tcp_flow_neither_is_starved() {
    for ours_first in [true, false] {
        let mut bench = Bench::new(line(4_000, 60, 0.0, 1.5), SEED);
        let cubic = FlowConfig { controller: Controller::Cubic, ..ours(u64::MAX) };
        let order = if ours_first { [ours(u64::MAX), cubic] } else { [cubic, ours(u64::MAX)] };
        let first = bench.dial(&order[0]);
        bench.run_until(Duration::from_secs(3));
        let second = bench.dial(&order[1]);
        bench.run_until(Duration::from_secs(10));
        let before = [first, second].map(|flow| bench.progress(flow).read_bytes);
        bench.run_until(Duration::from_secs(40));
        let got = [first, second].map(|flow| bench.progress(flow).read_bytes);
        for (got, before) in got.into_iter().zip(before) {
            let share = (got - before) as f64 * 8.0 / 30.0 / 4_000_000.0;
            assert!(share > 0.2, "ours first: {ours_first}; a share of {share:.2}");
        }
    }
}
