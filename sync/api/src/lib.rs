//! The `/v1` JSON API, written once for the node and the bridge.
//!
//! - [`catalogue`]: the port that each host implements: records and content.
//! - [`guard`]: the hook that decides who may write.

pub mod catalogue;
pub mod guard;

pub use catalogue::{Catalogue, CatalogueError};
pub use guard::{WriteGuard, WriteRefused};
