//! The control plane of a fleet: what every node replicates with, once it has a link.
//!
//! Records live in PostgreSQL, content in S3; events go to SNS, and the fleet is known to AWS IoT. Processes are
//! stateless: any number may run on one database and one bucket, and any of them may be killed at any time.
//!
//! - [`config`], [`bridge`], [`aws`]: what is set, how the parts are put together, and how AWS is reached.
//! - [`postgres`]: the record store, its feeds, and the tables that SQL can ask.
//! - [`content`]: the blob store on S3.
//! - [`events`]: the outbox, and the loop that publishes it.
//! - [`fleet`]: the certificate authority, enrolment, revocation, and the reconciliation with AWS IoT.
//! - [`catalogue`], [`http`]: what operators and apps see.
//! - [`replication`]: sessions with nodes. [`bundle`]: the same on a stick.
//! - `together`: one statement for all who ask at the same time.
//! - [`commands`], [`metrics`]: the command line's verbs, and what Prometheus scrapes.

pub mod aws;
pub mod bridge;
pub mod bundle;
pub mod catalogue;
pub mod commands;
pub mod config;
pub mod content;
pub mod events;
pub mod fleet;
pub mod http;
pub mod metrics;
pub mod postgres;
pub mod replication;
mod together;
