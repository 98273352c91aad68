//! Bounds of the window, whatever the path says, and what each phase does with a path that is easy to follow.

use proptest::prelude::*;

use super::*;

const MTU: u16 = 1452;

/// Something that happens to a controller.
#[derive(Clone, Debug)]
enum Happening {
    /// Time passes.
    Wait(u64),
    /// An acknowledgement of bytes that were sent so many microseconds ago.
    Acknowledged {
        bytes: u64,
        sent_us_ago: u64,
        app_limited: bool,
    },
    Lost {
        bytes: u64,
        is_persistent: bool,
    },
    NewMtu(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0u64..20_000_000).prop_map(Happening::Wait),
        (0u64..10_000).prop_map(Happening::Wait),
        (0u64..u64::from(u32::MAX), 0u64..30_000_000, any::<bool>()).prop_map(|(bytes, sent_us_ago, app_limited)| {
            Happening::Acknowledged { bytes, sent_us_ago, app_limited }
        }),
        (0u64..3000, 0u64..700_000)
            .prop_map(|(bytes, sent_us_ago)| { Happening::Acknowledged { bytes, sent_us_ago, app_limited: false } }),
        (0u64..u64::from(u32::MAX), any::<bool>())
            .prop_map(|(bytes, is_persistent)| Happening::Lost { bytes, is_persistent }),
        (1200u16..=9000).prop_map(Happening::NewMtu),
    ]
}

proptest! {
    #[test]
    fn the_window_stays_within_its_bounds_whatever_happens(
        happenings in prop::collection::vec(happening(), 1..400),
        rate_limit_bits_per_s in prop::option::of(1u64..10_000_000_000),
    ) {
        let began = Instant::now();
        let mut now = began + Duration::from_mins(1);
        let config = CongestionConfig { rate_limit_bits_per_s };
        let mut controller = LinkController::new(config, now, MTU);
        for happening in happenings {
            match happening {
                Happening::Wait(us) => now += Duration::from_micros(us),
                Happening::Acknowledged { bytes, sent_us_ago, app_limited } => {
                    let sent = now.checked_sub(Duration::from_micros(sent_us_ago)).unwrap_or(began);
                    controller.acknowledge(sent, bytes, app_limited);
                    controller.acknowledged(now);
                }
                Happening::Lost { bytes, is_persistent } => {
                    controller.on_congestion_event(now, began, is_persistent, bytes);
                }
                Happening::NewMtu(mtu) => controller.on_mtu_update(mtu),
            }
            let least = REFRESH_DATAGRAMS_MIN * controller.mtu;
            let most = match (rate_limit_bits_per_s, controller.path.rtt_min()) {
                (Some(rate), Some(rtt)) => (rate as f64 / 8.0 * rtt.as_secs_f64()) as u64,
                _ => WINDOW_BYTES_MAX,
            };
            let window = controller.window();
            prop_assert!(window >= least, "{window} under {least}");
            prop_assert!(window <= most.max(WINDOW_DATAGRAMS_MIN * controller.mtu), "{window} over {most}");
            prop_assert!(controller.window.is_finite() && controller.rate().is_finite(), "{controller:?}");
        }
    }
}

/// A path that carries `datagrams_per_s`, answers after `rtt`, and queues what is more; one acknowledgement for each
/// datagram, as many in flight as the window lets.
struct Pipe {
    now: Instant,
    rtt: Duration,
    spacing: Duration,
    in_flight: std::collections::VecDeque<(Instant, Instant)>,
    idle_at: Instant,
}

impl Pipe {
    fn new(now: Instant, rtt: Duration, datagrams_per_s: u32) -> Self {
        let spacing = Duration::from_secs(1) / datagrams_per_s;
        Self { now, rtt, spacing, in_flight: std::collections::VecDeque::new(), idle_at: now }
    }

    fn run(&mut self, controller: &mut LinkController, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            while (self.in_flight.len() as u64 + 1) * u64::from(MTU) < controller.window() {
                self.idle_at = self.idle_at.max(self.now) + self.spacing;
                self.in_flight.push_back((self.now, self.idle_at + self.rtt));
            }
            let (sent, answered) = self.in_flight.pop_front().expect("the window lets something through");
            self.now = answered;
            controller.acknowledge(sent, u64::from(MTU), false);
            controller.acknowledged(self.now);
        }
    }
}

fn holds(controller: &LinkController, bytes: f64) -> f64 {
    controller.window() as f64 / bytes
}

