//! What a world consists of and what befalls it, decided in full by its seed before it begins, so that a failing world can be
//! made smaller by leaving steps out ([`super::shrink`]).
//!
//! Every step carries the seed of the chance that follows it: leaving one out changes little of what the others bring.
//!
//! Not here: what a step does (`world`), and how it is told to people ([`words`]).

mod additions;
mod words;

pub use self::additions::Addition;
use self::additions::Odds;
use super::metered::LinkPlan;
use super::ops::{self, Wish};
use super::replica::Wall;
use super::seeded::Seeded;
use crate::id::NodeId;
use crate::session::Collections;

/// In one world in this many the nodes are on one local network.
const LAN_ONE_IN: u64 = 5;
const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 24 * 3600 * SECOND_US;
/// One world in this many tells of months, in percent.
const OF_MONTHS_PERCENT: u64 = 12;
/// Days that all nodes are away at a time, at most.
const AWAY_DAYS_MAX: u64 = 60;
/// Records that arrive at once from a catalogue, at most.
const CATALOGUE_RECORDS_MAX: u64 = 400;
/// In one world in this many there are leases, and nodes that stay away for longer.
const LEASES_ONE_IN: u64 = 8;
/// For so long there are links between two times of which nobody has any.
const MEETING_US: u64 = 300 * SECOND_US;
/// How long a lease is there.
const LEASE_DAYS: u64 = 30;
/// A black hole is open for this long at most; one that is open for longer than a connection may be idle ends it.
const HOLE_US_MAX: u64 = 120 * SECOND_US;

/// A world before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it came from.
    pub seed: u64,
    pub(super) residents: Vec<Resident>,
    /// What befalls it, in order of time.
    pub steps: Vec<Step>,
    /// How long a lease is, if there are any.
    pub(super) lease_ms: Option<u64>,
    /// Budgets are lifted only once all has come to rest, day by day.
    pub(super) budgets_stay: bool,
    /// People have secrets, and want them to be forgotten.
    pub(super) has_secrets: bool,
    /// Sticks are carried.
    pub(super) has_carriers: bool,
    /// Operators choose what nodes keep.
    pub(super) has_choices: bool,
    /// Cards are put back, or copied, and nobody is told.
    pub(super) has_cards: bool,
}

/// A replica as it is at the start.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) node: NodeId,
    pub(super) collections: Collections,
    /// Which resident it dials; the one that dials nobody is dialled.
    pub(super) dials: Option<usize>,
    /// Whether it ever reaches that one; else only its neighbours do.
    pub(super) has_way: bool,
    /// Whether sticks are carried between it and that one.
    pub(super) by_carrier: bool,
    /// Whether it is a node that has neighbours.
    pub(super) on_lan: bool,
    /// Other nodes that it dials.
    pub(super) neighbours: Vec<usize>,
    /// It runs a version that knows fewer fields and kinds.
    pub(super) old: bool,
    pub(super) wall: Wall,
    /// It takes over the time of a peer that is sure of its own.
    pub(super) takes_time: bool,
    pub(super) disk: DiskPace,
    /// What its link to the one it dials may carry, if that is limited.
    pub(super) link: Option<LinkPlan>,
    /// It is not there until the card of this one is copied for it.
    pub(super) copy_of: Option<usize>,
}

/// How fast a disk is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DiskPace {
    /// Answers within 30 ms.
    Quick,
    /// Stalls for seconds now and then, as cards do.
    Stalling,
    /// Takes up to a second each time.
    Slow,
}

/// Something that befalls a world.
#[derive(Clone, Debug)]
pub struct Step {
    pub(super) at_us: u64,
    pub(super) replica: usize,
    pub(super) deed: Deed,
    /// The seed of the chance from here to the next step.
    pub(super) chance: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// A person does something.
    Person(Wish),
    /// A link is cut.
    CutLink,
    /// A link comes and goes.
    Flap {
        times: u64,
    },
    /// Nothing gets through any link of the replica, and nobody is told.
    BlackHole {
        for_us: u64,
    },
    /// All links are gone, and none comes up again before the end.
    Silence {
        for_us: u64,
    },
    PowerCut,
    /// A backup is made.
    TakeCopy,
    /// The backup is restored as the product does it: a new life.
    GoBack,
    /// The card is written with an image of what it was when a backup was made last.
    PutBack,
    /// Another machine is started with a copy of a card that is in use.
    StartCopy,
    /// The clock on the wall jumps, or goes otherwise from now on.
    SetClock(Wall),
    /// Room for this much content.
    ContentRoom(u64),
    /// The disk is full: no room for anything.
    DiskFull,
    /// There is room again.
    DiskRoom,
    SetDiskPace(DiskPace),
    /// A whole blob rots, unseen.
    Rot,
    /// Whole blobs are checked, and damaged ones are wanted again.
    Scrub,
    /// A reader waits for a content.
    WantNow(u64),
    /// A session is ended in good order.
    EndSession,
    /// A node is away for months, and people go on there.
    Away {
        for_us: u64,
        /// And for so long nobody has a link.
        others_us: u64,
    },
    /// The node is no longer welcome.
    Revoke,
    /// A secret is to be forgotten.
    Erase(u8),
    /// No more than this is to be used for content.
    WantRoom(u64),
    /// One of two collections is no longer kept, or is again.
    Choose {
        keeps: bool,
    },
    /// Content that no record names is looked for, and removed if it was so at the last look, too.
    Sweep,
    /// Somebody sets out with a bundle.
    Carry(Carried),
}

