//! Which transport a session uses: decided from what each did on this network before.
//!
//! Pure: times are passed in. QUIC is the first choice. TCP goes first where QUIC got no answer, where its sessions break
//! off, where something else answers in the bridge's place, or where TCP was measurably faster. Whatever goes first, the
//! other one has a session of its own now and then, so that a network that has changed is noticed.
//!
//! Not here: remembering it on disk (`network_memory`), and dialling (`connect`).

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use alexandria_sync::quic::{MTU_MAX, MTU_MIN, Mtu};
use alexandria_sync::transport::{Transport, WireBytes};
use serde::{Deserialize, Serialize};

/// The transport that does not go first is tried again after this long.
const PROBE_AFTER_MS: u64 = 24 * 60 * 60 * 1000;
/// TCP must be this much faster to go first, in hundredths: measurements differ from day to day.
const FASTER_PERCENT: u64 = 125;
/// Sessions in a row that break off early before the other transport goes first.
const BROKEN_MAX: u32 = 3;

/// A size of datagrams that was found is looked for again after this long.
const MTU_GOOD_FOR_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What may be set.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportSetting {
    /// Whatever does best on the network.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// TCP only.
    Tcp,
}

/// What is known of a transport on a network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Experience {
    /// When it was last tried, in milliseconds since 1970.
    pub(super) tried_unix_ms: Option<u64>,
    /// It did not connect when it was last tried, and the other one did.
    pub(super) is_unreachable: bool,
    /// Sessions in a row that broke off early, or did not begin for something else answered.
    pub(super) broken: u32,
    /// What it carried at its best, in bytes a second.
    pub(super) goodput: Option<u64>,
}

impl Experience {
    fn is_usable(&self) -> bool {
        !self.is_unreachable && self.broken < BROKEN_MAX
    }

    /// It was tried, and what answered was not the bridge.
    pub(super) fn has_failed(&mut self, now_unix_ms: u64) {
        self.tried_unix_ms = Some(now_unix_ms);
        self.broken = self.broken.saturating_add(1);
    }

    /// Takes over what a session has shown.
    pub(super) fn learn(&mut self, goodput: Option<u64>, broke_off_early: bool) {
        self.broken = if broke_off_early { self.broken.saturating_add(1) } else { 0 };
        self.goodput = match (self.goodput, goodput) {
            // The newest counts most, and one bad hour does not decide alone.
            (Some(known), Some(new)) => Some(known.midpoint(new)),
            (known, new) => new.or(known),
        };
    }
}

/// What is known of both on one network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Experiences {
    /// When the network was first seen, in milliseconds since 1970.
    pub(super) since_unix_ms: u64,
    pub(super) quic: Experience,
    pub(super) tcp: Experience,
    /// What size of datagrams the way was found to carry.
    pub(super) mtu: Option<FoundMtu>,
}

/// A size of datagrams that was found.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct FoundMtu {
    /// Bytes of UDP payload.
    pub(super) bytes: u16,
    /// When, in milliseconds since 1970.
    pub(super) unix_ms: u64,
}

impl Experiences {
    /// What a connection is to take for granted and to try out, if it may.
    pub(super) fn mtu(&self, may_probe: bool, now_unix_ms: u64) -> Mtu {
        let is_old = self.mtu.is_none_or(|found| now_unix_ms.abs_diff(found.unix_ms) > MTU_GOOD_FOR_MS);
        Mtu { known: self.mtu.map(|found| found.bytes.clamp(MTU_MIN, MTU_MAX)), is_probed: may_probe && is_old }
    }

    pub(super) fn of(&mut self, transport: Transport) -> &mut Experience {
        match transport {
            Transport::Quic => &mut self.quic,
            Transport::Tcp => &mut self.tcp,
        }
    }
}

/// What to try, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Choice {
    pub(super) first: Transport,
    /// What to try if that gets no answer, or, when it is a probe, does not connect for whatever reason.
    pub(super) then: Option<Transport>,
    pub(super) why: Why,
}

/// Why a transport is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// `replication.transport` says so.
    Set,
    /// It is what is used if nothing speaks against it.
    Usual,
    /// The other one got no answer on this network.
    OtherUnreachable,
    /// Sessions over the other one broke off.
    OtherBreaks,
    /// It was faster.
    Faster { bytes_per_s: u64, other_bytes_per_s: u64 },
    /// To see how it does now.
    Probe,
    /// The other one has just not connected.
    FellBack,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set => f.write_str("set by replication.transport"),
            Self::Usual => f.write_str("the first choice"),
            Self::OtherUnreachable => f.write_str("the other transport got no answer on this network"),
            Self::OtherBreaks => f.write_str("sessions over the other transport broke off on this network"),
            Self::Faster { bytes_per_s, other_bytes_per_s } => {
                write!(f, "faster on this network: {bytes_per_s} bytes a second against {other_bytes_per_s}")
            }
            Self::Probe => f.write_str("to see how it does on this network now"),
            Self::FellBack => f.write_str("the other transport did not connect just now"),
        }
    }
}

