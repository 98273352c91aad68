//! What a link may be used for: bytes a day and a month, hours, a rate, and a reserve for records.
//!
//! - [`LinkPolicy`]: what the operator allows. [`hours`]: local time.
//! - [`Spent`]: what was used, day by day and month by month, as it is kept on disk.
//! - [`Ledger`]: both together: how much is left, and [`Hold`], why nothing may go.
//! - [`account`]: what is reserved on disk before it is used, so that a crash can only count too much.
//!
//! Invariants:
//! - What is counted for a period never passes its budget (invariant 13).
//! - A period never starts twice: its count is kept, and going back to it goes on with that count.
//! - Content leaves the reserve alone, so that records go on.
//!
//! Not here: measuring (the transport), holding content back (`session`), ending sessions and waiting (the host).

pub mod account;
pub mod hours;

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

pub use account::{Account, Exposure, Word, wire_cost};
pub use hours::{Hours, UtcOffset};

/// Days that are remembered: a clock that went back further goes on with the oldest.
const DAYS_KEPT: usize = 16;
/// Months that are remembered.
const MONTHS_KEPT: usize = 4;

/// What an operator allows on a link. The default allows everything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkPolicy {
    /// Bytes on the wire in a local day, both ways.
    pub bytes_a_day: Option<u64>,
    /// Bytes on the wire in a local month, both ways.
    pub bytes_a_month: Option<u64>,
    /// When the link may be used; always if there are none.
    pub hours: Vec<Hours>,
    /// What makes local time of UTC.
    pub offset: UtcOffset,
    /// Content takes no more than this in a second, in bytes.
    pub rate_bytes_per_s: Option<u64>,
    /// The share of each budget that content leaves to records and control, in percent.
    pub reserve_percent: u8,
}

/// Why a link may not be used, and until when.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "hold", rename_all = "snake_case")]
pub enum Hold {
    /// It is not one of the hours.
    OutsideHours {
        /// When it is, in milliseconds since 1970.
        until_unix_ms: u64,
    },
    /// The bytes of a day or a month are used up.
    UsedUp {
        /// Of which.
        period: Period,
        /// When there are new ones and it is one of the hours, in milliseconds since 1970.
        until_unix_ms: u64,
    },
}

impl Hold {
    /// Until when, in milliseconds since 1970.
    pub const fn until_unix_ms(self) -> u64 {
        match self {
            Self::OutsideHours { until_unix_ms } | Self::UsedUp { until_unix_ms, .. } => until_unix_ms,
        }
    }
}

/// What a budget is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Period {
    Day,
    Month,
}

/// What was used, as it is kept on disk.
#[derive(Clone, Debug, Decode, Default, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Spent {
    #[n(0)]
    days: Counts,
    #[n(1)]
    months: Counts,
    /// The latest time at which something was counted, in milliseconds since 1970: a clock that nobody vouches for is
    /// taken to be no earlier.
    #[n(2)]
    seen_unix_ms: u64,
}

/// Bytes for each of the last periods, by number.
#[derive(Clone, Debug, Decode, Default, Encode, Eq, PartialEq)]
#[cbor(map)]
struct Counts {
    #[n(0)]
    bytes: BTreeMap<i64, u64>,
    /// Periods up to this one were forgotten.
    #[n(1)]
    forgotten: Option<i64>,
}

/// What is left of a link's budgets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Left {
    /// For anything, in bytes; `u64::MAX` without a budget.
    pub all_bytes: u64,
    /// For content, in bytes.
    pub content_bytes: u64,
}

/// A policy and what was used under it.
#[derive(Clone, Debug)]
pub struct Ledger {
    policy: LinkPolicy,
    spent: Spent,
}

impl LinkPolicy {
    /// Whether bytes have to be counted.
    pub fn has_budget(&self) -> bool {
        self.bytes_a_day.is_some() || self.bytes_a_month.is_some()
    }

    /// When the link may be used again if it may not now; `None` if it may.
    pub fn outside_hours(&self, now_unix_ms: u64) -> Option<Hold> {
        let until_unix_ms = hours::next_open(&self.hours, self.offset, now_unix_ms);
        (until_unix_ms > now_unix_ms).then_some(Hold::OutsideHours { until_unix_ms })
    }

    fn reserve(&self, budget: u64) -> u64 {
        (u128::from(budget) * u128::from(self.reserve_percent.min(100)) / 100) as u64
    }
}

impl Ledger {
    /// A ledger that goes on from what was kept.
    pub fn new(policy: LinkPolicy, spent: Spent) -> Self {
        Self { policy, spent }
    }

    /// What is allowed.
    pub fn policy(&self) -> &LinkPolicy {
        &self.policy
    }

    /// What is to be kept.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// The time that counts when a clock shows `unix_ms`: one that nobody vouches for is no earlier than what was seen.
    pub fn time(&self, unix_ms: u64, is_trusted: bool) -> u64 {
        if is_trusted { unix_ms } else { unix_ms.max(self.spent.seen_unix_ms) }
    }