/// A bundle's journey.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) to: usize,
    pub(super) for_us: u64,
    /// How long the receipt takes home; never, if it is lost.
    pub(super) back_us: Option<u64>,
    pub(super) damage: Damage,
    pub(super) good_for_days: u64,
}

/// What happens to a bundle on its way, or when it is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Damage {
    None,
    /// It ends early.
    Cut,
    /// A bit of it is another.
    Changed,
    /// The power goes in the middle of its import.
    PowerCut,
}

impl Plan {
    /// The world of `seed`.
    pub fn of(seed: u64) -> Self {
        let mut plan = Self::without_additions(seed);
        plan.add(&Addition::ALL);
        plan
    }

    /// The world of `seed` as it was before, and with cards that are put back and copied.
    pub fn with_cards(seed: u64) -> Self {
        let mut plan = Self::without_additions(seed);
        plan.copy_cards(&mut Seeded::new(seed ^ additions::CARDS));
        plan
    }

    /// A world of `seed` in which nodes stay away for longer than their leases, and most have neighbours, sticks and cards as well: what brings deleted
    /// things back takes several of these at once.
    pub fn with_absences(seed: u64) -> Self {
        let mut plan = Self::bare(seed, !seed.is_multiple_of(3) || is_lan(seed), true);
        plan.add_with(&Addition::ALL, &Odds::OF_ABSENCES);
        plan
    }

    /// A world of `seed` that has most additions at once.
    pub fn dense(seed: u64) -> Self {
        let mut plan = Self::without_additions(seed);
        plan.add_with(&Addition::ALL, &Odds::DENSE);
        plan
    }

    /// A world of `seed` in which sticks are carried, most often beside links and with others of the additions.
    pub fn with_sticks(seed: u64) -> Self {
        let mut plan = Self::without_additions(seed);
        plan.add_with(&Addition::ALL, &Odds::OF_STICKS);
        plan
    }

    /// The same with only these of its additions, in the order of [`Addition`]: a seed that failed by them stays the world
    /// that it was, whatever is added later.
    pub fn with_additions(seed: u64, additions: &[Addition]) -> Self {
        let mut plan = Self::without_additions(seed);
        plan.add(additions);
        plan
    }

    /// The same as it was before worlds had more in them: a seed that once failed stays the world that it was.
    pub fn without_additions(seed: u64) -> Self {
        Self::bare(seed, is_lan(seed), seed % LEASES_ONE_IN == 1)
    }

    fn bare(seed: u64, is_lan: bool, has_leases: bool) -> Self {
        let mut rng = Seeded::new(seed);
        let mut residents = residents(&mut rng, is_lan);
        if is_lan {
            put_on_one_network(&mut rng, &mut residents);
        }
        let mut steps = steps(&mut rng, residents.len());
        if has_leases {
            stay_away(&mut rng, &mut residents, &mut steps);
        }
        Self {
            seed,
            residents,
            steps,
            lease_ms: has_leases.then_some(LEASE_DAYS * DAY_US / 1000),
            budgets_stay: false,
            has_secrets: false,
            has_carriers: false,
            has_choices: false,
            has_cards: false,
        }
    }
}

/// Certain seeds, so that the other worlds stay what they are.
fn is_lan(seed: u64) -> bool {
    seed % LAN_ONE_IN == LAN_ONE_IN - 1
}

/// Weeks go by between some of the steps, in which nobody has a link; then there is one for a while, but not for some.
fn stay_away(rng: &mut Seeded, residents: &mut [Resident], steps: &mut [Step]) {
    for resident in residents.iter_mut() {
        resident.has_way = true;
    }
    let mut later_us = 0;
    for step in steps {
        step.at_us += later_us;
        // The steps after a silence count on it.
        if !matches!(step.deed, Deed::Silence { .. }) && rng.chance(25) {
            let others_us = rng.between(DAY_US, LEASE_DAYS * DAY_US);
            let for_us = others_us + if rng.chance(60) { rng.below(3 * LEASE_DAYS * DAY_US) } else { 0 };
            step.replica = 1 + rng.below(residents.len() as u64 - 1) as usize;
            step.deed = Deed::Away { for_us, others_us };
            later_us += others_us + MEETING_US;
        }
    }
}

