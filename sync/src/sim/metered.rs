//! A node's link to its bridge under an operator's policy, as a host keeps to it: what a session may use is on the disk before
//! it may cross, what has crossed is measured now and then, and what is left at the end is given back.
//!
//! The rules are [`crate::budget`]'s; here is what a host adds, without a clock, and beside it what really crossed, counted
//! by the judge (invariant 13). Not here: when to look and what the session is told (`world/budgets`).

use std::collections::BTreeMap;

use crate::budget::account::CONNECT_BYTES;
use crate::budget::hours::date;
use crate::budget::{Account, Exposure, Hold, Ledger, LinkPolicy, Spent, Word};

/// What an operator allows.
#[derive(Clone, Debug)]
pub(super) struct LinkPlan {
    pub(super) bytes_a_day: u64,
    pub(super) bytes_a_month: Option<u64>,
    pub(super) reserve_percent: u8,
    /// Minutes of the hour at whose end local days begin: worlds begin at midnight in Greenwich.
    pub(super) midnight_minute: u8,
    /// Minutes after midnight for which the link may be used, if not all day.
    pub(super) open_minutes: Option<u8>,
}

impl LinkPlan {
    fn policy(&self) -> LinkPolicy {
        let hours = self.open_minutes.map(|minutes| format!("00:00-{:02}:{:02}", minutes / 60, minutes % 60));
        LinkPolicy {
            bytes_a_day: Some(self.bytes_a_day),
            bytes_a_month: self.bytes_a_month,
            hours: hours.into_iter().map(|hours| hours.parse().expect("it is a span")).collect(),
            offset: format!("-00:{:02}", self.midnight_minute).parse().expect("it is an offset"),
            reserve_percent: self.reserve_percent,
            rate_bytes_per_s: None,
        }
    }
}

/// The link, what was counted, and what has crossed.
#[derive(Debug)]
pub(super) struct MeteredLink {
    policy: LinkPolicy,
    /// As it is on the disk.
    disk: Spent,
    pub(super) in_use: Option<LinkUse>,
    /// What has really crossed, by local date; the 0th day of a month is all of it.
    crossed: BTreeMap<(i64, i64, i64), u64>,
}

/// The use of the link by one connection.
#[derive(Debug)]
pub(super) struct LinkUse {
    pub(super) connection: u64,
    account: Account,
    /// What the connection has carried, as this end sees it, and how much of that was measured.
    meter: u64,
    measured: u64,
    /// On its way to the disk.
    keeping: Option<Spent>,
    /// When somebody looks next.
    pub(super) look_us: Option<u64>,
}

/// The time, three ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkTime {
    pub(super) unix_ms: u64,
    pub(super) is_trusted: bool,
    pub(super) world_ms: u64,
}

