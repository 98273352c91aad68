//! Numbers as people read them: counts, sizes, durations.

use super::wording::Texts;

/// `1,234`.
pub(super) fn count(t: &Texts, number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push_str(t.thousands);
        }
        grouped.push(digit);
    }
    grouped
}

/// `3.4 MB`, in powers of a thousand.
pub(super) fn size(t: &Texts, bytes: u64) -> String {
    const UNITS: [u64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];
    let names = [t.gigabytes, t.megabytes, t.kilobytes, t.bytes];
    let at = UNITS.iter().position(|unit| bytes >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = (UNITS[at], names[at]);
    let tenths = (bytes % unit) / (unit / 10).max(1);
    let whole = count(t, bytes / unit);
    // A tenth says something only of small numbers.
    if unit > 1_000 && bytes / unit < 10 && tenths > 0 {
        format!("{whole}{}{tenths}\u{a0}{name}", t.decimal)
    } else {
        format!("{whole}\u{a0}{name}")
    }
}

/// `1:02:03`, or `2:03`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::super::language::Language;
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let (en, fr) = (Language::English.texts(), Language::French.texts());
        assert_eq!(count(en, 1_234_567), "1,234,567");
        assert_eq!(count(fr, 12_345), "12\u{202f}345");
        assert_eq!(count(en, 123), "123");
        assert_eq!(size(en, 999), "999\u{a0}bytes");
        assert_eq!(size(en, 3_450_000), "3.4\u{a0}MB");
        assert_eq!(size(fr, 3_450_000), "3,4\u{a0}Mo");
        assert_eq!(size(en, 70_725), "70\u{a0}KB");
        assert_eq!(size(en, u64::MAX), "18,446,744,073\u{a0}GB");
        assert_eq!(duration(3_723_999), "1:02:03");
        assert_eq!(duration(9_000), "0:09");
    }
}
