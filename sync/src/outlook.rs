//! What is still to come over a link, at what rate, and why it waits: told alike by the command line, the API and the pages.
//!
//! [`Wait`] is the one list of reasons, and its `Display` the one place where they become English; the pages have words of
//! their own for each.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::budget::{Hold, Period, UtcOffset, hours};
use crate::wire::Class;

/// How a replica stands with what it is still to get.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Outlook {
    /// Whether a session is open.
    pub connected: bool,
    /// Records to come, as far as is known.
    pub records: u64,
    /// Content that records name and that is not here, by class.
    pub content: BTreeMap<Class, Amount>,
    /// Bytes of content that the peer has asked for and that have not left.
    pub bytes_to_send: u64,
    /// Content received, in bytes a second.
    pub bytes_per_s: u64,
    /// At this rate all content is here in so many seconds; `None` if none is to come, or none moves.
    pub done_in_s: Option<u64>,
    /// Why something waits, if it does.
    pub wait: Option<Wait>,
    /// When the peer is tried next, in seconds from now, if no session is open.
    pub next_attempt_s: Option<u64>,
    /// What is left of the link's budgets, if it has any.
    pub budget: Option<BudgetLeft>,
}

/// How much content there is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Amount {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes, as far as records say.
    pub bytes: u64,
}

/// What is left of the budgets of a link until the first of them starts anew.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BudgetLeft {
    /// For anything, in bytes.
    pub all_bytes: u64,
    /// For content, in bytes.
    pub content_bytes: u64,
}

/// Why what is wanted does not come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Wait {
    /// The link may not be used at this hour.
    OutsideHours(Until),
    /// The budget for everything is used up.
    UsedUp {
        /// Which one.
        period: Period,
        /// Until when.
        #[serde(flatten)]
        until: Until,
    },
    /// The budget for content is used up; records go on.
    ContentUsedUp {
        /// Which one.
        period: Period,
        /// Until when.
        #[serde(flatten)]
        until: Until,
    },
    /// There is no room for content here; records go on.
    NoRoom,
    /// The peer cannot be reached.
    NoLink {
        /// What was met.
        error: String,
    },
    /// The peer ended the session.
    Refused {
        /// What it said.
        text: String,
    },
    /// Nobody has asked for it, and it is not done unasked.
    NotAsked,
}

/// A time to come, as people at the place read it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Until {
    /// In milliseconds since 1970.
    pub until_unix_ms: u64,
    /// What local time is ahead of UTC.
    pub utc_offset: UtcOffset,
}

impl Wait {
    /// Why nothing may cross.
    pub fn held(hold: Hold, utc_offset: UtcOffset) -> Self {
        let until = Until { until_unix_ms: hold.until_unix_ms(), utc_offset };
        match hold {
            Hold::OutsideHours { .. } => Self::OutsideHours(until),
            Hold::UsedUp { period, .. } => Self::UsedUp { period, until },
        }
    }

    /// Why content may not cross, though records may.
    pub fn content_held(hold: Hold, utc_offset: UtcOffset) -> Self {
        match Self::held(hold, utc_offset) {
            Self::UsedUp { period, until } => Self::ContentUsedUp { period, until },
            other => other,
        }
    }

    /// When it is over, if that is known.
    pub fn until(&self) -> Option<Until> {
        match self {
            Self::OutsideHours(until) | Self::UsedUp { until, .. } | Self::ContentUsedUp { until, .. } => Some(*until),
            Self::NoRoom | Self::NoLink { .. } | Self::Refused { .. } | Self::NotAsked => None,
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |period: &Period| match period {
            Period::Day => "day",
            Period::Month => "month",
        };
        match self {
            Self::OutsideHours(until) => write!(f, "outside the hours of this link until {until}"),
            Self::UsedUp { period, until } => {
                write!(f, "the bytes of the {} on this link are used up until {until}", name(period))
            }
            Self::ContentUsedUp { period, until } => {
                let period = name(period);
                write!(f, "the bytes of the {period} for content on this link are used up until {until}; records go on")
            }
            Self::NoRoom => f.write_str("there is no room for content here; records go on"),
            Self::NoLink { error } => write!(f, "no link: {error}"),
            Self::Refused { text } => write!(f, "the bridge refuses: {text}"),
            Self::NotAsked => f.write_str("replication waits to be asked for"),
        }
    }
}

impl Until {
    /// `2026-11-27 06:00`, at the place.
    pub fn to_clock(self) -> String {
        let (hour, minute) = self.utc_offset.hour_and_minute(self.until_unix_ms);
        let (year, month, day) = hours::date(self.utc_offset, self.until_unix_ms);
        format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_clock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_names_its_reason_and_the_local_time_of_its_end() {
        // 2026-11-27, 21:30 UTC.
        let hold = Hold::UsedUp { period: Period::Day, until_unix_ms: 1_795_815_000_000 };
        let utc_offset = "+05:30".parse().unwrap();
        let all = Wait::held(hold, utc_offset);
        assert_eq!(all.to_string(), "the bytes of the day on this link are used up until 2026-11-28 03:00");
        let content = Wait::content_held(hold, utc_offset);
        assert!(content.to_string().ends_with("records go on"), "{content}");
        assert_eq!(content.until(), all.until());
    }
}
