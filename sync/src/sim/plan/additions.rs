//! What was added to worlds after the first of them had become regressions: each addition has a generator of its own, and
//! [`Plan::without_additions`] is the world as it was.

use super::{Carried, DAY_US, Damage, Deed, Plan, Resident, SECOND_US, Step};
use crate::sim::metered::LinkPlan;
use crate::sim::ops::{CONTENTS, Wish};
use crate::sim::secrets::VERSIONS;
use crate::sim::seeded::Seeded;
use crate::sim::world::SECRETS;

/// What their chance begins from, with the seed.
pub(super) const CARDS: u64 = 0x0063_6172_6473;
/// Contents that only worlds with budgets have.
const FILMS: u64 = 6;

/// Something that worlds had not in the beginning, and that some have by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Addition {
    /// Links have budgets.
    Budgets,
    /// Sticks are carried.
    Carriers,
    /// Disks are too small for all content.
    WantOfRoom,
    /// Operators choose what nodes keep.
    Choices,
    /// People want something to be forgotten.
    Secrets,
    /// Cards are put back or copied.
    Cards,
}

impl Addition {
    /// In the order in which a world gets them.
    pub const ALL: [Self; 6] =
        [Self::Budgets, Self::Carriers, Self::WantOfRoom, Self::Choices, Self::Secrets, Self::Cards];
}

/// How many worlds have each addition, in percent.
#[derive(Debug)]
pub(super) struct Odds {
    budgets: u64,
    carriers: u64,
    want_of_room: u64,
    choices: u64,
    secrets: u64,
    cards: u64,
}

impl Odds {
    const USUAL: Self = Self { budgets: 8, carriers: 15, want_of_room: 15, choices: 15, secrets: 15, cards: 15 };
    /// Where nodes stay away for longer than their leases.
    pub(super) const OF_ABSENCES: Self = Self { carriers: 50, cards: 85, ..Self::USUAL };
    /// Where sticks are carried.
    pub(super) const OF_STICKS: Self =
        Self { budgets: 10, carriers: 100, want_of_room: 30, choices: 40, secrets: 40, cards: 40 };
    /// Where most befalls a world at once.
    pub(super) const DENSE: Self =
        Self { budgets: 15, carriers: 40, want_of_room: 50, choices: 60, secrets: 30, cards: 60 };
}

impl Plan {
    pub(super) fn add(&mut self, additions: &[Addition]) {
        self.add_with(additions, &Odds::USUAL);
    }

    pub(super) fn add_with(&mut self, additions: &[Addition], odds: &Odds) {
        for addition in additions {
            let (salt, percent, add): (u64, u64, fn(&mut Self, &mut Seeded)) = match addition {
                Addition::Budgets => (0x6275_6467_6574, odds.budgets, Self::add_budgets),
                Addition::Carriers => (0x7374_6963_6b73, odds.carriers, Self::add_carriers),
                Addition::WantOfRoom => (0x726f_6f6d, odds.want_of_room, Self::add_want_of_room),
                Addition::Choices => (0x6368_6f69_6365, odds.choices, Self::add_choices),
                Addition::Secrets => (0x7365_6372_6574, odds.secrets, Self::add_secrets),
                Addition::Cards => (CARDS, odds.cards, Self::copy_cards),
            };
            let rng = &mut Seeded::new(self.seed ^ salt);
            if rng.chance(percent) {
                add(self, rng);
            }
        }
    }

