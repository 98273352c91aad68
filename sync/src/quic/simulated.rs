//! Whole QUIC connections over a simulated link, in virtual time: no sockets, no sleeping, an hour in a second.
//!
//! The connections are quinn-proto's, with this crate's certificates, transport settings and congestion controller, so
//! that what is measured is what ships. What is simulated is the line between them ([`link`]) and the two programs at its
//! ends ([`flow`]): one writes as fast as the connection takes it, on as many lanes as a session has for content, the
//! other reads at once.
//!
//! One bottleneck in each direction, shared by all flows. Losses come from the seed alone; the handshake is the one
//! thing that does not, because its signatures differ by a byte or two from run to run.

pub mod flow;
pub mod link;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use quinn_proto::EcnCodepoint;

use self::flow::{End, Ends, Flow, FlowConfig, Progress};
use self::link::{LineStats, Link, LinkProfile};
use crate::sim::Seeded;

/// Flows that share a link, and what is on its way between their ends.
pub struct Bench {
    /// The instant that virtual time is counted from.
    epoch: Instant,
    now: Duration,
    ends: Ends,
    forward: Link,
    backward: Link,
    flows: Vec<Flow>,
    on_the_way: BinaryHeap<Reverse<Arrival>>,
    arrivals: u64,
}

/// A datagram that will be there at `at`. Of two that arrive together, the one sent first comes first.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Arrival {
    at: Duration,
    order: u64,
    flow: usize,
    to: End,
    ecn: bool,
    payload: Vec<u8>,
}

impl Bench {
    /// A link with nothing on it.
    pub fn new(profile: LinkProfile, seed: u64) -> Self {
        let mut chance = Seeded::new(seed);
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            ends: Ends::new(),
            forward: Link::new(profile, chance.fork()),
            backward: Link::new(profile, chance.fork()),
            flows: Vec::new(),
            on_the_way: BinaryHeap::new(),
            arrivals: 0,
        }
    }

    /// Adds a flow, which dials now. Returns its number.
    pub fn dial(&mut self, config: &FlowConfig) -> usize {
        let number = self.flows.len();
        self.flows.push(Flow::dial(&self.ends, config, self.epoch + self.now, self.now));
        self.pump(number);
        number
    }

    /// Changes what the line does from now on, in both directions.
    pub fn change_link(&mut self, profile: LinkProfile) {
        self.forward.change(profile);
        self.backward.change(profile);
    }

    /// Lets time pass until `until`, since the bench was made.
    pub fn run_until(&mut self, until: Duration) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Lets time pass until `flow` has delivered all that it had to, or until `until`. Says when that was.
    pub fn run_until_done(&mut self, flow: usize, until: Duration) -> Option<Duration> {
        while self.flows[flow].progress().done_at.is_none() && self.step(until) {}
        self.flows[flow].progress().done_at
    }

    /// How far a flow has come.
    pub fn progress(&self, flow: usize) -> Progress {
        self.flows[flow].progress()
    }

    /// What the line did in the direction in which the flows send their data.
    pub fn line(&self) -> LineStats {
        self.forward.stats()
    }

    /// Time since the bench was made.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Carries out what comes next. False if nothing does before `until`.
    fn step(&mut self, until: Duration) -> bool {
        let arrival = self.on_the_way.peek().map(|Reverse(arrival)| arrival.at);
        let timer =
            self.flows.iter_mut().enumerate().filter_map(|(number, flow)| Some((flow.timeout()?, number))).min();
        let timer_at = timer.map(|(at, _)| at.saturating_duration_since(self.epoch));
        let number = match (arrival, timer_at) {
            (Some(arrives), timer_at) if timer_at.is_none_or(|at| arrives <= at) => {
                if arrives > until {
                    return false;
                }
                let Some(Reverse(arrival)) = self.on_the_way.pop() else { return false };
                self.now = arrives;
                let ecn = arrival.ecn.then_some(EcnCodepoint::Ect0);
                self.flows[arrival.flow].receive(arrival.to, ecn, &arrival.payload, self.epoch + self.now);
                arrival.flow
            }
            (_, Some(at)) if at <= until => {
                let Some((_, number)) = timer else { return false };
                self.now = self.now.max(at);
                self.flows[number].timers_fire(self.epoch + self.now);
                number
            }
            _ => return false,
        };
        self.pump(number);
        true
    }

    /// Lets both ends of a flow do what they can, and puts what they send on the line.
    fn pump(&mut self, number: usize) {
        let now = self.now;
        let (forward, backward, arrivals) = (&mut self.forward, &mut self.backward, &mut self.arrivals);
        let on_the_way = &mut self.on_the_way;
        self.flows[number].pump(self.epoch + now, now, &mut |from, payload, ecn| {
            let (link, to) = match from {
                End::Sender => (&mut *forward, End::Receiver),
                End::Receiver => (&mut *backward, End::Sender),
            };
            if let Some(at) = link.carry(now, payload.len() as u64) {
                *arrivals += 1;
                let payload = payload.to_vec();
                on_the_way.push(Reverse(Arrival { at, order: *arrivals, flow: number, to, ecn, payload }));
            }
        });
    }
}