    /// What is left.
    pub fn left(&self, now_unix_ms: u64) -> Left {
        self.left_besides(0, now_unix_ms)
    }

    /// What would be left if `reserved` bytes that were counted were not.
    pub(crate) fn left_besides(&self, reserved: u64, now_unix_ms: u64) -> Left {
        let mut left = Left { all_bytes: u64::MAX, content_bytes: u64::MAX };
        for (_, budget, used) in self.budgets(now_unix_ms) {
            let used = used.saturating_sub(reserved);
            left.all_bytes = left.all_bytes.min(budget.saturating_sub(used));
            let for_content = budget - self.policy.reserve(budget);
            left.content_bytes = left.content_bytes.min(for_content.saturating_sub(used));
        }
        left
    }

    /// Why `bytes` more may not go, if so.
    pub fn hold(&self, bytes: u64, now_unix_ms: u64) -> Option<Hold> {
        let outside = self.policy.outside_hours(now_unix_ms);
        outside.or_else(|| self.hold_where(now_unix_ms, |budget, used| budget.saturating_sub(used) < bytes))
    }

    /// Why `bytes` more of content may not go, if so.
    pub fn content_hold(&self, bytes: u64, now_unix_ms: u64) -> Option<Hold> {
        self.content_hold_besides(0, bytes, now_unix_ms)
    }

    fn content_hold_besides(&self, reserved: u64, bytes: u64, now_unix_ms: u64) -> Option<Hold> {
        let left = |budget, used: u64| {
            let for_content: u64 = budget - self.policy.reserve(budget);
            for_content.saturating_sub(used.saturating_sub(reserved))
        };
        let held = self.hold_where(now_unix_ms, |budget, used| left(budget, used) < bytes);
        self.policy.outside_hours(now_unix_ms).or(held)
    }

    fn hold_where(&self, now_unix_ms: u64, is_used_up: impl Fn(u64, u64) -> bool) -> Option<Hold> {
        let used_up = self.budgets(now_unix_ms).filter(|(_, budget, used)| is_used_up(*budget, *used));
        used_up
            .map(|(period, ..)| {
                let offset = self.policy.offset;
                let next = match period {
                    Period::Day => hours::next_day(offset, now_unix_ms),
                    Period::Month => hours::next_month(offset, now_unix_ms),
                };
                Hold::UsedUp { period, until_unix_ms: hours::next_open(&self.policy.hours, offset, next) }
            })
            .max_by_key(|hold| hold.until_unix_ms())
    }

    /// Each budget with what was used of it.
    fn budgets(&self, now_unix_ms: u64) -> impl Iterator<Item = (Period, u64, u64)> {
        let (day, month) = self.periods(now_unix_ms);
        let days = self.policy.bytes_a_day.map(|budget| (Period::Day, budget, self.spent.days.of(day)));
        let months = self.policy.bytes_a_month.map(|budget| (Period::Month, budget, self.spent.months.of(month)));
        days.into_iter().chain(months)
    }

    fn periods(&self, now_unix_ms: u64) -> (i64, i64) {
        let day = hours::day(self.policy.offset, now_unix_ms);
        (day, hours::month_of_day(day))
    }

    /// Counts bytes.
    fn spend(&mut self, bytes: u64, now_unix_ms: u64) {
        let (day, month) = self.periods(now_unix_ms);
        self.spent.days.add(day, bytes, DAYS_KEPT);
        self.spent.months.add(month, bytes, MONTHS_KEPT);
        self.spent.seen_unix_ms = now_unix_ms;
    }

    /// Takes back bytes that were counted at `then_unix_ms` and not used.
    fn give_back(&mut self, bytes: u64, then_unix_ms: u64) {
        let (day, month) = self.periods(then_unix_ms);
        self.spent.days.take_back(day, bytes);
        self.spent.months.take_back(month, bytes);
    }
}

impl Counts {
    /// The period that counts for `period`: the oldest that is remembered, if that one may have been forgotten.
    fn counting(&self, period: i64) -> i64 {
        match (self.forgotten, self.bytes.first_key_value()) {
            (Some(forgotten), Some((&oldest, _))) if period <= forgotten => oldest,
            _ => period,
        }
    }

    fn of(&self, period: i64) -> u64 {
        self.bytes.get(&self.counting(period)).copied().unwrap_or_default()
    }

    fn add(&mut self, period: i64, bytes: u64, kept: usize) {
        let count = self.bytes.entry(self.counting(period)).or_default();
        *count = count.saturating_add(bytes);
        while self.bytes.len() > kept {
            self.forgotten = self.bytes.pop_first().map(|(oldest, _)| oldest);
        }
    }

    fn take_back(&mut self, period: i64, bytes: u64) {
        let period = self.counting(period);
        if let Some(count) = self.bytes.get_mut(&period) {
            *count = count.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
