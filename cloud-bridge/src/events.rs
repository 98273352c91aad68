//! Events: what happened to records and blobs, told to an SNS topic.
//!
//! - [`outbox`]: writes an event in the transaction that makes it true.
//! - [`cloud_event`]: what it looks like on the topic (CloudEvents 1.0, structured JSON, and message attributes).
//! - [`publisher`]: the loop that publishes what is committed.
//!
//! Invariants:
//! - An event is published if and only if its change was committed: at least once, under the same id every time.
//! - The events of one record are published in the order of its changes.

pub mod cloud_event;
pub mod outbox;
pub mod publisher;

pub use publisher::Publisher;

/// The `[events]` section.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The SNS topic. Without one, no events are kept or published.
    pub topic_arn: Option<String>,
    /// What events name as their source (a URI reference) and service.
    pub source: String,
    /// Lanes that this process publishes at once.
    pub workers: usize,
    /// How long an event waits, at most, while this process takes in many records at once, in seconds; 0 for not at all.
    pub yield_max_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { topic_arn: None, source: "alexandria-bridge".into(), workers: 2, yield_max_s: 10 }
    }
}
