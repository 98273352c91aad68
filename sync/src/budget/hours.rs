//! Local time: hours of the day, days and months, as far as budgets need them.
//!
//! Local time is UTC and a fixed offset that the operator gives. There is no table of time zones here: a link's tariff
//! does not follow summer time by itself, and a box without a network has no newer table.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MINUTES: u16 = 24 * 60;
const DAY_MS: i64 = DAY_MINUTES as i64 * MINUTE_MS;
/// No place is further from UTC, in minutes.
const OFFSET_MINUTES_MAX: i16 = 14 * 60;

/// From a minute of the local day until another; across midnight if the second is the smaller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hours {
    from: u16,
    until: u16,
}

/// What local time is ahead of UTC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UtcOffset {
    minutes: i16,
}

/// Not hours, or not an offset.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseTimeError {
    /// Not of the form `22:00-06:00`.
    #[error("`{0}` is not a span such as 22:00-06:00")]
    Hours(String),
    /// Nothing lies between.
    #[error("`{0}` begins when it ends; leave it out if the link may always be used")]
    Empty(String),
    /// Not of the form `+05:30`.
    #[error("`{0}` is not an offset such as +05:30, -03:00 or Z")]
    Offset(String),
}

impl Hours {
    fn contains(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

impl FromStr for Hours {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let malformed = || ParseTimeError::Hours(text.to_owned());
        let (from, until) = text.split_once('-').ok_or_else(malformed)?;
        let from = minute(from).filter(|from| *from < DAY_MINUTES).ok_or_else(malformed)?;
        let until = minute(until).ok_or_else(malformed)?;
        if from == until {
            return Err(ParseTimeError::Empty(text.to_owned()));
        }
        // Until the end of the day is until the start of the next.
        Ok(Self { from, until: until % DAY_MINUTES })
    }
}

impl FromStr for UtcOffset {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        if matches!(text, "Z" | "z") {
            return Ok(Self::default());
        }
        let malformed = || ParseTimeError::Offset(text.to_owned());
        let (sign, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(malformed()),
        };
        let minutes = minute(rest).map(|minutes| minutes as i16).ok_or_else(malformed)?;
        if minutes > OFFSET_MINUTES_MAX { Err(malformed()) } else { Ok(Self { minutes: sign * minutes }) }
    }
}

/// The minute of the day of `HH:MM`, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str| -> Option<u16> {
        (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MINUTES).then_some(hours * 60 + minutes)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from, self.until);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minutes < 0 { '-' } else { '+' };
        let minutes = self.minutes.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// In configuration both are text.
