//! The end-to-end tests: one binary, a module for each part of what the product promises.
//!
//! - `testbed`: the harness keeps its own promises
//! - `main_job`: an offline library reaches PostgreSQL, S3, SNS and another node; what is made in the cloud reaches nodes
//! - `apart`: edits on both sides while there is no link come together
//! - `cuts`: node and bridge killed in the middle of a transfer
//! - `outages`: PostgreSQL, S3 and SNS away for a while
//! - `power`: a node under write load, killed again and again
//! - `selection`: collections kept or not, content on demand, room made, pins
//! - `strangers`: who is refused, and that it is counted
//! - `hostile_files`: what an import refuses
//! - `upkeep`: status, verify, backup, restore, restart
//! - `pages`: the library in a browser
//! - `api`: the limits and errors of `/v1`, and schemathesis

mod apart;
mod api;
mod cuts;
mod hostile_files;
mod main_job;
mod outages;
mod pages;
mod power;
mod selection;
mod strangers;
mod testbed;
mod upkeep;
