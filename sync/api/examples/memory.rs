//! Serves the API over a catalogue in memory on the address given (127.0.0.1:8090 without one): to look at it, and for
//! schemathesis (`tests/schemathesis.toml`). Anybody may write, and nothing is kept.

use alexandria_api::{Limits, WriteGuard, WriteRefused};
use axum::http::request::Parts;

#[path = "../tests/api/memory.rs"]
mod memory;

#[derive(Clone)]
struct Everybody;

impl WriteGuard for Everybody {
    async fn permit(&self, _: &Parts) -> Result<(), WriteRefused> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    // A tester that asks to wait a minute for a change must not take an hour over it.
    let limits = Limits { wait_s_max: 0, upload_bytes_max: 16 * 1024 * 1024, ..Limits::default() };
    let app = alexandria_api::router(memory::MemoryCatalogue::default(), Everybody, limits);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
