//! How much may be asked for and not yet be durable: what a cut can cost (invariant 12).
//!
//! The larger of a fixed number of bytes and of what the link brings in two seconds, as measured. Half of it is for what
//! is on its way, half for what waits to be made durable, so that neither stalls the other.

use super::Config;

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
    /// Bytes a second, over the last full second of receiving.
    rate: u64,
    second_began_ms: u64,
    second_bytes: u64,
}

/// The rate is measured over at least this long, in milliseconds.
const RATE_SPAN_MS: u64 = 1000;

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
            rate: 0,
            second_began_ms: now_ms,
            second_bytes: 0,
        }
    }

    /// Its present size, in bytes.
    pub(super) fn size(&self) -> u64 {
        let by_time = self.rate.saturating_mul(self.resend_window_ms) / 1000;
        by_time.clamp(self.resend_bytes, self.bytes_max)
    }

    /// Whether `len` more bytes may be asked for.
    pub(super) fn admits(&self, len: u64) -> bool {
        let outstanding = self.on_the_way + self.not_durable;
        // One chunk is always let in, however small the window was configured.
        outstanding == 0 || outstanding + len <= self.size()
    }

    pub(super) fn asked(&mut self, len: u64) {
        self.on_the_way += len;
    }

    pub(super) fn arrived(&mut self, len: u64, now_ms: u64) {
        self.on_the_way -= len;
        self.not_durable += len;
        self.since_sync += len;
        self.second_bytes += len;
        let elapsed_ms = now_ms.saturating_sub(self.second_began_ms);
        if elapsed_ms >= RATE_SPAN_MS {
            self.rate = self.second_bytes * 1000 / elapsed_ms;
            self.second_bytes = 0;
            self.second_began_ms = now_ms;
        }
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
            && (self.since_sync >= self.size() / 2 || self.next_sync().is_some_and(|at_ms| at_ms <= now_ms))
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
        if now_ms.saturating_sub(self.second_began_ms) > 3 * RATE_SPAN_MS { 0 } else { self.rate }
    }
}