/// All nodes meet, and in half of the worlds one of them never meets the bridge.
fn put_on_one_network(rng: &mut Seeded, residents: &mut [Resident]) {
    let count = residents.len();
    for (at, resident) in residents.iter_mut().enumerate().skip(1) {
        resident.on_lan = true;
        resident.neighbours = (at + 1..count).collect();
        resident.collections = Collections::All;
    }
    if rng.chance(50) {
        residents[1 + rng.below(count as u64 - 1) as usize].has_way = false;
    }
}

fn residents(rng: &mut Seeded, is_lan: bool) -> Vec<Resident> {
    let count = (2 + rng.below(3) as usize).max(if is_lan { 3 } else { 2 });
    let old = rng.below(count as u64 + 2) as usize;
    let [one, _] = ops::collections();
    (0..count)
        .map(|at| {
            let is_dialled = at == 0;
            let only_one = !is_dialled && rng.chance(25);
            Resident {
                node: NodeId::from_bytes(rng.noise(16).try_into().expect("sixteen bytes were asked for")),
                collections: if only_one { Collections::Only([one].into()) } else { Collections::All },
                dials: (!is_dialled).then_some(0),
                has_way: true,
                by_carrier: false,
                on_lan: false,
                neighbours: Vec::new(),
                old: at == old,
                wall: if is_dialled && rng.chance(85) { Wall::RIGHT } else { Wall::random(rng) },
                takes_time: !is_dialled && rng.chance(60),
                disk: *rng.pick(&[DiskPace::Quick, DiskPace::Stalling, DiskPace::Stalling]).unwrap_or(&DiskPace::Quick),
                link: None,
                copy_of: None,
            }
        })
        .collect()
}

fn steps(rng: &mut Seeded, residents: usize) -> Vec<Step> {
    let of_months = rng.chance(OF_MONTHS_PERCENT);
    let mut at_us = 0;
    let mut steps = Vec::new();
    for _ in 0..rng.between(20, 70) {
        let replica = rng.below(residents as u64) as usize;
        let mut deed = deed(rng, replica);
        let calm = rng.chance(20);
        let mut gap_us = rng.below(if calm { 20 * SECOND_US } else { 1_500_000 });
        if of_months && rng.chance(20) {
            let for_us = rng.between(DAY_US / 24, AWAY_DAYS_MAX * DAY_US);
            deed = Deed::Silence { for_us };
            // Some of what people do meanwhile happens in the middle of it.
            gap_us = if rng.chance(50) { for_us } else { for_us / 3 };
        }
        steps.push(Step { at_us, replica, deed, chance: rng.fork_seed() });
        at_us += gap_us;
    }
    steps
}

fn deed(rng: &mut Seeded, replica: usize) -> Deed {
    match rng.below(1000) {
        0..=559 => Deed::Person(wish(rng)),
        560..=619 => Deed::CutLink,
        620..=639 => Deed::Flap { times: rng.between(2, 8) },
        640..=669 => Deed::BlackHole { for_us: rng.between(SECOND_US, HOLE_US_MAX) },
        670..=679 => Deed::Silence { for_us: rng.between(SECOND_US, 120 * SECOND_US) },
        680..=754 => Deed::PowerCut,
        755..=794 => Deed::TakeCopy,
        795..=824 => Deed::GoBack,
        825..=859 => Deed::SetClock(Wall::random(rng)),
        860..=879 => Deed::ContentRoom(if rng.chance(50) { rng.below(60_000) } else { u64::MAX }),
        880..=894 => Deed::DiskFull,
        895..=909 => Deed::DiskRoom,
        910..=919 => {
            let paces = [DiskPace::Quick, DiskPace::Stalling, DiskPace::Slow];
            Deed::SetDiskPace(*rng.pick(&paces).unwrap_or(&DiskPace::Slow))
        }
        920..=934 => Deed::Rot,
        935..=944 => Deed::Scrub,
        945..=964 => Deed::WantNow(rng.below(ops::CONTENTS)),
        965..=967 if replica != 0 => Deed::Revoke,
        _ => Deed::EndSession,
    }
}

fn wish(rng: &mut Seeded) -> Wish {
    match rng.below(1000) {
        0..=245 => Wish::Create,
        // A session has to hold much only now and then, and much to look through takes long.
        246..=249 => Wish::Catalogue { records: rng.between(100, CATALOGUE_RECORDS_MAX) },
        250..=549 => Wish::Edit,
        550..=639 => Wish::Delete,
        640..=739 => Wish::Count,
        740..=819 => Wish::UnknownKind,
        _ => Wish::Import(rng.below(ops::CONTENTS)),
    }
}