/// Decides for the next session.
pub(super) fn choose(setting: TransportSetting, known: &Experiences, now_unix_ms: u64) -> Choice {
    match setting {
        TransportSetting::Quic => return Choice { first: Transport::Quic, then: None, why: Why::Set },
        TransportSetting::Tcp => return Choice { first: Transport::Tcp, then: None, why: Why::Set },
        TransportSetting::Auto => {}
    }
    let (best, why) = best(known);
    let other = best.other();
    let idle_since = match other {
        Transport::Quic => known.quic.tried_unix_ms,
        Transport::Tcp => known.tcp.tried_unix_ms,
    };
    let idle_since = idle_since.unwrap_or(known.since_unix_ms);
    // A clock that went back does not put it off for years.
    if now_unix_ms.abs_diff(idle_since) > PROBE_AFTER_MS {
        return Choice { first: other, then: Some(best), why: Why::Probe };
    }
    Choice { first: best, then: Some(other), why }
}

fn best(known: &Experiences) -> (Transport, Why) {
    let (quic, tcp) = (known.quic, known.tcp);
    if quic.is_usable() != tcp.is_usable() {
        let (usable, other) = if quic.is_usable() { (Transport::Quic, tcp) } else { (Transport::Tcp, quic) };
        let why = if other.is_unreachable { Why::OtherUnreachable } else { Why::OtherBreaks };
        return (usable, if usable == Transport::Quic { Why::Usual } else { why });
    }
    match (quic.goodput, tcp.goodput) {
        (Some(over_quic), Some(over_tcp)) if over_tcp > over_quic.saturating_mul(FASTER_PERCENT) / 100 => {
            (Transport::Tcp, Why::Faster { bytes_per_s: over_tcp, other_bytes_per_s: over_quic })
        }
        _ => (Transport::Quic, Why::Usual),
    }
}

/// Measures what a session carries at its best: content, over [`Self::WINDOW`].
#[derive(Debug, Default)]
pub(super) struct GoodputMeter {
    /// Time, content both ways, wire both ways.
    samples: VecDeque<(Duration, u64, u64)>,
    best: Option<u64>,
}

impl GoodputMeter {
    /// How often a sample is taken.
    pub(super) const EVERY: Duration = Duration::from_secs(1);
    /// Long enough that buffers on the way do not pass for speed.
    const WINDOW: Duration = Duration::from_secs(10);
    /// Less than this says nothing about the network.
    const MOVED_BYTES_MIN: u64 = 512 * 1024;

    /// Takes a sample, `at` after the session began. Content that is sent counts once it is on the wire.
    pub(super) fn note(&mut self, at: Duration, content_bytes: u64, wire: WireBytes) {
        self.samples.push_back((at, content_bytes, wire.sent + wire.received));
        while let Some((first_at, first_content, first_wire)) = self.samples.front().copied()
            && at.saturating_sub(first_at) >= Self::WINDOW
        {
            self.samples.pop_front();
            // At the end of a session its progress starts over.
            let content = content_bytes.saturating_sub(first_content);
            let moved = content.min((wire.sent + wire.received).saturating_sub(first_wire));
            if moved >= Self::MOVED_BYTES_MIN {
                let rate = (moved as f64 / at.saturating_sub(first_at).as_secs_f64()) as u64;
                self.best = self.best.max(Some(rate));
            }
        }
    }

    /// Bytes a second, if enough has moved to tell.
    pub(super) fn goodput(&self) -> Option<u64> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const HOUR: u64 = 60 * 60 * 1000;

    fn known(quic: Experience, tcp: Experience) -> Experiences {
        Experiences { since_unix_ms: NOW - HOUR, quic, tcp, mtu: None }
    }

    fn tried(goodput: Option<u64>) -> Experience {
        Experience { tried_unix_ms: Some(NOW - HOUR), goodput, ..Experience::default() }
    }

    fn auto(known: &Experiences) -> Choice {
        choose(TransportSetting::Auto, known, NOW)
    }

    #[test]
    fn quic_goes_first_on_a_network_that_is_new() {
        let choice = auto(&Experiences { since_unix_ms: NOW, ..Experiences::default() });
        assert_eq!(choice, Choice { first: Transport::Quic, then: Some(Transport::Tcp), why: Why::Usual });
    }

    #[test]
    fn what_is_set_is_used_and_nothing_else() {
        let blocked = Experience { is_unreachable: true, ..tried(None) };
        let choice = choose(TransportSetting::Quic, &known(blocked, tried(Some(1))), NOW);
        assert_eq!(choice, Choice { first: Transport::Quic, then: None, why: Why::Set });
        assert_eq!(choose(TransportSetting::Tcp, &Experiences::default(), NOW).first, Transport::Tcp);
    }

