//! The testbed: real servers, bad links and the product's own binaries, started for a test and cleaned up after it.
//!
//! Everything listens on 127.0.0.1, or inside a network namespace that the test made itself. Nothing here is a mock:
//! a test that needs an outage puts an [`outage::OutageProxy`] in front of the real thing.
//!
//! The library panics where a test would: a server that does not start is a failed test, with the server's own words.
//! What the machine cannot do at all (no root, no TUN device) is said once and skipped, see [`skip`].
//!
//! - [`deadline`]: waiting for a condition; the only place that sleeps
//! - [`seed`]: where randomness comes from, and how to repeat it
//! - [`skip`]: what this machine cannot run
//! - [`process`], [`reaper`]: servers as child processes, gone when the test is
//! - [`http`]: a small client
//! - [`postgres`], [`aws`]: the bridge's neighbours
//! - [`node`], [`bridge`]: the product; [`catalogue`]: what an app makes and changes at either
//! - [`fleet`]: a bridge with all that it needs, and nodes that join it; [`authority`]: a fleet without a bridge
//! - [`files`]: what a test imports; [`clock`]: wrong clocks
//! - [`line`]: how a bad line treats what it carries, used by [`datagrams`] (a UDP relay) and [`link`] (a TAP relay)
//! - [`namespace`]: hosts on one machine, for nodes at the ends of a [`link`]
//! - [`outage`]: a TCP relay that refuses, cuts and stalls
//! - [`browser`]: headless Chromium

pub mod authority;
pub mod aws;
pub mod bridge;
pub mod browser;
pub mod catalogue;
pub mod clock;
pub mod datagrams;
pub mod deadline;
pub mod files;
pub mod fleet;
pub mod http;
pub mod line;
pub mod link;
pub mod namespace;
pub mod node;
pub mod outage;
pub mod postgres;
pub mod process;
pub mod reaper;
pub mod seed;
pub mod skip;
