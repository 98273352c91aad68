//! How much may be in flight: a congestion controller for lines that are long, slow, lossy and paid for.
//!
//! Stock controllers read a lost datagram as a full queue. On a satellite or a phone most losses mean nothing of the
//! kind, and they starve, or, like BBR, push until a fifth of all bytes are sent twice. This one reads the round trip: if
//! it grows, something waits in front of the bottleneck, and what is in flight shrinks to what the line holds. Losses up
//! to [`TOLERATED`](loss::TOLERATED) change nothing.
//!
//! The window is what the line carries in its shortest round trip, as measured, and a small allowance that stands in the
//! queue so that the line is never idle:
//!
//! ```text
//! window = carried rate x (shortest round trip + jitter) + allowance
//! ```
//!
//! The carried rate counts what was lost as well, so random loss does not shrink it; a growing queue does not raise it,
//! so the queue stays as long as the allowance. This is FAST TCP's law (Wei, Jin, Low and Hegde, 2006), itself Vegas'
//! (Brakmo and Peterson, 1995), with BBR's measurements (draft-ietf-ccwg-bbr) in place of the current window.
//!
//! Startup doubles in a round trip, or jumps to most of what a train of datagrams tells (packet dispersion: Dovrolis,
//! Ramanathan and Moore, 2001); no higher than that either, so it ends at a full line and an empty queue. Where another
//! flow keeps the queue long, the allowance grows, up to a quarter of what the line holds: Copa's competitive mode
//! (Arun and Balakrishnan, 2018) with a bound.
//!
//! quinn paces at 5/4 of the window in a smoothed round trip, and asks for nothing but the window: it is the only thing
//! that is decided here. Time is passed in; nothing is random. Why it is so, with figures: docs/adr/0007.
//!
//! Invariants:
//! - The window is never under [`WINDOW_DATAGRAMS_MIN`] datagrams, and never over the operator's rate times the shortest
//!   round trip, unless that is less than the minimum.
//! - What is kept has a fixed size, whatever is sent.
//!
//! Not here: measuring ([`path`]), judging losses ([`loss`]), retransmission (quinn), limits of streams (`endpoint`).

mod loss;
mod path;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use self::loss::LossMeter;
use self::path::{Batch, Path, Round};

/// The window never holds fewer datagrams: with fewer, a lost one could not be told by those after it.
pub const WINDOW_DATAGRAMS_MIN: u64 = 4;
/// While the shortest round trip is measured it may hold this few: one on its way, one behind it.
const REFRESH_DATAGRAMS_MIN: u64 = 3;
/// What is sent before anything is known (RFC 9002, section 7.2: ten, here with quinn's habit of keeping one back; the
/// line's first answer needs a few in a row).
const INITIAL_DATAGRAMS: u64 = 16;
/// No window is larger: more than any of these lines holds, and what quinn's pacer still paces.
const WINDOW_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The part of the shortest round trip for which data may stand in the queue.
const QUEUE_SHARE: f64 = 0.05;
/// ... and for how long at least: what schedulers and radios take anyway on the shortest lines.
const QUEUE_MIN: Duration = Duration::from_millis(2);
/// ... and how many datagrams at least.
const QUEUE_DATAGRAMS_MIN: f64 = 2.0;
/// On paths shorter than this what waits is mostly the two machines: the allowance stays what the line's highest rate
/// carries in [`QUEUE_MIN`], however long a busy processor lets an acknowledgement wait.
const SHORT_PATH: Duration = Duration::from_millis(10);
/// Round trips of a round may differ by so much of the shortest without being taken for a queue.
const JITTER_SHARE_MAX: f64 = 0.25;

/// How many datagrams in a row tell a rate during startup.
const TRAIN_DATAGRAMS: u64 = 6;
/// The part of that rate which is believed.
const TRAIN_TRUST: f64 = 0.75;
/// By how many bytes it may raise the window in one round: half of what 10 Mbit/s hold in 600 ms. A shaper that lets
/// the first datagrams through at another rate than the rest costs that much once, no more.
const TRAIN_BYTES_MAX: f64 = 384.0 * 1024.0;
/// Startup ends when something waits for longer than this part of the shortest round trip.
const STARTUP_QUEUE_SHARE: f64 = 1.0 / 16.0;
/// ... or when the delivery rate grew by less than this factor ...
const STARTUP_GROWTH: f64 = 1.25;
/// ... in so many rounds (as BBR).
const STARTUP_ROUNDS: u32 = 3;

