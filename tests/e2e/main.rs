//! The end-to-end tests: one binary, a module for each part of what the product promises.
//!
//! - `testbed`: the harness keeps its own promises
//! - `main_job`: an offline library reaches PostgreSQL, S3, SNS and another node; what is made in the cloud reaches nodes
//! - `apart`: edits on both sides while there is no link come together
//! - `bundles`: a library that travels on a stick
//! - `cuts`: node and bridge killed in the middle of a transfer
//! - `absence`: a node that comes back after its lease
//! - `cards`: a data folder that is put back to an older copy, and two nodes with copies of one
//! - `budget`: a link with a budget, and content that is read while it comes
//! - `outages`: PostgreSQL, S3 and SNS away for a while
//! - `lan`: nodes that find each other, and need no bridge for it
//! - `power`: a node under write load, killed again and again
//! - `replacement`: a node that takes the place of another
//! - `selection`: collections kept or not, content on demand, room made, pins
//! - `transports`: TCP where no UDP goes through
//! - `strangers`: who is refused, and that it is counted
//! - `hostile_files`: what an import refuses
//! - `large_files`: files larger than memory
//! - `wrong_clock`: what a wrong clock wrote is set aside, shown and let in
//! - `forgotten`: what is erased is gone everywhere, and nodes tell
//! - `upkeep`: status, verify, backup, restore, restart
//! - `pages`: the library in a browser
//! - `api`: the limits and errors of `/v1`, and schemathesis

mod absence;
mod apart;
mod api;
mod budget;
mod bundles;
mod cards;
mod cuts;
mod forgotten;
mod hostile_files;
mod lan;
mod large_files;
mod main_job;
mod outages;
mod pages;
mod power;
mod replacement;
mod selection;
mod strangers;
mod testbed;
mod transports;
mod upkeep;
mod wrong_clock;
