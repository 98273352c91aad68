//! The library in a box. What is where: docs/ARCHITECTURE.md.

pub mod builtin;
pub mod cli;
pub mod config;
pub mod http;
pub mod ingest;
pub mod jobs;
pub mod lan;
pub mod library;
pub mod local;
pub mod node;
pub mod replication;
pub mod search;
pub mod store;