/// Rounds whose highest rate counts.
const RATE_ROUNDS: usize = 3;
/// While another's queue stands, the allowance grows to this part of what the line holds, so as not to be starved ...
const CROWDED_SHARE: f64 = 0.25;
/// ... in so many rounds.
const CROWDED_ROUNDS: u32 = 32;
/// A queue is another's if it is longer by this factor than the own allowance makes it.
const CROWDED_FACTOR: f64 = 3.0;
/// What a generation of the shortest round trip leaves of the line's highest rate, unless it is seen again.
const CAPACITY_KEPT: f64 = 0.9;
/// By this part of the shortest round trip a round's may differ without anything standing in a queue: a radio and a busy machine do that.
const NOISE_SHARE: f64 = 1.0 / 64.0;
/// What losses that say too much is sent leave of the rate of the last rounds, unless more than that was delivered.
const OVERLOADED_SHARE: f64 = 0.7;
/// What a round may add to the window at most, as a factor.
const GROWTH_MAX: f64 = 1.25;
/// What a mark of congestion (ECN) leaves of the window (RFC 8511).
const MARKED_SHARE: f64 = 0.85;

/// How long a peer may put off acknowledging a single datagram (RFC 9000, section 18.2: max_ack_delay).
const ACK_DELAY_MAX: Duration = Duration::from_millis(25);
/// What is in flight during a refresh, as a part of what the line holds.
const REFRESH_SHARE: f64 = 0.85;
/// What IPv6 and UDP add to a datagram.
const HEADER_BYTES: u64 = 48;

/// How a connection is governed. Makes the controller of each path.
#[derive(Clone, Copy, Debug, Default)]
pub struct CongestionConfig {
    /// The operator's link profile: bits in a second that the line carries, headers included. It is where a connection
    /// starts and what it never passes. Unset, the rate is measured from nothing.
    pub rate_limit_bits_per_s: Option<u64>,
}

impl ControllerFactory for CongestionConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LinkController::new(*self, now, current_mtu))
    }
}

/// What a controller is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The line's rate is unknown: the window doubles in a round trip, or follows what a train of datagrams tells.
    Startup(Startup),
    /// Startup may have overshot: for one round the window is what the line holds.
    Drain,
    /// The window follows the rate.
    Cruise,
    /// For one round less is in flight than the line holds, so that the shortest round trip shows.
    Refresh,
}

/// What is known before the line is full.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Startup {
    /// The highest delivery rate of a round so far.
    rate_max: f64,
    /// Rounds since it last grew by much.
    flat_rounds: u32,
    /// The window when this round began.
    window_at_start: f64,
    /// The highest rate that a train has told.
    train_max: f64,
}

/// The controller of one path.
#[derive(Clone, Debug)]
pub(super) struct LinkController {
    config: CongestionConfig,
    /// Bytes of a full datagram.
    mtu: u64,
    phase: Phase,
    /// Bytes that may be in flight, before its limits.
    window: f64,
    path: Path,
    loss: LossMeter,
    /// What the acknowledgement that is being read has confirmed so far.
    batch: Option<Batch>,
    /// Carried rates of the last rounds.
    rates: [f64; RATE_ROUNDS],
    /// Rounds in a row in which the allowance did not show as a queue: there is room on the line.
    unfilled_rounds: u32,
    /// The highest rate that the line was seen to deliver, alone or shared; it fades.
    capacity: f64,
    /// Rounds in which much more waited than this controller meant to: the queue is another's.
    crowded_rounds: u32,
    /// When the window was last cut because of a mark; one cut in a round trip is enough.
    marked_at: Option<Instant>,
}

