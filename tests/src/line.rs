//! How a bad line treats what it carries, as pure logic: [`Line`] is told of each packet and says when it arrives, if ever.
//!
//! One `Line` is one direction. Loss is drawn from a seed, so the same traffic meets the same fate. Order is kept.
//!
//! Not here: sockets and waiting (`datagrams`, `link`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};

use crate::seed::generator;

/// What a line is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// One way; a round trip takes twice this.
    pub delay: Duration,
    /// The share of packets that is lost, 0 to 1.
    pub loss: f64,
    /// Bits a second; none is as fast as the machine.
    pub rate_bits_per_s: Option<u64>,
    /// How long a packet may wait for its turn at that rate; later ones are dropped, as a full router does.
    pub queue: Duration,
}

/// A line that does no harm.
pub const CLEAN: Profile =
    Profile { delay: Duration::ZERO, loss: 0.0, rate_bits_per_s: None, queue: Duration::from_millis(500) };

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Lost,
    Arrives(Instant),
}

/// One direction of a line.
pub struct Line {
    profile: Profile,
    is_cut: bool,
    chance: StdRng,
    /// When the last packet has left the sender.
    busy_until: Option<Instant>,
}

impl Line {
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self { profile, is_cut: false, chance: generator(seed), busy_until: None }
    }

    /// Changes what the line is like from the next packet on.
    pub fn set(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Loses everything until healed.
    pub fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// Takes a packet of `size_bytes` handed over at `now`.
    pub fn carry(&mut self, size_bytes: usize, now: Instant) -> Fate {
        if self.is_cut || self.chance.random_bool(self.profile.loss.clamp(0.0, 1.0)) {
            return Fate::Lost;
        }
        let mut leaves = now;
        if let Some(rate) = self.profile.rate_bits_per_s.filter(|rate| *rate > 0) {
            let starts = self.busy_until.map_or(now, |busy| busy.max(now));
            if starts - now > self.profile.queue {
                return Fate::Lost;
            }
            leaves = starts + Duration::from_secs_f64(size_bytes as f64 * 8.0 / rate as f64);
            self.busy_until = Some(leaves);
        }
        Fate::Arrives(leaves + self.profile.delay)
    }
}

/// What one direction has carried, counted as it happens.
#[derive(Debug, Default)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    lost_packets: AtomicU64,
    lost_bytes: AtomicU64,
}

/// The [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Delivered.
    pub packets: u64,
    /// Delivered, without headers below what the relay sees.
    pub bytes: u64,
    pub lost_packets: u64,
    pub lost_bytes: u64,
}

impl Counters {
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            lost_packets: read(&self.lost_packets),
            lost_bytes: read(&self.lost_bytes),
        }
    }

    pub(crate) fn delivered(&self, size_bytes: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, size_bytes: usize) {
        self.lost_packets.fetch_add(1, Ordering::Relaxed);
        self.lost_bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
    }
}

impl Traffic {
    /// What the sender sent: delivered and lost.
    pub fn sent_bytes(self) -> u64 {
        self.bytes + self.lost_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1250;

    fn lost_of(count: usize, line: &mut Line, now: Instant) -> usize {
        (0..count).filter(|_| line.carry(PACKET, now) == Fate::Lost).count()
    }

    #[test]
    fn a_clean_line_delivers_at_once() {
        let now = Instant::now();
        assert_eq!(Line::new(CLEAN, 1).carry(PACKET, now), Fate::Arrives(now));
    }

    #[test]
    fn a_lossy_line_loses_the_share_it_was_told() {
        let mut line = Line::new(Profile { loss: 0.1, ..CLEAN }, 1);
        let lost = lost_of(10_000, &mut line, Instant::now());
        assert!((900..1100).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let now = Instant::now();
        let fates = |seed| {
            let mut line = Line::new(Profile { loss: 0.5, ..CLEAN }, seed);
            (0..64).map(|_| line.carry(PACKET, now)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_drops_them() {
        let now = Instant::now();
        let (rate_bits_per_s, queue) = (Some(1_000_000), Duration::from_millis(25));
        let mut line = Line::new(Profile { rate_bits_per_s, queue, delay: Duration::from_millis(300), loss: 0.0 }, 1);
        let arrivals: Vec<_> = (0..5).map(|_| line.carry(PACKET, now)).collect();
        let after = |ms| Fate::Arrives(now + Duration::from_millis(ms));
        assert_eq!(arrivals, [after(310), after(320), after(330), Fate::Lost, Fate::Lost]);
    }

    #[test]
    fn a_cut_line_loses_everything_until_healed() {
        let now = Instant::now();
        let mut line = Line::new(CLEAN, 1);
        line.set_cut(true);
        assert_eq!(lost_of(10, &mut line, now), 10);
        line.set_cut(false);
        assert_eq!(lost_of(10, &mut line, now), 0);
    }
}