impl MeteredLink {
    pub(super) fn new(plan: &LinkPlan) -> Self {
        Self { policy: plan.policy(), disk: Spent::default(), in_use: None, crossed: BTreeMap::new() }
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.policy.clone(), self.disk.clone())
    }

    /// The receive window of a lane.
    pub(super) fn lane_window_bytes(&self) -> usize {
        Exposure::under(&self.policy).lane_window_bytes as usize
    }

    /// For how long the clock shows times that do not count, for later ones were seen, in milliseconds.
    pub(super) fn behind_ms(&self, at: LinkTime) -> u64 {
        self.ledger().time(at.unix_ms, at.is_trusted) - at.unix_ms
    }

    /// How long the bridge may not be dialled, in milliseconds, if so.
    pub(super) fn held_for_ms(&self, at: LinkTime) -> Option<u64> {
        let ledger = self.ledger();
        let now_unix_ms = ledger.time(at.unix_ms, at.is_trusted);
        let hold = Account::open(ledger, now_unix_ms, at.world_ms).hold(now_unix_ms)?;
        Some(hold.until_unix_ms().saturating_sub(now_unix_ms))
    }

    /// Counts, durably, what an attempt to connect may use, and begins it. What its session may begin with.
    pub(super) fn open(&mut self, connection: u64, at: LinkTime, keeps: bool) -> Word {
        let ledger = self.ledger();
        let now_unix_ms = ledger.time(at.unix_ms, at.is_trusted);
        let mut account = Account::open(ledger, now_unix_ms, at.world_ms);
        if let Some(spent) = account.reserve(None, now_unix_ms).filter(|_| keeps) {
            self.disk = spent;
        }
        account.kept();
        let word = account.word(now_unix_ms);
        self.in_use = Some(LinkUse { connection, account, meter: 0, measured: 0, keeping: None, look_us: None });
        word
    }

    /// No connection came about; `bytes` were lost on it.
    pub(super) fn failed(&mut self, bytes: u64, at: LinkTime) -> Option<String> {
        self.open(0, at, true);
        let fault = self.note_crossed(bytes.min(CONNECT_BYTES), at);
        if let Some(in_use) = &mut self.in_use {
            in_use.meter = CONNECT_BYTES;
        }
        self.close(at, true);
        fault
    }

    /// The connection has carried so much until now; says so if that passes the budget.
    pub(super) fn note_crossed(&mut self, meter: u64, at: LinkTime) -> Option<String> {
        let in_use = self.in_use.as_mut()?;
        let bytes = meter.saturating_sub(in_use.meter);
        if bytes == 0 {
            return None;
        }
        in_use.meter = meter;
        let now_unix_ms = in_use.account.ledger().time(at.unix_ms, at.is_trusted);
        let (year, month, day) = date(self.policy.offset, now_unix_ms);
        let days = [(day, self.policy.bytes_a_day), (0, self.policy.bytes_a_month)];
        days.into_iter().find_map(|(day, budget)| {
            let crossed = self.crossed.entry((year, month, day)).or_default();
            *crossed += bytes;
            let budget = budget.filter(|budget| *crossed > *budget)?;
            Some(format!("{crossed} bytes crossed a link on {year}-{month}-{day} that may carry {budget}"))
        })
    }

    /// Measures, and reserves what is needed next: true if that goes to the disk first.
    pub(super) fn measure(&mut self, short: Option<u64>, at: LinkTime) -> bool {
        let Some(in_use) = self.in_use.as_mut() else { return false };
        let now_unix_ms = in_use.take_measure(at);
        in_use.keeping = in_use.account.reserve(short, now_unix_ms);
        in_use.keeping.is_some()
    }

    pub(super) fn is_keeping(&self) -> bool {
        self.in_use.as_ref().is_some_and(|in_use| in_use.keeping.is_some())
    }

    /// What was reserved is on the disk. What the session may go on with, or why it must end.
    pub(super) fn kept(&mut self, at: LinkTime, keeps: bool) -> Option<Result<Word, Hold>> {
        let in_use = self.in_use.as_mut()?;
        if let Some(spent) = in_use.keeping.take().filter(|_| keeps) {
            self.disk = spent;
        }
        in_use.account.kept();
        let now_unix_ms = in_use.account.ledger().time(at.unix_ms, at.is_trusted);
        let hold = in_use.account.hold(now_unix_ms);
        Some(hold.map_or_else(|| Ok(in_use.account.word(now_unix_ms)), Err))
    }

    /// The connection is gone: measures once more, and gives back what was not used.
    pub(super) fn close(&mut self, at: LinkTime, keeps: bool) {
        let Some(mut in_use) = self.in_use.take() else { return };
        let now_unix_ms = in_use.take_measure(at);
        let ledger = in_use.account.close(now_unix_ms, at.world_ms);
        if keeps {
            self.disk = ledger.spent().clone();
        }
    }

    /// The power goes: what was on its way to the disk has reached it, or not.
    pub(super) fn lose_power(&mut self, has_landed: bool) {
        if let Some(spent) = self.in_use.take().and_then(|in_use| in_use.keeping).filter(|_| has_landed) {
            self.disk = spent;
        }
    }
}

impl LinkUse {
    fn take_measure(&mut self, at: LinkTime) -> u64 {
        let now_unix_ms = self.account.ledger().time(at.unix_ms, at.is_trusted);
        let crossed = self.meter - std::mem::replace(&mut self.measured, self.meter);
        self.account.measure(crossed, now_unix_ms, at.world_ms);
        now_unix_ms
    }
}
