//! The promises of this crate, tested from outside: over the simulator, over real connections, and against bytes that
//! released versions wrote.

mod absence;
mod absences;
mod budget;
mod bundles;
mod bystanders;
mod cards;
mod congestion;
mod corpus;
mod erasure;
mod fetching;
mod fleet;
mod golden;
mod invariants;
mod liars;
mod patches;
mod peers;
mod reconnect;
mod regressions;
mod seeds;
mod selection;
mod tcp;
mod together;
mod transport;
mod two_versions;
