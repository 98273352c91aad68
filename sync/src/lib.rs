//! What an Alexandria node and its cloud bridge share: records that merge, content that resumes, and the session that
//! moves both over any link.
//!
//! Read in this order:
//! - [`id`], [`hlc`]: who wrote what, and when.
//! - [`merge`], [`record`], [`domain`]: what is replicated and how two versions become one. [`quarantine`]: what is
//!   set aside. [`erase`]: the right to be forgotten. [`lineage`]: stores that were set back, or run twice.
//! - [`chunk`]: content, its hashes and its manifests.
//! - [`store`]: the two ports that a replica implements (records and blobs).
//! - [`wire`], [`session`]: frames, and the state machine that speaks them. No clock, no randomness, no I/O.
//! - [`budget`]: what a link may be used for, and what was used.
//! - [`outlook`]: what is still to come, and why it waits.
//! - [`identity`], [`signature`], [`tls`], [`tickets`]: who is at the other end, and how it proves that.
//! - [`driver`], [`transport`], [`quic`], [`tcp`]: the pump between a session, its stores and a real connection.
//! - [`bundle`]: the same frames in a file, signed, for where no link reaches.
//! - `sim` (feature `sim`): virtual time, lossy links and crashing stores, to check the invariants of docs/ARCHITECTURE.md.

pub mod absence;
pub mod budget;
pub mod bundle;
mod cbor;
pub mod chunk;
pub mod domain;
pub mod driver;
pub mod erase;
pub mod hlc;
pub mod id;
pub mod identity;
pub mod lineage;
pub mod merge;
#[cfg(feature = "openapi")]
mod openapi;
pub mod outlook;
pub mod quarantine;
pub mod quic;
pub mod record;
pub mod session;
pub mod signature;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod tcp;
pub mod tickets;
pub mod tls;
pub mod transport;
pub mod wire;