impl LinkController {
    fn new(config: CongestionConfig, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            config,
            mtu,
            phase: Phase::Startup(Startup::default()),
            window: (INITIAL_DATAGRAMS * mtu) as f64,
            path: Path::new(now),
            loss: LossMeter::default(),
            batch: None,
            rates: [0.0; RATE_ROUNDS],
            unfilled_rounds: 0,
            capacity: 0.0,
            crowded_rounds: 0,
            marked_at: None,
        }
    }

    /// The operator's rate, in bytes of UDP payload in a second.
    fn rate_limit(&self) -> Option<f64> {
        let headers = self.mtu as f64 / (self.mtu + HEADER_BYTES) as f64;
        self.config.rate_limit_bits_per_s.map(|bits_per_s| bits_per_s as f64 / 8.0 * headers)
    }

    fn limited_window(&self) -> u64 {
        let minimum =
            self.mtu * if self.phase == Phase::Refresh { REFRESH_DATAGRAMS_MIN } else { WINDOW_DATAGRAMS_MIN };
        let limit = match (self.rate_limit(), self.path.rtt_min()) {
            (Some(rate), Some(rtt)) => (rate * rtt.as_secs_f64()) as u64,
            _ => WINDOW_BYTES_MAX,
        };
        (self.window as u64).min(limit).clamp(minimum, WINDOW_BYTES_MAX)
    }

    /// Something that was sent at `sent` has arrived.
    fn acknowledge(&mut self, sent: Instant, bytes: u64, app_limited: bool) {
        let batch = self.batch.get_or_insert(Batch { acked_bytes: 0, newest_sent: sent, app_limited });
        batch.acked_bytes = batch.acked_bytes.saturating_add(bytes);
        batch.newest_sent = batch.newest_sent.max(sent);
        batch.app_limited |= app_limited;
    }

    /// That was all that one acknowledgement said.
    fn acknowledged(&mut self, now: Instant) {
        let Some(batch) = self.batch.take() else { return };
        self.loss.count(batch.acked_bytes as f64 / self.mtu as f64, 0.0);
        let ended = self.path.on_batch(batch, now);
        let Some(rtt_min) = self.path.rtt_min() else { return };
        match self.phase {
            Phase::Startup(startup) => self.start_up(startup, batch, ended, rtt_min),
            Phase::Drain => {
                if ended.is_some() {
                    self.phase = Phase::Cruise;
                }
            }
            Phase::Cruise => {
                if let Some(round) = ended {
                    self.steer(round, rtt_min);
                    if self.path.is_stale(now) && !round.app_limited {
                        self.refresh(rtt_min, now);
                    }
                }
            }
            Phase::Refresh => {
                if ended.is_some() {
                    self.phase = Phase::Cruise;
                    self.window = self.rate() * rtt_min.as_secs_f64() + self.allowance(rtt_min);
                }
            }
        }
    }

    /// Looks for the line's rate.
    fn start_up(&mut self, mut startup: Startup, batch: Batch, ended: Option<Round>, rtt_min: Duration) {
        if let Some(rate) = self.rate_limit() {
            // The operator knows the line. quinn paces at 5/4 of the window: 4/5 of it fill the line as it can take it.
            self.settle(rate, rate * rtt_min.as_secs_f64() * 0.8);
            return;
        }
        if !batch.app_limited {
            self.window += batch.acked_bytes as f64;
            if let Some(train) = self.path.rate_over(TRAIN_DATAGRAMS * self.mtu) {
                startup.train_max = startup.train_max.max(train);
                let told = startup.train_max * rtt_min.as_secs_f64();
                self.window = self.window.max((told * TRAIN_TRUST).min(startup.window_at_start + TRAIN_BYTES_MAX));
                // No train was ever faster than that: more would wait.
                self.window = self.window.min(told * (1.0 + QUEUE_SHARE)).max((INITIAL_DATAGRAMS * self.mtu) as f64);
            }
        }
        if let Some(round) = ended {
            if round.delivered_bytes_per_s >= startup.rate_max * STARTUP_GROWTH {
                startup.rate_max = round.delivered_bytes_per_s;
                startup.flat_rounds = 0;
            } else if !round.app_limited {
                startup.flat_rounds += 1;
            }
            startup.window_at_start = self.window;
        }
        let waits = self.path.rtt_now().unwrap_or(rtt_min).saturating_sub(rtt_min);
        let waits_long = waits > rtt_min.mul_f64(STARTUP_QUEUE_SHARE).max(QUEUE_MIN);
        let is_full = waits_long || startup.flat_rounds >= STARTUP_ROUNDS || self.loss.is_excessive();
        if is_full && !batch.app_limited {
            let rate = self.path.rate_within(rtt_min).unwrap_or(startup.rate_max);
            self.settle(rate, rate * rtt_min.as_secs_f64());
            self.capacity = self.capacity.max(startup.train_max);
        } else {
            self.phase = Phase::Startup(startup);
        }
    }

    /// The line's rate is known; from here the window follows it.
    fn settle(&mut self, rate: f64, window: f64) {
        self.rates = [rate; RATE_ROUNDS];
        self.capacity = rate;
        self.window = window;
        self.loss.reset();
        self.phase = Phase::Drain;
    }

    /// Empties the queue of what this connection keeps there, to see the shortest round trip again.
    fn refresh(&mut self, rtt_min: Duration, now: Instant) {
        self.path.next_generation(now);
        self.capacity = (self.capacity * CAPACITY_KEPT).max(self.rate());
        self.window = self.rate() * rtt_min.as_secs_f64() * REFRESH_SHARE;
        self.phase = Phase::Refresh;
    }

    /// Sets the window by what a round showed.
    fn steer(&mut self, round: Round, rtt_min: Duration) {
        if self.loss.is_excessive() {
            self.loss.reset();
            self.unfilled_rounds = 0;
            self.crowded_rounds = 0;
            // One round's delivery alone is no measure of the line: a machine that stood still for a moment lost most of it.
            let rate = round.delivered_bytes_per_s.max(self.rate() * OVERLOADED_SHARE);
            self.rates = [rate; RATE_ROUNDS];
            self.window = rate * rtt_min.as_secs_f64();
            return;
        }
        let waits_at_least = round.rtt_min.saturating_sub(rtt_min).as_secs_f64();
        let waits_on_average = round.rtt_mean.saturating_sub(rtt_min).as_secs_f64();
        if round.app_limited && waits_at_least < allowed_wait(rtt_min) + ACK_DELAY_MAX.as_secs_f64() {
            // Too little was sent to learn anything from it, and single datagrams are acknowledged late.
            self.unfilled_rounds = 0;
            return;
        }
        self.capacity = self.capacity.max(round.delivered_bytes_per_s);
        self.rates.rotate_left(1);
        self.rates[RATE_ROUNDS - 1] = round.carried_bytes_per_s;

        let noise = rtt_min.as_secs_f64() * NOISE_SHARE;
        let own_wait = self.allowance(rtt_min) / self.capacity.max(1.0);
        let crowd_wait = self.crowd_allowance(rtt_min) / self.capacity.max(1.0);
        if waits_at_least > CROWDED_FACTOR * own_wait.max(noise) + crowd_wait {
            // More waits than this controller ever meant to: what was true some rounds ago is not now.
            self.rates = [round.carried_bytes_per_s; RATE_ROUNDS];
            self.crowded_rounds = (self.crowded_rounds + 1).min(CROWDED_ROUNDS);
        } else if waits_at_least < own_wait.max(noise) {
            self.crowded_rounds /= 2;
        }
        let is_unfilled =
            waits_at_least < (own_wait / 4.0).max(noise) && waits_on_average < own_wait.max(allowed_wait(rtt_min));
        self.unfilled_rounds = if is_unfilled { self.unfilled_rounds.saturating_add(1) } else { 0 };
        let boost = match self.unfilled_rounds {
            0..=2 => 1.0,
            3..=4 => 2.0,
            _ => 5.0,
        };
        // The allowance comes and goes within a round; that is no jitter.
        let varies = waits_on_average - waits_at_least;
        let jitter = (varies - own_wait).clamp(0.0, rtt_min.as_secs_f64() * JITTER_SHARE_MAX);
        let held = self.rate() * (rtt_min.as_secs_f64() + jitter);
        let target = held + self.allowance(rtt_min) * boost + self.crowd_allowance(rtt_min);
        self.window = target.min(self.window * GROWTH_MAX + self.mtu as f64);
    }

    /// The highest carried rate of the last rounds, in bytes a second.
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Bytes that may stand in the queue.
    fn allowance(&self, rtt_min: Duration) -> f64 {
        let least = if rtt_min < SHORT_PATH { self.capacity * QUEUE_MIN.as_secs_f64() } else { 0.0 };
        (self.rate() * allowed_wait(rtt_min)).max(least).max(QUEUE_DATAGRAMS_MIN * self.mtu as f64)
    }

    /// Bytes that may stand in the queue besides, because others stand there: never more than this connection's share of
    /// the line holds, in case the line has become slower and nobody else is there.
    fn crowd_allowance(&self, rtt_min: Duration) -> f64 {
        let grown = f64::from(self.crowded_rounds) / f64::from(CROWDED_ROUNDS);
        grown * (self.capacity * CROWDED_SHARE).min(self.rate()) * rtt_min.as_secs_f64()
    }
}

