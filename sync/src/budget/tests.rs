//! Budgets that hold whatever the clock, the crashes and the traffic do.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::account::SLICE_BYTES;
use super::*;

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Noon of a day in the middle of a month.
const START_MS: u64 = 1_795_176_000_000;

fn policy(bytes_a_day: Option<u64>, bytes_a_month: Option<u64>, reserve_percent: u8) -> LinkPolicy {
    LinkPolicy { bytes_a_day, bytes_a_month, reserve_percent, ..LinkPolicy::default() }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Content lacks so much; what it is given crosses.
    Content(u64),
    /// So much of what records may take crosses.
    Records(u64),
    /// Time passes.
    Wait(u64),
    /// The clock goes back.
    Back(u64),
    /// The process is killed, before or after the last reservation was kept.
    Crash { kept: bool },
    /// The session ends in order.
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..2_000_000u64).prop_map(Step::Content),
        3 => (0..300_000u64).prop_map(Step::Records),
        2 => (0..8 * HOUR_MS).prop_map(Step::Wait),
        1 => (0..20 * DAY_MS).prop_map(Step::Back),
        1 => any::<bool>().prop_map(|kept| Step::Crash { kept }),
        1 => Just(Step::Close),
    ]
}

/// A link under a policy, with what is on its disk and what really crossed.
struct World {
    policy: LinkPolicy,
    disk: Spent,
    now_ms: u64,
    days: BTreeMap<i64, u64>,
    months: BTreeMap<i64, u64>,
}

impl World {
    fn ledger(&self) -> Ledger {
        Ledger::new(self.policy.clone(), self.disk.clone())
    }

    fn cross(&mut self, account: &mut Account, bytes: u64) {
        let day = hours::day(self.policy.offset, self.now_ms);
        *self.days.entry(day).or_default() += bytes;
        *self.months.entry(hours::month_of_day(day)).or_default() += bytes;
        account.measure(bytes, self.now_ms, self.now_ms);
    }

    /// Reserves and keeps, as a host does.
    fn reserve(&mut self, account: &mut Account, short: Option<u64>) {
        if let Some(spent) = account.reserve(short, self.now_ms) {
            self.disk = spent;
        }
        account.kept();
    }
}

proptest! {
    /// Invariant 13: wire bytes never pass the budget.
    #[test]
    fn wire_bytes_never_pass_the_budget(
        a_day in proptest::option::of(300_000..20_000_000u64),
        a_month in proptest::option::of(300_000..60_000_000u64),
        reserve_percent in 0..=60u8,
        steps in vec(step(), 1..120),
    ) {
        let mut world = World {
            policy: policy(a_day, a_month, reserve_percent),
            disk: Spent::default(),
            now_ms: START_MS,
            days: BTreeMap::new(),
            months: BTreeMap::new(),
        };
        let mut account = Account::open(world.ledger(), world.now_ms, world.now_ms);
        world.reserve(&mut account, None);
        for step in steps {
            match step {
                // A session that may not stay open moves nothing.
                Step::Content(_) | Step::Records(_) if account.hold(world.now_ms).is_some() => {}
                Step::Content(short) => {
                    world.reserve(&mut account, Some(short));
                    let word = account.word(world.now_ms).content_bytes;
                    let left = account.ledger().left_besides(u64::MAX, world.now_ms);
                    prop_assert!(word <= left.content_bytes || !world.policy.has_budget());
                    world.cross(&mut account, short.min(word));
                }
                Step::Records(bytes) => {
                    world.reserve(&mut account, None);
                    let word = account.word(world.now_ms).records_bytes;
                    world.cross(&mut account, bytes.min(word));
                }
                Step::Wait(ms) => world.now_ms += ms,
                Step::Back(ms) => world.now_ms = world.now_ms.saturating_sub(ms).max(START_MS - DAY_MS),
                Step::Crash { kept } => {
                    if let Some(spent) = account.reserve(Some(SLICE_BYTES), world.now_ms)
                        && kept
                    {
                        world.disk = spent;
                    }
                    account = Account::open(world.ledger(), world.now_ms, world.now_ms);
                }
                Step::Close => {
                    let ledger = account.close(world.now_ms, world.now_ms);
                    world.disk = ledger.spent().clone();
                    account = Account::open(ledger, world.now_ms, world.now_ms);
                }
            }
            for (counted, really, budget) in
                [(&world.disk.days, &world.days, a_day), (&world.disk.months, &world.months, a_month)]
            {
                for (period, crossed) in really {
                    prop_assert!(budget.is_none_or(|budget| *crossed <= budget), "{crossed} in {period}");
                    prop_assert!(
                        budget.is_none() || counted.of(*period) >= *crossed,
                        "{crossed} crossed in {period}, {} counted", counted.of(*period)
                    );
                }
            }
        }
    }
}

