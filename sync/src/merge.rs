//! How two versions of a record become one, and whether a received version is let in at all.
//!
//! [`merge`] is a join: idempotent, commutative, associative (checked by property tests below), so replicas that have
//! seen the same versions in any order, any number of times, hold the same record.
//! - A tombstone beats everything; of two, the later stays. Ids are never used again, so nothing comes back.
//! - Fields are joined one by one, each by the rule that its tag carries. An old node therefore merges fields that it
//!   does not know exactly as a new one does.
//!
//! [`admit`] adds the bound on drift, so that one wrong clock does not overwrite everyone, and keeps out what would make a record
//! larger than any replica reads: two versions that are within the limits may join to one that is not.

use std::cmp::Ordering;

use crate::hlc::{ClockQuality, HlcTime, Stamp};
use crate::record::{Body, Field, MergeRule, Record};

/// Stamps past this are refused by every receiver, trusted clock or not: 2200-01-01 in milliseconds since 1970.
/// Without it, one hostile stamp at the end of time would leave no room for any later edit.
pub const STAMP_UNIX_MS_MAX: u64 = 7_258_118_400_000;

/// Joins two versions of the record that both keys name.
pub fn merge(mine: Record, theirs: Record) -> Record {
    debug_assert_eq!(mine.key, theirs.key, "only versions of one record merge");
    let body = match (mine.body, theirs.body) {
        (Body::Tombstone(a), Body::Tombstone(b)) => Body::Tombstone(a.max(b)),
        (Body::Tombstone(stamp), Body::Live(_)) | (Body::Live(_), Body::Tombstone(stamp)) => Body::Tombstone(stamp),
        (Body::Live(mut mine), Body::Live(theirs)) => {
            for (tag, field) in theirs {
                match mine.entry(tag) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(field);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        if precedence(tag.rule(), entry.get(), &field) == Ordering::Less {
                            entry.insert(field);
                        }
                    }
                }
            }
            Body::Live(mine)
        }
    };
    Record { key: mine.key, body }
}

/// Which of two versions of a field stays. Total, so that no tie is decided by arrival.
fn precedence(rule: MergeRule, a: &Field, b: &Field) -> Ordering {
    match rule {
        MergeRule::Lww => a.stamp.cmp(&b.stamp).then_with(|| a.value.cmp(&b.value)),
        MergeRule::Max => a.value.cmp_as_number(&b.value).then_with(|| a.stamp.cmp(&b.stamp)),
    }
}

/// The clock against which a receiver judges stamps.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverClock {
    /// Now, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How good that is. Only a trusted clock enforces the bound.
    pub quality: ClockQuality,
    /// How far ahead a stamp may be, in milliseconds.
    pub drift_bound_ms: u64,
}

/// Why a received record was set aside instead of merged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuarantineReason {
    /// Replayed once the clock that wrote it, or ours, was set right.
    #[error("its newest stamp is {ahead_ms} ms ahead of this replica's trusted clock")]
    AheadOfClock {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// No honest clock writes this.
    #[error("its newest stamp lies past the year 2200")]
    BeyondTime,
    /// Each half was within the limits of a record; the two together could not be read back, nor sent on.
    #[error("joined with the version here it is over the limits of a record")]
    TooLarge,
}

/// What becomes of a received record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Store `record`. If it `equals_received`, whoever sent it need not get it back.
    Apply {
        /// The join of what was here and what came.
        record: Record,
        /// The join is what came, unchanged.
        equals_received: bool,
    },
    /// What is here already says all of it, and more if not `equals_received`.
    Superseded {
        /// What is here is what came, unchanged.
        equals_received: bool,
    },
    /// What is here is a tombstone, and what came has an impossible stamp: it says nothing that could ever count, and its
    /// stamp never touches the clock. Superseded, for who counts.
    Buried,
    /// Keep it aside with its reason; it never touches the clock or the record.
    Quarantine(QuarantineReason),
}

/// Decides about one received record, beside the version held here.
pub fn admit(held: Option<Record>, received: Record, clock: ReceiverClock) -> Admission {
    if let Err(reason) = check_stamp(received.newest_stamp(), clock) {
        // A payload that was erased is not kept, not even aside.
        let buried = !received.is_tombstone() && held.as_ref().is_some_and(Record::is_tombstone);
        return if buried { Admission::Buried } else { Admission::Quarantine(reason) };
    }
    admit_unjudged(held, received)
}

/// The same for what follows from a record that is held here, and bears its stamp: that was judged when it came, perhaps by another
/// clock than the one of now.
pub fn admit_unjudged(held: Option<Record>, received: Record) -> Admission {
    let Some(held) = held else {
        return Admission::Apply { record: received, equals_received: true };
    };
    let merged = merge(held.clone(), received.clone());
    let equals_received = merged == received;
    if merged == held {
        Admission::Superseded { equals_received }
    } else if !equals_received && merged.check_size().is_err() {
        Admission::Quarantine(QuarantineReason::TooLarge)
    } else {
        Admission::Apply { record: merged, equals_received }
    }
}

