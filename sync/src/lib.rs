//! What an Alexandria node and its cloud bridge share: records that merge, content that resumes, and the session that
//! moves both over any link.
//!
//! Read in this order:
//! - [`id`], [`hlc`]: who wrote what, and when.
//! - [`merge`], [`record`], [`domain`]: what is replicated and how two versions become one. [`quarantine`]: what is
//!   set aside. [`erase`]: the right to be forgotten.
//! - [`chunk`]: content, its hashes and its manifests.
//! - [`store`]: the two ports that a replica implements (records and blobs).
//! - [`wire`], [`session`]: frames, and the state machine that speaks them. No clock, no randomness, no I/O.
//! - [`driver`], [`quic`]: the pump between a session, its stores and a real connection.
//! - `sim` (feature `sim`): virtual time, lossy links and crashing stores, to check the invariants of docs/ARCHITECTURE.md.

pub mod chunk;
pub mod domain;
pub mod driver;
pub mod erase;
pub mod hlc;
pub mod id;
pub mod merge;
#[cfg(feature = "openapi")]
mod openapi;
pub mod quarantine;
pub mod quic;
pub mod record;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod wire;