macro_rules! as_text {
    ($($name:ident)+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

as_text!(Hours UtcOffset);

impl UtcOffset {
    fn local_ms(self, unix_ms: u64) -> i64 {
        i64::try_from(unix_ms).unwrap_or(i64::MAX / 2) + i64::from(self.minutes) * MINUTE_MS
    }

    fn unix_ms(self, local_ms: i64) -> u64 {
        u64::try_from(local_ms - i64::from(self.minutes) * MINUTE_MS).unwrap_or_default()
    }

    /// Local hour and minute.
    pub fn hour_and_minute(self, unix_ms: u64) -> (u16, u16) {
        let minute = self.minute_of_day(unix_ms);
        (minute / 60, minute % 60)
    }

    fn minute_of_day(self, unix_ms: u64) -> u16 {
        (self.local_ms(unix_ms).rem_euclid(DAY_MS) / MINUTE_MS) as u16
    }
}

/// The number of the local day, counted from 1970.
pub(super) fn day(offset: UtcOffset, unix_ms: u64) -> i64 {
    offset.local_ms(unix_ms).div_euclid(DAY_MS)
}

/// When the next local day begins.
pub(super) fn next_day(offset: UtcOffset, unix_ms: u64) -> u64 {
    offset.unix_ms((day(offset, unix_ms) + 1) * DAY_MS)
}

/// The number of the month of a day: years times twelve and the month from 0.
pub(super) fn month_of_day(day: i64) -> i64 {
    month_and_day(day).0
}

/// The local date: year, month and day of the month, from 1.
pub(crate) fn date(offset: UtcOffset, unix_ms: u64) -> (i64, i64, i64) {
    let (month, day) = month_and_day(day(offset, unix_ms));
    (month.div_euclid(12), month.rem_euclid(12) + 1, day)
}

/// The number of the month of a day, and which of its days it is, from 1.
fn month_and_day(day: i64) -> (i64, i64) {
    // Howard Hinnant's days from the civil calendar, backwards: years begin in March, so that leap days come last.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    ((year_of_era + era * 400) * 12 + month_from_march + 2, day_of_month)
}

/// When the next local month begins.
pub(super) fn next_month(offset: UtcOffset, unix_ms: u64) -> u64 {
    let today = day(offset, unix_ms);
    let month = month_of_day(today);
    let first = (today + 1..=today + 31).find(|day| month_of_day(*day) != month).unwrap_or(today + 31);
    offset.unix_ms(first * DAY_MS)
}

/// The first moment from `unix_ms` on that lies in one of the hours: that moment itself if it does, or if there are none.
pub(super) fn next_open(hours: &[Hours], offset: UtcOffset, unix_ms: u64) -> u64 {
    let minute = offset.minute_of_day(unix_ms);
    if hours.is_empty() || hours.iter().any(|hours| hours.contains(minute)) {
        return unix_ms;
    }
    let wait = |from: u16| i64::from((from + DAY_MINUTES - minute) % DAY_MINUTES);
    let wait_minutes = hours.iter().map(|hours| wait(hours.from)).min().unwrap_or_default();
    let this_minute = offset.local_ms(unix_ms).div_euclid(MINUTE_MS) * MINUTE_MS;
    offset.unix_ms(this_minute + wait_minutes * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hours_and_offsets_read_and_write_as_people_do() {
        for text in ["22:00-06:00", "00:00-00:01", "09:30-17:00"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        assert_eq!("18:00-24:00".parse::<Hours>().unwrap().to_string(), "18:00-00:00");
        for text in ["+00:00", "+05:30", "-03:30", "+14:00"] {
            assert_eq!(text.parse::<UtcOffset>().unwrap().to_string(), text);
        }
        for text in
            ["", "22-06", "24:00-06:00", "22:00-25:00", "22:60-23:00", "1:00-02:00", "+1:00-02:00", "06:00-06:00"]
        {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
        for text in ["", "5", "05:30", "+5:30", "+15:00", "−03:00", "+05:60"] {
            assert!(text.parse::<UtcOffset>().is_err(), "{text}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let days = [
            (0, (1970, 1, 1)),
            (789, (1972, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_818, (2026, 12, 31)),
            (20_819, (2027, 1, 1)),
        ];
        for (day, (year, month, of_month)) in days {
            assert_eq!(month_and_day(day), (year * 12 + month - 1, of_month), "{year}-{month}");
        }
    }

    proptest! {
        #[test]
        fn a_link_opens_and_closes_at_the_edges_of_its_hours(
            from in 0..24u16, until in 0..24u16, offset in -14i16..=14, unix_ms in 0..4_000_000_000_000u64,
        ) {
            prop_assume!(from != until);
            let hours = [format!("{from:02}:00-{until:02}:00").parse::<Hours>().unwrap()];
            let offset = UtcOffset { minutes: offset * 60 };
            let is_open = |unix_ms| next_open(&hours, offset, unix_ms) == unix_ms;
            let open = next_open(&hours, offset, unix_ms);
            prop_assert!(is_open(open) && (open == unix_ms || !is_open(open - 1)));
            prop_assert!(open - unix_ms < DAY_MS as u64);
            let minutes_open = (until + 24 - from) % 24 * 60;
            let start = offset.unix_ms((day(offset, open) + 1) * DAY_MS + i64::from(from) * 60 * MINUTE_MS);
            let end = start + u64::from(minutes_open) * 60_000;
            prop_assert!(is_open(start) && !is_open(start - 1) && is_open(end - 1) && !is_open(end));
        }

        #[test]
        fn days_and_months_follow_each_other(offset in -840i16..=840, unix_ms in 100_000_000..4_000_000_000_000u64) {
            let offset = UtcOffset { minutes: offset };
            let (next, month) = (next_day(offset, unix_ms), next_month(offset, unix_ms));
            prop_assert_eq!(day(offset, next), day(offset, unix_ms) + 1);
            prop_assert_eq!(day(offset, next - 1), day(offset, unix_ms));
            prop_assert_eq!(month_of_day(day(offset, month)), month_of_day(day(offset, unix_ms)) + 1);
            prop_assert_eq!(month_of_day(day(offset, month - 1)), month_of_day(day(offset, unix_ms)));
        }
    }
}
