//! The figures of docs/BENCHMARKS.md: `tests/bench/run NAME`. Ours beside a peer where there is one, in one run,
//! interleaved, medians. Not a test: it asserts nothing about time.

mod bad_link;
mod content;
mod fleet;
mod measure;
mod records;
mod replication;
mod shared_line;

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("static") => content::beside_nginx().await,
        Some("import") => content::import_large().await,
        Some("records") => records::create_and_start().await,
        Some("churn") => records::churn().await,
        Some("replication") => replication::records().await,
        Some("blob") => replication::blob().await,
        Some("delta") => replication::delta().await,
        Some("badlink") => bad_link::beside_others().await,
        Some("sharedline") => shared_line::beside_tcp().await,
        Some("idle") => fleet::idle_nodes().await,
        _ => eprintln!(
            "usage: tests/bench/run static|import|records|churn|replication|blob|delta|badlink|sharedline|idle"
        ),
    }
}
