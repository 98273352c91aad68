//! What an operator says about the link, as it stands in the configuration.

use alexandria_sync::budget::{Hours, LinkPolicy, UtcOffset};
use serde::{Deserialize, Deserializer, Serialize};

/// A smaller budget would not even carry a session with its records, in bytes.
const BUDGET_BYTES_MIN: u64 = 1_000_000;
/// A lower rate would hold a reader up for good, in bytes a second.
const RATE_BYTES_PER_S_MIN: u64 = 1_000;
/// More than this share would leave content next to nothing.
const RESERVE_PERCENT_MAX: u8 = 90;

/// The link to the bridge. By default everything is allowed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// Bytes on the wire in a local day, both ways.
    #[serde(deserialize_with = "budget")]
    pub bytes_a_day: Option<u64>,
    /// Bytes on the wire in a local month, both ways.
    #[serde(deserialize_with = "budget")]
    pub bytes_a_month: Option<u64>,
    /// When the link may be used, in local time: `22:00-06:00`. Always if there are none.
    pub hours: Vec<Hours>,
    /// What local time is ahead of UTC: `+03:00`.
    pub utc_offset: UtcOffset,
    /// Content takes no more than this in a second, in bytes.
    #[serde(deserialize_with = "rate")]
    pub rate_bytes_per_s: Option<u64>,
    /// Whether every byte costs: quiet connections say less.
    pub metered: bool,
    /// The share of each budget that content leaves to records, in percent.
    #[serde(deserialize_with = "reserve")]
    pub reserve_percent: u8,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            bytes_a_day: None,
            bytes_a_month: None,
            hours: Vec::new(),
            utc_offset: UtcOffset::default(),
            rate_bytes_per_s: None,
            metered: false,
            reserve_percent: 10,
        }
    }
}

impl LinkConfig {
    pub(super) fn policy(&self) -> LinkPolicy {
        LinkPolicy {
            bytes_a_day: self.bytes_a_day,
            bytes_a_month: self.bytes_a_month,
            hours: self.hours.clone(),
            offset: self.utc_offset,
            rate_bytes_per_s: self.rate_bytes_per_s,
            reserve_percent: self.reserve_percent,
        }
    }
}

fn budget<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    at_least(BUDGET_BYTES_MIN, deserializer)
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    at_least(RATE_BYTES_PER_S_MIN, deserializer)
}

fn at_least<'de, D: Deserializer<'de>>(min: u64, deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Option::<u64>::deserialize(deserializer)?;
    match value {
        Some(value) if value < min => Err(serde::de::Error::custom(format!("{value} is under the least, {min}"))),
        value => Ok(value),
    }
}

fn reserve<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if percent > RESERVE_PERCENT_MAX {
        return Err(serde::de::Error::custom(format!("{percent} is over the most, {RESERVE_PERCENT_MAX}")));
    }
    Ok(percent)
}