    /// Links have budgets, and there is more to bring than these carry in a day.
    fn add_budgets(&mut self, rng: &mut Seeded) {
        // Months of looking at links whose disk is full, every few seconds, would take as long as a thousand worlds.
        let is_of_months = self.steps.last().is_some_and(|step| step.at_us > DAY_US);
        if is_of_months {
            return;
        }
        self.budgets_stay = rng.chance(50);
        let count = self.residents.len() as u64;
        let first = 1 + rng.below(count - 1) as usize;
        for at in 1..self.residents.len() {
            if at != first && rng.chance(40) {
                continue;
            }
            let bytes_a_day =
                if self.budgets_stay { rng.between(450_000, 900_000) } else { rng.between(170_000, 400_000) };
            self.residents[at].link = Some(LinkPlan {
                bytes_a_day,
                bytes_a_month: (!self.budgets_stay && rng.chance(40))
                    .then(|| bytes_a_day * rng.between(100, 300) / 100),
                reserve_percent: rng.below(if self.budgets_stay { 30 } else { 60 }) as u8,
                midnight_minute: rng.between(1, 20) as u8,
                open_minutes: (!self.budgets_stay && rng.chance(20)).then(|| rng.between(1, 10) as u8),
            });
        }
        for _ in 0..rng.between(2, 6) {
            let content = CONTENTS + rng.below(FILMS) * 3;
            self.insert(rng, count, Deed::Person(Wish::Import(content)));
        }
        for _ in 0..rng.below(3) {
            let records = rng.between(50, super::CATALOGUE_RECORDS_MAX / 2);
            self.insert(rng, count, Deed::Person(Wish::Catalogue { records }));
        }
        for _ in 0..rng.below(4) {
            self.insert(rng, count, Deed::PowerCut);
        }
        // Minutes pass in which all goes on, and days on which there is no link.
        for _ in 0..rng.between(1, 5) {
            let for_us = rng.between(10, 200) * SECOND_US;
            self.let_pass(rng, for_us, None);
        }
        for _ in 0..rng.below(3) {
            let for_us = rng.between(DAY_US / 24, 2 * DAY_US);
            self.let_pass(rng, for_us, Some(Deed::Silence { for_us }));
        }
    }

    /// People have secrets, write and look at them in several places, and some are to be forgotten.
    fn add_secrets(&mut self, rng: &mut Seeded) {
        self.has_secrets = true;
        let count = self.residents.len() as u64;
        for _ in 0..rng.between(6, 24) {
            let number = rng.below(u64::from(SECRETS)) as u8;
            let deed = match rng.below(10) {
                0..=4 => Deed::Person(Wish::Secret { number, version: rng.below(u64::from(VERSIONS)) as u8 }),
                5..=7 => Deed::Person(Wish::Note(number)),
                _ => Deed::Erase(number),
            };
            self.insert(rng, count, deed);
        }
    }

    /// Sticks are carried, also between those who have links, and to one in some worlds who has none.
    fn add_carriers(&mut self, rng: &mut Seeded) {
        self.has_carriers = true;
        let count = self.residents.len() as u64;
        let alone = 1 + rng.below(count - 1) as usize;
        // Who has nothing but sticks, and was away for longer than its lease, has nobody from whom to read all anew.
        if rng.chance(60) && !self.residents[alone].on_lan && self.lease_ms.is_none() {
            let resident = &mut self.residents[alone];
            (resident.has_way, resident.by_carrier, resident.link) = (false, true, None);
        }
        for _ in 0..rng.between(4, 16) {
            let at_hub = rng.chance(70);
            let (node, other) = (1 + rng.below(count - 1) as usize, rng.below(count) as usize);
            let node = if rng.chance(40) { alone } else { node };
            let ends = if at_hub { [0, node] } else { [other, node] };
            let [from, to] = if rng.chance(50) { ends } else { [ends[1], ends[0]] };
            let time = |rng: &mut Seeded| match rng.below(3) {
                0 => rng.between(SECOND_US, 20 * DAY_US),
                _ => rng.between(SECOND_US, 120 * SECOND_US),
            };
            let damages = [Damage::Cut, Damage::Changed, Damage::PowerCut];
            let damage = if rng.chance(40) { *rng.pick(&damages).unwrap_or(&Damage::Cut) } else { Damage::None };
            let (for_us, back_us) = (time(rng), rng.chance(70).then(|| time(rng)));
            let good_for_days = *rng.pick(&[1, 30, 90]).unwrap_or(&90);
            let deed = Deed::Carry(Carried { to, for_us, back_us, damage, good_for_days });
            self.insert_at(rng, from, deed);
        }
        // Months in which there is a link between two silences cost as much as a thousand worlds.
        let of_months = self.steps.last().is_some_and(|step| step.at_us > DAY_US);
        for _ in 0..if of_months { 0 } else { rng.below(3) } {
            let for_us = rng.between(DAY_US / 24, 20 * DAY_US);
            self.let_pass(rng, for_us, Some(Deed::Silence { for_us }));
        }
    }

