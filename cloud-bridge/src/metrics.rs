//! What Prometheus scrapes: counters that the parts of the bridge count up.
//!
//! Every family is named here, so that one file says what can be watched. Labels have few, fixed values.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Handles on all families; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Records received that changed something.
    pub records_applied: Counter,
    /// Records received that said nothing new.
    pub records_superseded: Counter,
    /// Records received that were set aside.
    pub records_quarantined: Counter,
    /// Records set aside now.
    pub quarantine_records: Gauge,
    /// Bytes of them.
    pub quarantine_bytes: Gauge,
    /// Pages that were not applied because too much of their sender is set aside.
    pub quarantine_full: Counter,
    /// Collections that were not made because there are as many as there may be.
    pub buckets_full: Counter,
    /// Tombstones that were forgotten, older than a lease.
    pub tombstones_collected: Counter,
    /// Blobs received whole.
    pub blobs_stored: Counter,
    /// Bytes of blobs received whole.
    pub blob_bytes_stored: Counter,
    /// Blobs whose content did not match their name.
    pub blobs_mismatched: Counter,
    /// Reads of content that S3 has lost or holds damaged.
    pub blob_reads_damaged: Counter,
    /// Blobs being received now.
    pub uploads_open: Gauge,
    /// Multipart uploads that were given up and removed.
    pub uploads_abandoned: Counter,
    /// Events published.
    pub events_published: Counter,
    /// Calls to the topic that failed and will be tried again.
    pub events_failed: Counter,
    /// Events that the topic will never take.
    pub events_refused: Counter,
    /// Nodes enrolled.
    pub nodes_enrolled: Counter,
    /// Enrolments refused, by reason.
    pub enrolments_refused: Family<RefusalLabel, Counter>,
    /// Calls to AWS IoT that failed and will be tried again.
    pub iot_failed: Counter,
    /// Sessions open now.
    pub sessions_open: Gauge,
    /// Sessions that ended well.
    pub sessions_completed: Counter,
    /// Sessions that ended with an error.
    pub sessions_failed: Counter,
    /// Connections refused before a session began, by reason.
    pub connections_refused: Family<RefusalLabel, Counter>,
}

/// Why somebody was turned away.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RefusalLabel {
    /// The reason.
    pub reason: Refusal,
}

/// The reasons for which somebody is turned away.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// The token is unknown, expired, or was used by another node.
    WrongToken,
    /// The certificate is not from this fleet's authority, or there is none.
    ForeignCertificate,
    /// The certificate is good, but the node was never enrolled here.
    UnknownNode,
    /// The node, or its certificate, was revoked.
    Revoked,
    /// The id is taken by another key.
    NodeIdTaken,
    /// What was sent makes no sense.
    Malformed,
    /// Too many at once.
    Overload,
}

impl Metrics {
    /// All families at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("alexandria_bridge");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let records_applied = counter("records_applied", "Records received that changed something");
        let records_superseded = counter("records_superseded", "Records received that said nothing new");
        let records_quarantined = counter("records_quarantined", "Records received that were set aside");
        let tombstones_collected =
            counter("tombstones_collected", "Tombstones that were forgotten, older than a lease");
        let buckets_full =
            counter("buckets_full", "Collections that were not made because there are as many as there may be");
        let quarantine_full = counter("quarantine_full", "Pages refused because too much of their sender is set aside");
        let blobs_stored = counter("blobs_stored", "Blobs received whole");
        let blob_bytes_stored = counter("blob_bytes_stored", "Bytes of blobs received whole");
        let blobs_mismatched = counter("blobs_mismatched", "Blobs whose content did not match their name");
        let blob_reads_damaged = counter("blob_reads_damaged", "Reads of content that S3 has lost or holds damaged");
        let uploads_abandoned = counter("uploads_abandoned", "Unfinished uploads that were removed");
        let events_published = counter("events_published", "Events published");
        let events_failed = counter("events_failed", "Calls to the topic that failed and will be tried again");
        let events_refused = counter("events_refused", "Events that the topic will never take");
        let nodes_enrolled = counter("nodes_enrolled", "Nodes enrolled");
        let iot_failed = counter("iot_failed", "Calls to AWS IoT that failed and will be tried again");
        let sessions_completed = counter("sessions_completed", "Sessions that ended well");
        let sessions_failed = counter("sessions_failed", "Sessions that ended with an error");
        let quarantine_records = Gauge::default();
        registry.register("quarantine_records", "Records set aside now", quarantine_records.clone());
        let quarantine_bytes = Gauge::default();
        registry.register("quarantine_bytes", "Bytes of the records set aside now", quarantine_bytes.clone());
        let uploads_open = Gauge::default();
        registry.register("uploads_open", "Blobs being received now", uploads_open.clone());
        let sessions_open = Gauge::default();
        registry.register("sessions_open", "Sessions open now", sessions_open.clone());
        let enrolments_refused = Family::default();
        registry.register("enrolments_refused", "Enrolments refused", enrolments_refused.clone());
        let connections_refused = Family::default();
        registry.register("connections_refused", "Connections refused", connections_refused.clone());
        Self {
            registry: Arc::new(registry),
            records_applied,
            records_superseded,
            records_quarantined,
            quarantine_records,
            quarantine_bytes,
            buckets_full,
            quarantine_full,
            tombstones_collected,
            blobs_stored,
            blob_bytes_stored,
            blobs_mismatched,
            blob_reads_damaged,
            uploads_open,
            uploads_abandoned,
            events_published,
            events_failed,
            events_refused,
            nodes_enrolled,
            enrolments_refused,
            iot_failed,
            sessions_open,
            sessions_completed,
            sessions_failed,
            connections_refused,
        }
    }

    /// Counts an enrolment that was refused.
    pub fn refused_enrolment(&self, reason: Refusal) {
        self.enrolments_refused.get_or_create(&RefusalLabel { reason }).inc();
    }

    /// Counts a connection that was refused.
    pub fn refused_connection(&self, reason: Refusal) {
        self.connections_refused.get_or_create(&RefusalLabel { reason }).inc();
    }

    /// The OpenMetrics text of all families.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