    #[test]
    fn tcp_goes_first_where_quic_gets_no_answer_and_quic_still_comes_second() {
        let blocked = Experience { is_unreachable: true, ..tried(None) };
        let choice = auto(&known(blocked, tried(None)));
        assert_eq!(choice, Choice { first: Transport::Tcp, then: Some(Transport::Quic), why: Why::OtherUnreachable });
    }

    #[test]
    fn tcp_goes_first_after_three_sessions_over_quic_broke_off() {
        let mut quic = tried(None);
        for _ in 0..2 {
            quic.learn(None, true);
            assert_eq!(auto(&known(quic, tried(None))).first, Transport::Quic);
        }
        quic.learn(None, true);
        assert_eq!(auto(&known(quic, tried(None))).why, Why::OtherBreaks);
        quic.learn(None, false);
        assert_eq!(auto(&known(quic, tried(None))).first, Transport::Quic);
    }

    #[test]
    fn tcp_goes_first_only_if_it_is_clearly_faster() {
        assert_eq!(auto(&known(tried(Some(1000)), tried(Some(1200)))).first, Transport::Quic);
        let choice = auto(&known(tried(Some(1000)), tried(Some(1300))));
        assert_eq!(choice.first, Transport::Tcp);
        assert_eq!(choice.why, Why::Faster { bytes_per_s: 1300, other_bytes_per_s: 1000 });
        assert_eq!(auto(&known(tried(None), tried(Some(1_000_000)))).first, Transport::Quic, "nothing to compare with");
    }

    /// Each day the other one has a session: QUIC where it was blocked, TCP where it was slower or never needed.
    #[test]
    fn the_other_transport_is_tried_again_after_a_day() {
        let day_ago = Some(NOW - 25 * HOUR);
        let blocked = Experience { is_unreachable: true, tried_unix_ms: day_ago, ..Experience::default() };
        let choice = auto(&known(blocked, tried(None)));
        assert_eq!(choice, Choice { first: Transport::Quic, then: Some(Transport::Tcp), why: Why::Probe });
        let slower = Experience { tried_unix_ms: day_ago, ..tried(Some(10)) };
        assert_eq!(auto(&known(tried(Some(1000)), slower)).first, Transport::Tcp);
        let long_known = Experiences { since_unix_ms: NOW - 25 * HOUR, ..known(tried(None), Experience::default()) };
        assert_eq!(auto(&long_known).first, Transport::Tcp);
    }

    /// Trying sizes out costs bytes: it is done once a week, and never where that is not wanted.
    #[test]
    fn the_size_of_datagrams_is_sought_once_and_again_after_a_week() {
        let mut known = Experiences::default();
        assert_eq!(known.mtu(true, NOW), Mtu { known: None, is_probed: true });
        assert_eq!(known.mtu(false, NOW), Mtu { known: None, is_probed: false });
        known.mtu = Some(FoundMtu { bytes: 1400, unix_ms: NOW });
        assert_eq!(known.mtu(true, NOW + HOUR), Mtu { known: Some(1400), is_probed: false });
        assert_eq!(known.mtu(true, NOW + 8 * 24 * HOUR), Mtu { known: Some(1400), is_probed: true });
        known.mtu = Some(FoundMtu { bytes: 65_000, unix_ms: NOW });
        assert_eq!(known.mtu(false, NOW).known, Some(MTU_MAX), "a damaged file does no harm");
    }

    #[test]
    fn goodput_is_content_over_the_best_ten_seconds() {
        let mut meter = GoodputMeter::default();
        let mut content = 0;
        for second in 0..60 {
            meter.note(Duration::from_secs(second), content, WireBytes { received: content, ..WireBytes::default() });
            content += if (20..40).contains(&second) { 500_000 } else { 10_000 };
        }
        // The session has ended: its progress starts over.
        meter.note(Duration::from_mins(1), 0, WireBytes { received: content, ..WireBytes::default() });
        assert_eq!(meter.goodput(), Some(500_000));
    }

    /// A session fills buffers at once; what counts is what has left them.
    #[test]
    fn what_waits_in_buffers_is_no_goodput() {
        let mut meter = GoodputMeter::default();
        for second in 0..30 {
            let wire = WireBytes { sent: second * 60_000, ..WireBytes::default() };
            let content = if second == 0 { 0 } else { 10_000_000 + second * 60_000 };
            meter.note(Duration::from_secs(second), content, wire);
        }
        assert_eq!(meter.goodput(), Some(60_000));
        let mut idle = GoodputMeter::default();
        (0..30).for_each(|second| idle.note(Duration::from_secs(second), second, WireBytes::default()));
        assert_eq!(idle.goodput(), None);
    }
}
