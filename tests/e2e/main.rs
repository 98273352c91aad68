//! The end-to-end tests: one binary, a module for each part of what the product promises.
//!
//! - `testbed`: the harness keeps its own promises

mod testbed;