#[test]
fn it_fills_an_empty_path_and_leaves_startup_without_filling_the_queue() {
    let now = Instant::now();
    let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
    let mut pipe = Pipe::new(now, Duration::from_millis(600), 860);
    let line = 860.0 * 0.6 * f64::from(MTU);
    assert!(matches!(controller.phase, Phase::Startup(_)));
    pipe.run(&mut controller, Duration::from_secs(8));
    assert!(!matches!(controller.phase, Phase::Startup(_)), "{:?}", controller.phase);
    assert!((0.95..1.25).contains(&holds(&controller, line)), "{:.2} of what the line holds", holds(&controller, line));
    pipe.run(&mut controller, Duration::from_secs(30));
    assert!((0.84..1.25).contains(&holds(&controller, line)), "{:.2} of what the line holds", holds(&controller, line));
}

#[test]
fn an_operators_rate_is_where_it_starts() {
    let now = Instant::now();
    let config = CongestionConfig { rate_limit_bits_per_s: Some(8_000_000) };
    let mut controller = LinkController::new(config, now, MTU);
    controller.acknowledge(now, 1200, false);
    controller.acknowledged(now + Duration::from_millis(500));
    assert!((0.7..=1.0).contains(&holds(&controller, 500_000.0)), "{}", controller.window());
}

#[test]
fn losses_beyond_what_is_tolerated_shrink_the_window_and_those_below_do_not() {
    let now = Instant::now();
    for (lost_of_twenty, shrinks) in [(1, false), (6, true)] {
        let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
        let mut pipe = Pipe::new(now, Duration::from_millis(100), 1000);
        pipe.run(&mut controller, Duration::from_secs(5));
        let before = controller.window();
        for _ in 0..60 {
            controller.on_congestion_event(pipe.now, now, false, lost_of_twenty * u64::from(MTU));
            pipe.run(&mut controller, Duration::from_millis(20 - lost_of_twenty));
        }
        let share = controller.window() as f64 / before as f64;
        assert_eq!(share < 0.97, shrinks, "{lost_of_twenty} of twenty lost: {share:.2} of the window left");
    }
}

#[test]
fn a_mark_shrinks_the_window_once_in_a_round_trip() {
    let now = Instant::now();
    let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
    let mut pipe = Pipe::new(now, Duration::from_millis(100), 1000);
    pipe.run(&mut controller, Duration::from_secs(5));
    let before = controller.window();
    for _ in 0..5 {
        controller.on_congestion_event(pipe.now, now, false, 0);
    }
    let share = controller.window() as f64 / before as f64;
    assert!((0.8..0.9).contains(&share), "{share:.2} of the window left");
}

#[test]
fn when_everything_is_lost_it_starts_again_from_the_minimum() {
    let now = Instant::now();
    let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
    let mut pipe = Pipe::new(now, Duration::from_millis(100), 1000);
    pipe.run(&mut controller, Duration::from_secs(5));
    controller.on_congestion_event(pipe.now, now, true, 100_000);
    assert_eq!(controller.window(), WINDOW_DATAGRAMS_MIN * u64::from(MTU));
}

/// Single datagrams are acknowledged late; that is no queue, and the little that they carry is no rate.
#[test]
fn what_little_is_said_in_quiet_times_changes_nothing() {
    let now = Instant::now();
    for busy_before in [false, true] {
        let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
        let mut pipe = Pipe::new(now, Duration::from_millis(40), 1000);
        pipe.run(&mut controller, Duration::from_secs(if busy_before { 5 } else { 0 }));
        let (before, phase) = (controller.window(), controller.phase);
        for second in 1..100 {
            let sent = pipe.now + Duration::from_secs(second);
            controller.acknowledge(sent, 100, true);
            controller.acknowledged(sent + Duration::from_millis(40 + if second == 1 { 0 } else { 24 }));
        }
        assert_eq!(controller.window(), before, "busy before: {busy_before}");
        assert_eq!(std::mem::discriminant(&controller.phase), std::mem::discriminant(&phase));
    }
}

/// A busy machine answers a hundred times later than the path is long; that is no reason to fall to the minimum.
#[test]
fn a_busy_machine_on_a_short_path_is_not_taken_for_a_full_queue() {
    let now = Instant::now();
    let mut controller = LinkController::new(CongestionConfig::default(), now, MTU);
    let mut pipe = Pipe::new(now, Duration::from_micros(300), 20_000);
    pipe.run(&mut controller, Duration::from_secs(2));
    pipe.rtt = Duration::from_millis(30);
    pipe.run(&mut controller, Duration::from_secs(5));
    assert!(controller.window() > 8 * WINDOW_DATAGRAMS_MIN * u64::from(MTU), "{}", controller.window());
}
