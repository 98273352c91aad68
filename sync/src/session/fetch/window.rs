//! How much may be asked for and not yet be durable: what a cut can cost (invariant 12).
//!
//! The larger of a fixed number of bytes and of what the link surely brings in two seconds, as measured: lanes take turns,
//! so their chunks end together, and what had come in before a measurement began must not count as its speed. A quarter of it is for what
//! waits to be made durable, so that what arrives while that happens does not stop what is on its way.

use super::Config;
use crate::wire::message::CONTENT_LANES;

#[derive(Debug)]
pub(super) struct Window {
    resend_bytes: u64,
    resend_window_ms: u64,
    bytes_max: u64,
    sync_after_ms: u64,
    /// Asked for and not arrived.
    on_the_way: u64,
    /// Arrived and not durable.
    not_durable: u64,
    /// Arrived since a sync was last started.
    since_sync: u64,
    oldest_write_ms: Option<u64>,
    /// For people.
    shown: Meter,
    /// For the window.
    sure: Meter,
}

/// The rate that is shown is measured over at least this long, in milliseconds.
const SHOWN_SPAN_MS: u64 = 1000;
/// The rate that counts is measured over at least this long, in milliseconds.
const SURE_SPAN_MS: u64 = 4000;

/// A sync starts once so many times its bytes would fill the window. The rest is what a long link has on its way: the round trip, chunks that
/// take turns, holes that are sent again, and what arrives during the sync.
const SYNCS_IN_WINDOW: u64 = 4;

/// Measures bytes a second.
#[derive(Debug)]
struct Meter {
    span_ms: u64,
    began_ms: u64,
    bytes: u64,
    largest: u64,
    /// Of the last full span.
    rate: u64,
    /// The same, without what may have been almost here when the span began.
    sure_rate: u64,
}

impl Meter {
    fn new(span_ms: u64, now_ms: u64) -> Self {
        Self { span_ms, began_ms: now_ms, bytes: 0, largest: 0, rate: 0, sure_rate: 0 }
    }

    fn arrived(&mut self, len: u64, now_ms: u64) {
        self.bytes += len;
        self.largest = self.largest.max(len);
        let elapsed_ms = now_ms.saturating_sub(self.began_ms);
        if elapsed_ms >= self.span_ms {
            self.rate = self.bytes * 1000 / elapsed_ms;
            let begun_before = self.largest * u64::from(CONTENT_LANES);
            self.sure_rate = self.bytes.saturating_sub(begun_before) * 1000 / elapsed_ms;
            (self.bytes, self.largest, self.began_ms) = (0, 0, now_ms);
        }
    }
}

impl Window {
    pub(super) fn new(config: &Config, now_ms: u64) -> Self {
        Self {
            resend_bytes: config.resend_bytes,
            resend_window_ms: config.resend_window_ms,
            bytes_max: config.window_bytes_max.max(config.resend_bytes),
            sync_after_ms: config.sync_after_ms,
            on_the_way: 0,
            not_durable: 0,
            since_sync: 0,
            oldest_write_ms: None,
            shown: Meter::new(SHOWN_SPAN_MS, now_ms),
            sure: Meter::new(SURE_SPAN_MS, now_ms),
        }
    }

    /// Its present size, in bytes.
    pub(super) fn size(&self) -> u64 {
        let by_time = self.sure.sure_rate.saturating_mul(self.resend_window_ms) / 1000;
        by_time.clamp(self.resend_bytes, self.bytes_max)
    }

    /// Bytes that have arrived and are not durable.
    pub(super) fn not_durable(&self) -> u64 {
        self.not_durable
    }

    /// Whether `len` more bytes may be asked for.
    pub(super) fn admits(&self, len: u64) -> bool {
        let outstanding = self.on_the_way + self.not_durable;
        // One chunk is always let in, however small the window was configured.
        outstanding == 0 || outstanding + len <= self.size()
    }

    /// Bytes that may be asked for.
    pub(super) fn room(&self) -> u64 {
        self.size().saturating_sub(self.on_the_way + self.not_durable)
    }

    /// What the link brings in a second beyond what is asked for; 0 unless that is known.
    pub(super) fn room_of_a_second(&self, now_ms: u64) -> u64 {
        self.rate(now_ms).saturating_sub(self.on_the_way)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_bare(&self) -> bool {
        self.on_the_way == 0
    }

    pub(super) fn asked(&mut self, len: u64) {
        self.on_the_way += len;
    }

    /// A chunk of `len` bytes has arrived, as `crossed` of them.
    pub(super) fn arrived(&mut self, len: u64, crossed: u64, now_ms: u64) {
        self.on_the_way -= len;
        self.not_durable += len;
        self.since_sync += len;
        self.shown.arrived(len, now_ms);
        self.sure.arrived(crossed, now_ms);
    }

    pub(super) fn wrote(&mut self, now_ms: u64) {
        self.oldest_write_ms.get_or_insert(now_ms);
    }

    pub(super) fn durable(&mut self, len: u64) {
        self.not_durable -= len;
    }

    /// Bytes of a blob that was given up; half of it may have arrived.
    pub(super) fn forget(&mut self, (on_the_way, not_durable): (u64, u64)) {
        self.on_the_way -= on_the_way;
        self.not_durable -= not_durable;
    }

    /// Whether what was written is to be made durable now.
    pub(super) fn sync_due(&self, now_ms: u64) -> bool {
        self.oldest_write_ms.is_some()
            && (self.since_sync >= self.size() / SYNCS_IN_WINDOW
                || self.next_sync().is_some_and(|at_ms| at_ms <= now_ms))
    }

    pub(super) fn next_sync(&self) -> Option<u64> {
        self.oldest_write_ms.map(|at_ms| at_ms + self.sync_after_ms)
    }

    pub(super) fn sync_started(&mut self) {
        self.oldest_write_ms = None;
        self.since_sync = 0;
    }

    pub(super) fn rate(&self, now_ms: u64) -> u64 {
        // Nothing for three spans means that it stands still.
        let idle_ms = now_ms.saturating_sub(self.shown.began_ms);
        if idle_ms > 3 * SHOWN_SPAN_MS { 0 } else { self.shown.rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight chunks of 1 MiB that took turns on a link of 1 MB a second, and so end within one second.
    #[test]
    fn chunks_that_end_together_do_not_widen_the_window() {
        let config = Config { resend_bytes: 4_000_000, resend_window_ms: 2_000, ..Config::default() };
        let mut window = Window::new(&config, 0);
        for turn in 1..6 {
            for chunk in 0..8 {
                window.asked(1 << 20);
                window.arrived(1 << 20, 1 << 20, turn * 8_400 + chunk * 150);
                assert_eq!(window.size(), 4_000_000);
            }
        }
    }

    #[test]
    fn a_fast_link_widens_the_window_to_what_it_brings_in_two_seconds() {
        let mut window = Window::new(&Config::default(), 0);
        for chunk in 0..200 {
            window.asked(1 << 20);
            window.arrived(1 << 20, 1 << 20, chunk * 100);
        }
        assert!((16_000_000..=21_000_000).contains(&window.size()), "{}", window.size());
    }

    /// What comes whole after them would cost all of it again.
    #[test]
    fn chunks_that_come_as_patches_do_not_pass_for_a_fast_link() {
        let mut window = Window::new(&Config::default(), 0);
        for chunk in 0..200 {
            window.asked(1 << 20);
            window.arrived(1 << 20, 500, chunk * 100);
        }
        assert_eq!(window.size(), Config::default().resend_bytes);
    }
}
