//! What operators and their tools look at: `/healthz` (the process lives), `/readyz` (it can take writes), `/metrics`
//! (Prometheus text format).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::library::Library;

/// Upper bounds of the buckets of request durations, in seconds.
const DURATION_BUCKETS_S: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// What is counted while the node runs. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    inner: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    /// Answers by the first digit of their status, from 1xx to 5xx.
    answers: [AtomicU64; 5],
    in_flight: AtomicU64,
    durations: [AtomicU64; DURATION_BUCKETS_S.len() + 1],
    duration_us: AtomicU64,
}

impl Metrics {
    fn note(&self, status: StatusCode, started: Instant) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.inner.answers[class].fetch_add(1, Ordering::Relaxed);
        let elapsed = started.elapsed();
        let seconds = elapsed.as_secs_f64();
        let bucket = DURATION_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(DURATION_BUCKETS_S.len());
        self.inner.durations[bucket].fetch_add(1, Ordering::Relaxed);
        self.inner.duration_us.fetch_add(elapsed.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Counts requests and the time until their answer starts.
pub(super) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    metrics.inner.in_flight.fetch_add(1, Ordering::Relaxed);
    let answer = next.run(request).await;
    metrics.inner.in_flight.fetch_sub(1, Ordering::Relaxed);
    metrics.note(answer.status(), started);
    answer
}

#[derive(Clone)]
struct Health {
    library: Library,
    metrics: Metrics,
}

pub(super) fn router(library: Library, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Health { library, metrics })
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(health): State<Health>) -> Response {
    if let Some(reason) = health.library.store().records.read_only() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("read-only: {reason}\n")).into_response();
    }
    if health.library.search().trouble().borrow().is_some() {
        let rows = health.library.search_behind_rows();
        return format!("ready\nsearch does not follow: {rows} changes are not found yet\n").into_response();
    }
    "ready\n".into_response()
}

async fn show_metrics(State(health): State<Health>) -> Response {
    let text = tokio::task::spawn_blocking(move || render(&health)).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn render(health: &Health) -> String {
    let mut text = String::new();
    let counters = &health.metrics.inner;
    family(&mut text, "alexandria_http_answers_total", "counter", "Answers by class of status.");
    for (class, count) in (1..).zip(&counters.answers) {
        let count = count.load(Ordering::Relaxed);
        let _ = writeln!(text, "alexandria_http_answers_total{{class=\"{class}xx\"}} {count}");
    }
    family(&mut text, "alexandria_http_in_flight", "gauge", "Requests being worked on.");
    let _ = writeln!(text, "alexandria_http_in_flight {}", counters.in_flight.load(Ordering::Relaxed));
    durations(&mut text, counters);
    let store = health.library.store();
    if let Ok(stats) = store.records.stats() {
        family(&mut text, "alexandria_records", "gauge", "Live records by kind.");
        for (kind, totals) in &stats.kinds {
            let name = kind_name(*kind).map_or_else(|| kind.0.to_string(), str::to_owned);
            let _ = writeln!(text, "alexandria_records{{kind=\"{name}\"}} {}", totals.live);
        }
        let set_aside = stats.quarantined;
        gauge(&mut text, "alexandria_records_quarantined", "Received records that were set aside.", set_aside.records);
        gauge(&mut text, "alexandria_quarantine_bytes", "Bytes of them.", set_aside.bytes);
        gauge(&mut text, "alexandria_store_disk_bytes", "Bytes of the record store.", stats.space.disk_bytes);
        gauge(&mut text, "alexandria_store_live_bytes", "Bytes of its rows, about.", stats.space.live_bytes);
        gauge(&mut text, "alexandria_store_queue", "Writes that wait.", stats.queued as u64);
    }
    if let Ok(stats) = store.blobs.stats() {
        gauge(&mut text, "alexandria_blobs", "Content that is whole here.", stats.held);
        gauge(&mut text, "alexandria_blob_bytes", "Bytes of it.", stats.held_bytes);
        gauge(&mut text, "alexandria_blobs_wanted", "Content that records name and that is not here.", stats.wanted);
    }
    outlook(&mut text, &health.library);
    if let Ok(pending) = store.records.pending_erasures() {
        let help = "Erasures that may still be on the disk.";
        gauge(&mut text, "alexandria_erasures_pending", help, pending.len() as u64);
    }
    let behind = health.library.search_behind_rows();
    gauge(&mut text, "alexandria_search_behind_rows", "Rows of the store that search does not know yet.", behind);
    let in_trouble = u64::from(health.library.search().trouble().borrow().is_some());
    gauge(&mut text, "alexandria_search_trouble", "1 if search does not follow the records just now.", in_trouble);
    let read_only = u64::from(store.records.read_only().is_some());
    gauge(&mut text, "alexandria_read_only", "1 if no writes are taken.", read_only);
    text
}

/// What is still to come, and why it waits.
fn outlook(text: &mut String, library: &Library) {
    let Ok(Some(outlook)) = library.prospects() else { return };
    gauge(text, "alexandria_link_connected", "1 if a session with the bridge is open.", u64::from(outlook.connected));
    gauge(text, "alexandria_records_to_come", "Records of the bridge to come, as far as is known.", outlook.records);
    family(text, "alexandria_content_to_come_bytes", "gauge", "Content to come, by class.");
    for (class, amount) in &outlook.content {
        let class = class.number();
        let _ = writeln!(text, "alexandria_content_to_come_bytes{{class=\"{class}\"}} {}", amount.bytes);
    }
    gauge(text, "alexandria_content_to_send_bytes", "Content that the bridge waits for.", outlook.bytes_to_send);
    gauge(text, "alexandria_content_bytes_per_second", "Content received in a second.", outlook.bytes_per_s);
    let waits = u64::from(outlook.wait.is_some());
    gauge(text, "alexandria_replication_waits", "1 if something waits; status tells why.", waits);
    if let Some(budget) = outlook.budget {
        gauge(text, "alexandria_link_budget_left_bytes", "What is left of the link's budget.", budget.all_bytes);
        let content = budget.content_bytes;
        gauge(text, "alexandria_link_budget_left_content_bytes", "The same for content.", content);
    }
}

fn durations(text: &mut String, counters: &Counters) {
    let name = "alexandria_http_duration_seconds";
    family(text, name, "histogram", "Time until an answer starts.");
    let mut total = 0;
    for (bound, count) in DURATION_BUCKETS_S.iter().zip(&counters.durations) {
        total += count.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
    }
    total += counters.durations[DURATION_BUCKETS_S.len()].load(Ordering::Relaxed);
    let seconds = counters.duration_us.load(Ordering::Relaxed) as f64 / 1e6;
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {seconds}\n{name}_count {total}");
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    family(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}

fn kind_name(kind: alexandria_sync::record::Kind) -> Option<&'static str> {
    [(Media::KIND, Media::NAME), (Author::KIND, Author::NAME), (Category::KIND, Category::NAME)]
        .into_iter()
        .chain([(Collection::KIND, Collection::NAME)])
        .find(|(known, _)| *known == kind)
        .map(|(_, name)| name)
}