fn check_stamp(stamp: Stamp, clock: ReceiverClock) -> Result<(), QuarantineReason> {
    if stamp.time >= HlcTime::from_unix_ms(STAMP_UNIX_MS_MAX) {
        return Err(QuarantineReason::BeyondTime);
    }
    let ahead_ms = stamp.time.unix_ms().saturating_sub(clock.unix_ms);
    if clock.quality == ClockQuality::Trusted && ahead_ms > clock.drift_bound_ms {
        return Err(QuarantineReason::AheadOfClock { ahead_ms });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hlc::DRIFT_BOUND_MS;
    use crate::id::{BucketId, Incarnation, NodeId, RecordId};
    use crate::record::{FieldTag, Kind, RecordKey, Value};

    fn key() -> RecordKey {
        RecordKey { bucket: BucketId::Catalogue, kind: Kind(1), id: RecordId::from_bytes([1; 16]) }
    }

    fn stamp() -> impl Strategy<Value = Stamp> {
        (0u64..4, 0u8..3, 0u32..2).prop_map(|(time, node, incarnation)| Stamp {
            time: HlcTime::from_bits(time),
            node: NodeId::from_bytes([node; 16]),
            incarnation: Incarnation(incarnation),
            quality: ClockQuality::Estimated,
        })
    }

    fn field() -> impl Strategy<Value = Field> {
        (stamp(), 0u64..300).prop_map(|(stamp, number)| Field { stamp, value: Value::encode(&number) })
    }

    fn record() -> impl Strategy<Value = Record> {
        let tag = (0u32..3, any::<bool>())
            .prop_map(|(number, max)| if max { FieldTag::max(number) } else { FieldTag::lww(number) });
        prop_oneof![
            5 => prop::collection::btree_map(tag, field(), 1..6).prop_map(Body::Live),
            1 => stamp().prop_map(Body::Tombstone),
        ]
        .prop_map(|body| Record { key: key(), body })
    }

    proptest! {
        /// Invariant 3.
        #[test]
        fn merge_is_idempotent_commutative_and_associative(a in record(), b in record(), c in record()) {
            prop_assert_eq!(merge(a.clone(), a.clone()), a.clone());
            prop_assert_eq!(merge(a.clone(), b.clone()), merge(b.clone(), a.clone()));
            prop_assert_eq!(merge(merge(a.clone(), b.clone()), c.clone()), merge(a, merge(b, c)));
        }

        #[test]
        fn max_fields_keep_the_largest_number_whoever_wrote_last(a: u64, b: u64, stamp_a in stamp(), stamp_b in stamp()) {
            let tag = FieldTag::max(1);
            let version = |number: u64, stamp| Record {
                key: key(),
                body: Body::Live([(tag, Field { stamp, value: Value::encode(&number) })].into()),
            };
            let Body::Live(fields) = merge(version(a, stamp_a), version(b, stamp_b)).body else { unreachable!() };
            prop_assert_eq!(fields[&tag].value.decode::<u64>().unwrap(), a.max(b));
        }
    }

    #[test]
    fn only_a_trusted_receiver_enforces_the_drift_bound() {
        let stamp = Stamp { time: HlcTime::from_unix_ms(DRIFT_BOUND_MS + 1001), ..Stamp::default() };
        let received = Record { key: key(), body: Body::Tombstone(stamp) };
        let clock = |quality| ReceiverClock { unix_ms: 1000, quality, drift_bound_ms: DRIFT_BOUND_MS };
        assert_eq!(
            admit(None, received.clone(), clock(ClockQuality::Trusted)),
            Admission::Quarantine(QuarantineReason::AheadOfClock { ahead_ms: DRIFT_BOUND_MS + 1 })
        );
        assert!(matches!(admit(None, received, clock(ClockQuality::Estimated)), Admission::Apply { .. }));
    }

    /// Two versions of as many fields as a record may have, none of them in both.
    #[test]
    fn a_version_that_would_make_the_record_larger_than_any_replica_reads_is_set_aside() {
        let version = |from: u32| {
            let fields = (from..from + 256).map(|number| (FieldTag::lww(number), Value::encode(&number)));
            Record::new(key(), fields, Stamp::default()).unwrap()
        };
        let (held, received) = (version(0), version(1000));
        let clock = ReceiverClock { unix_ms: 0, quality: ClockQuality::Trusted, drift_bound_ms: DRIFT_BOUND_MS };
        let admission = admit(Some(held.clone()), received, clock);
        assert_eq!(admission, Admission::Quarantine(QuarantineReason::TooLarge));
        // What takes nothing in is not in the way.
        let deleted = held.deleted(Stamp::default());
        assert!(matches!(admit(Some(held), deleted, clock), Admission::Apply { .. }));
    }

    #[test]
    fn a_stamp_at_the_end_of_time_is_never_admitted() {
        let stamp = Stamp { time: HlcTime::from_unix_ms(STAMP_UNIX_MS_MAX), ..Stamp::default() };
        let received = Record { key: key(), body: Body::Tombstone(stamp) };
        let clock = ReceiverClock { unix_ms: 0, quality: ClockQuality::Untrusted, drift_bound_ms: DRIFT_BOUND_MS };
        assert_eq!(admit(None, received, clock), Admission::Quarantine(QuarantineReason::BeyondTime));
    }

    #[test]
    fn a_version_of_what_was_deleted_is_not_kept_even_if_its_stamp_is_impossible() {
        let stamp = |unix_ms| Stamp { time: HlcTime::from_unix_ms(unix_ms), ..Stamp::default() };
        let deleted = Record { key: key(), body: Body::Tombstone(stamp(1)) };
        let received = Record::new(key(), [(FieldTag::lww(1), Value::encode(&1u8))], stamp(STAMP_UNIX_MS_MAX)).unwrap();
        let clock = ReceiverClock { unix_ms: 0, quality: ClockQuality::Untrusted, drift_bound_ms: DRIFT_BOUND_MS };
        assert_eq!(admit(Some(deleted.clone()), received, clock), Admission::Buried);
        let again = Record { key: key(), body: Body::Tombstone(stamp(STAMP_UNIX_MS_MAX)) };
        assert!(matches!(admit(Some(deleted), again, clock), Admission::Quarantine(_)));
    }
}
