//! Which bytes a request asks for: the `Range` header (RFC 9110, section 14) held against a blob's size.
//!
//! - A header that is malformed, in another unit, or names too many ranges is ignored, as the RFC allows.
//! - Ranges that overlap or touch become one, so that an answer is never longer than the blob.

use std::num::NonZeroUsize;
use std::ops::Range;

use http_range_header::{SyntacticallyCorrectRange, parse_range_header_with_max_ranges};

use crate::limits::{RANGE_HEADER_BYTES_MAX, RANGES_MAX};

/// What to send of a blob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Selection {
    /// All of it.
    Whole,
    /// One piece of it: never empty, never past its end.
    One(Range<u64>),
    /// Several pieces, in ascending order, apart from each other.
    Several(Vec<Range<u64>>),
    /// None of it: no byte lies in what was asked for.
    Unsatisfiable,
}

impl Selection {
    /// What is sent first, of a blob of `size_bytes`.
    pub(crate) fn first(&self, size_bytes: u64) -> Range<u64> {
        match self {
            Self::Whole => 0..size_bytes,
            Self::Unsatisfiable => 0..0,
            Self::One(range) => range.clone(),
            Self::Several(ranges) => ranges.first().cloned().unwrap_or_default(),
        }
    }
}

/// Works out what the header's value selects of a blob of `size_bytes`.
pub(crate) fn select(header: &str, size_bytes: u64) -> Selection {
    let ranges_max = NonZeroUsize::new(RANGES_MAX).expect("some ranges are allowed");
    if header.len() > RANGE_HEADER_BYTES_MAX || size_bytes == 0 {
        return Selection::Whole;
    }
    let Ok(parsed) = parse_range_header_with_max_ranges(header, ranges_max) else { return Selection::Whole };
    let mut ranges: Vec<_> = parsed.into_ranges().into_iter().filter_map(|range| clip(range, size_bytes)).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, kept| {
        let joins = next.start <= kept.end;
        if joins {
            kept.end = kept.end.max(next.end);
        }
        joins
    });
    match ranges.len() {
        0 => Selection::Unsatisfiable,
        1 => Selection::One(ranges.remove(0)),
        _ => Selection::Several(ranges),
    }
}

fn clip(range: SyntacticallyCorrectRange, size_bytes: u64) -> Option<Range<u64>> {
    let range = match range {
        SyntacticallyCorrectRange::FromStart(first) => first..size_bytes,
        SyntacticallyCorrectRange::FromLast(count) => size_bytes.saturating_sub(count)..size_bytes,
        SyntacticallyCorrectRange::Indexed(first, last) => first..last.saturating_add(1).min(size_bytes),
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(selection: &Selection, size_bytes: u64) -> Vec<bool> {
        let selects = |at| match selection {
            Selection::Whole => true,
            Selection::One(range) => range.contains(&at),
            Selection::Several(ranges) => ranges.iter().any(|range| range.contains(&at)),
            Selection::Unsatisfiable => false,
        };
        (0..size_bytes).map(selects).collect()
    }

    /// One range of a header, and whether it selects a byte, said directly from the RFC.
    #[derive(Clone, Debug)]
    enum Asked {
        FromTo(u64, u64),
        From(u64),
        Last(u64),
    }

    impl Asked {
        fn text(&self) -> String {
            match self {
                Self::FromTo(first, last) => format!("{first}-{last}"),
                Self::From(first) => format!("{first}-"),
                Self::Last(count) => format!("-{count}"),
            }
        }

        fn selects(&self, at: u64, size_bytes: u64) -> bool {
            match *self {
                Self::FromTo(first, last) => (first..=last).contains(&at),
                Self::From(first) => at >= first,
                Self::Last(count) => at + count >= size_bytes,
            }
        }
    }

    fn asked() -> impl Strategy<Value = Asked> {
        prop_oneof![
            (0u64..50, 0u64..50).prop_map(|(a, b)| Asked::FromTo(a.min(b), a.max(b))),
            (0u64..50).prop_map(Asked::From),
            (0u64..50).prop_map(Asked::Last),
        ]
    }

    proptest! {
        /// Whatever is asked for, exactly the bytes that lie in some range are sent, once each and in order.
        #[test]
        fn a_selection_is_the_union_of_what_was_asked_for(
            asked in prop::collection::vec(asked(), 1..=RANGES_MAX),
            size_bytes in 1u64..40,
        ) {
            let header = format!("bytes={}", asked.iter().map(Asked::text).collect::<Vec<_>>().join(", "));
            let selection = select(&header, size_bytes);
            let expected: Vec<_> =
                (0..size_bytes).map(|at| asked.iter().any(|range| range.selects(at, size_bytes))).collect();
            prop_assert_eq!(bytes_of(&selection, size_bytes), expected, "{}", header);
            if let Selection::Several(ranges) = &selection {
                prop_assert!(ranges.len() > 1 && ranges.iter().all(|range| !range.is_empty()));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }

        #[test]
        fn no_header_makes_selecting_panic_or_leave_the_blob(header in "(bytes=)?[0-9, -]{0,60}", size_bytes: u64) {
            match select(&header, size_bytes) {
                Selection::One(range) => prop_assert!(range.start < range.end && range.end <= size_bytes),
                Selection::Several(ranges) => {
                    prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size_bytes));
                }
                Selection::Whole | Selection::Unsatisfiable => {}
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored_and_what_lies_outside_is_refused() {
        for ignored in
            ["bytes", "lines=0-1", "bytes=5-2", "bytes=a-b", "bytes=", &format!("bytes={}", "0-0,".repeat(17))]
        {
            assert_eq!(select(ignored, 10), Selection::Whole, "{ignored}");
        }
        assert_eq!(select("bytes=10-", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-0", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=0-", 0), Selection::Whole);
        assert_eq!(select("bytes=-99", 10), Selection::One(0..10));
        assert_eq!(select("bytes=0-18446744073709551615", 10), Selection::One(0..10));
    }
}