/// For how long data may wait, in seconds.
fn allowed_wait(rtt_min: Duration) -> f64 {
    (rtt_min.as_secs_f64() * QUEUE_SHARE).max(QUEUE_MIN.as_secs_f64())
}

impl Controller for LinkController {
    fn on_ack(&mut self, _now: Instant, sent: Instant, bytes: u64, app_limited: bool, _rtt: &RttEstimator) {
        self.acknowledge(sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.acknowledged(now);
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.path.on_lost(lost_bytes);
        self.loss.count(0.0, lost_bytes as f64 / self.mtu as f64);
        if is_persistent_congestion {
            // The line was away. It may be another one now (RFC 9002, section 7.6.2).
            self.phase = Phase::Startup(Startup::default());
            self.window = (WINDOW_DATAGRAMS_MIN * self.mtu) as f64;
            self.loss.reset();
        } else if lost_bytes == 0 {
            let rtt = self.path.rtt_min().unwrap_or_default();
            if self.marked_at.is_none_or(|at| now.saturating_duration_since(at) > rtt) {
                self.marked_at = Some(now);
                self.window *= MARKED_SHARE;
                self.rates = self.rates.map(|rate| rate * MARKED_SHARE);
            }
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
    }

    fn window(&self) -> u64 {
        self.limited_window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.limited_window();
        metrics.pacing_rate = Some((self.rate() * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.limited_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
