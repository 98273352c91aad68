//! The bridge against a real PostgreSQL and an AWS-speaking server, in one process.
//!
//! Where one of the two is not installed, its tests say so and are skipped.

mod absence;
mod buckets;
mod bundles;
mod catalogue;
mod content;
mod erasure;
mod events;
mod feed;
mod fixture;
mod fleet;
mod iot;
mod outages;
mod quarantine;
mod serving;
mod words;
