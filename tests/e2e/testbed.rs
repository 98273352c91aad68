//! The harness keeps its own promises: servers start and answer, outages happen, bad lines are as bad as told.

mod aws;
mod browser;
mod datagrams;
mod link;
mod outage;
mod postgres;
mod processes;