    /// Disks are too small for all content, and what nothing names is swept.
    fn add_want_of_room(&mut self, rng: &mut Seeded) {
        // Who has a way only through a neighbour lacks what that one has given up.
        if self.residents.iter().any(|here| !here.has_way && !here.by_carrier) {
            return;
        }
        let count = self.residents.len() as u64;
        for _ in 0..rng.between(2, 8) {
            let bytes = if rng.chance(50) { 0 } else { rng.below(80_000) };
            self.insert(rng, count, Deed::WantRoom(bytes));
        }
        for _ in 0..rng.between(3, 10) {
            self.insert(rng, count, Deed::Sweep);
            let number = rng.below(CONTENTS / 2);
            self.insert(rng, count, Deed::Person(Wish::Import(number)));
        }
    }

    /// Operators choose what nodes keep. Neighbours would bring back what only the bridge is asked about.
    fn add_choices(&mut self, rng: &mut Seeded) {
        if self.residents.iter().any(|here| here.on_lan) {
            return;
        }
        self.has_choices = true;
        let count = self.residents.len() as u64;
        for _ in 0..rng.between(3, 10) {
            let keeps = rng.chance(50);
            self.insert(rng, count, Deed::Choose { keeps });
        }
    }

    /// Cards are written with images of themselves, again and again the same one, and a copy runs beside its original.
    pub(super) fn copy_cards(&mut self, rng: &mut Seeded) {
        self.has_cards = true;
        let count = self.residents.len() as u64;
        // Time enough for those who meet to come to the same, so that there is something to be lost.
        for _ in 0..rng.between(2, 6) {
            let for_us = rng.between(5, 60) * SECOND_US;
            self.let_pass(rng, for_us, None);
        }
        for _ in 0..rng.between(1, 4) {
            let at = 1 + rng.below(count - 1) as usize;
            self.insert_at(rng, at, Deed::TakeCopy);
            for _ in 0..rng.between(1, 3) {
                self.insert_at(rng, at, Deed::PutBack);
            }
            for _ in 0..rng.below(8) {
                let wish = super::wish(rng);
                self.insert_at(rng, at, Deed::Person(wish));
            }
        }
        let original = 1 + rng.below(count - 1) as usize;
        let resident = &self.residents[original];
        // One receipt for an erasure is all that two of the same name give.
        if !rng.chance(50) || !resident.has_way || self.has_secrets {
            return;
        }
        let copy =
            Resident { on_lan: false, neighbours: Vec::new(), link: None, copy_of: Some(original), ..resident.clone() };
        self.residents.push(copy);
        let at = self.residents.len() - 1;
        self.insert_at(rng, at, Deed::StartCopy);
        for _ in 0..rng.between(4, 16) {
            let deed = if rng.chance(15) { Deed::PowerCut } else { Deed::Person(super::wish(rng)) };
            self.insert_at(rng, at, deed);
        }
    }

    /// Something more befalls any of the first `replicas`, at any time.
    fn insert(&mut self, rng: &mut Seeded, replicas: u64, deed: Deed) {
        let replica = rng.below(replicas) as usize;
        self.insert_at(rng, replica, deed);
    }

    fn insert_at(&mut self, rng: &mut Seeded, replica: usize, deed: Deed) {
        let last_us = self.steps.last().map_or(SECOND_US, |step| step.at_us);
        let at_us = rng.below(last_us + 1);
        let place = self.steps.partition_point(|step| step.at_us <= at_us);
        self.steps.insert(place, Step { at_us, replica, deed, chance: rng.fork_seed() });
    }

    /// Nothing happens for a time, but for what begins it.
    fn let_pass(&mut self, rng: &mut Seeded, for_us: u64, deed: Option<Deed>) {
        let place = rng.below(self.steps.len() as u64) as usize;
        let at_us = self.steps[place].at_us;
        for step in &mut self.steps[place..] {
            step.at_us += for_us;
        }
        if let Some(deed) = deed {
            self.steps.insert(place, Step { at_us, replica: 0, deed, chance: rng.fork_seed() });
        }
    }
}