#[test]
fn content_stops_at_the_reserve_and_records_go_on_within_it() {
    let ledger = Ledger::new(policy(Some(10_000_000), None, 20), Spent::default());
    let mut account = Account::open(ledger, START_MS, 0);
    let mut content = 0;
    while account.content_hold(100_000, START_MS).is_none() {
        account.reserve(Some(100_000), START_MS);
        account.kept();
        let word = account.word(START_MS).content_bytes.min(100_000);
        assert!(word > 0);
        account.measure(word, START_MS, 0);
        content += word;
    }
    assert!((7_000_000..=8_000_000).contains(&content), "{content}");
    assert_eq!(account.hold(START_MS), None, "the session stays");
    let mut records = 0;
    while account.hold(START_MS).is_none() {
        account.reserve(None, START_MS);
        account.kept();
        let word = account.word(START_MS).records_bytes;
        account.measure(word, START_MS, 0);
        records += word;
    }
    assert!(records > 1_000_000 && content + records <= 10_000_000, "{records}");
    let Some(Hold::UsedUp { period: Period::Day, until_unix_ms }) = account.hold(START_MS) else {
        panic!("{:?}", account.hold(START_MS));
    };
    assert_eq!(until_unix_ms, START_MS + 12 * HOUR_MS);
}

#[test]
fn a_day_that_was_used_up_stays_so_when_the_clock_goes_back_to_it() {
    let mut ledger = Ledger::new(policy(Some(1000), None, 0), Spent::default());
    ledger.spend(1000, START_MS);
    assert_eq!(ledger.left(START_MS).all_bytes, 0);
    ledger.spend(10, START_MS + DAY_MS);
    assert_eq!(ledger.left(START_MS + DAY_MS).all_bytes, 990);
    assert_eq!(ledger.left(START_MS).all_bytes, 0, "back to the day before");
    for day in 2..40 {
        ledger.spend(1000, START_MS + day * DAY_MS);
    }
    for day in 0..40 {
        assert_eq!(ledger.left(START_MS + day * DAY_MS).all_bytes, 0, "no day starts twice, forgotten or not");
    }
    assert_eq!(ledger.time(START_MS, false), START_MS + 39 * DAY_MS, "nobody vouches for a clock that went back");
    assert_eq!(ledger.time(START_MS, true), START_MS);
}

#[test]
fn what_was_kept_reads_back() {
    let mut ledger = Ledger::new(policy(Some(1000), Some(5000), 0), Spent::default());
    for day in 0..40 {
        ledger.spend(7 + day, START_MS + day * DAY_MS);
    }
    let bytes = minicbor::to_vec(ledger.spent()).unwrap();
    assert!(bytes.len() < 1000, "a small row: {}", bytes.len());
    assert_eq!(&minicbor::decode::<Spent>(&bytes).unwrap(), ledger.spent());
}

#[test]
fn the_later_of_two_holds_counts_and_hours_come_on_top() {
    let mut limited = policy(Some(1000), Some(1500), 0);
    limited.hours = vec!["22:00-06:00".parse().unwrap()];
    limited.offset = "+02:00".parse().unwrap();
    let mut ledger = Ledger::new(limited, Spent::default());
    // 23:00 at the place.
    let night = START_MS + 9 * HOUR_MS;
    assert_eq!(ledger.hold(1, night), None);
    let Some(Hold::OutsideHours { until_unix_ms }) = ledger.hold(1, START_MS) else { panic!("it is 14:00 there") };
    assert_eq!(until_unix_ms, START_MS + 8 * HOUR_MS);
    ledger.spend(1000, night);
    // From midnight on it is another day, and still night.
    let day = Hold::UsedUp { period: Period::Day, until_unix_ms: night + HOUR_MS };
    assert_eq!(ledger.hold(1, night), Some(day));
    ledger.spend(500, night + HOUR_MS);
    let Some(Hold::UsedUp { period: Period::Month, until_unix_ms }) = ledger.hold(1, night + HOUR_MS) else {
        panic!("the month is used up");
    };
    assert!(until_unix_ms > night + 5 * DAY_MS);
}

#[test]
fn content_keeps_to_the_rate() {
    let mut limited = LinkPolicy { rate_bytes_per_s: Some(100_000), ..LinkPolicy::default() };
    limited.reserve_percent = 10;
    let mut account = Account::open(Ledger::new(limited, Spent::default()), START_MS, 0);
    let mut crossed = 0;
    for tick in 0..1_000 {
        let now_ms = tick * 100;
        account.reserve(Some(1_000_000), START_MS + now_ms);
        account.kept();
        let word = account.word(START_MS + now_ms).content_bytes;
        crossed += word;
        account.measure(word, START_MS + now_ms, now_ms);
    }
    let burst = wire_cost(crate::chunk::CHUNK_BYTES_MAX.into());
    assert!((9_900_000..=10_000_000 + burst).contains(&crossed), "{crossed} in 100 s");
}
