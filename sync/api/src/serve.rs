//! An HTTP server with a limit on everything: connections, header sizes and times, requests in flight, slow clients.
//!
//! HTTP/1.1 and HTTP/2 on the same port, in the clear. It takes any listener, so a node serves its network, and its own
//! command line over a local socket, with the same code.

mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::serve::{Listener, ListenerExt};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use self::stall::Stalling;

/// The limits of a server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerLimits {
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// Requests of one HTTP/2 connection at once.
    pub streams_max: u32,
    /// Header lines of a request.
    pub header_lines_max: usize,
    /// Bytes of all header lines of a request.
    pub header_bytes_max: usize,
    /// A client has this long to send its header lines, in seconds.
    pub header_timeout_s: u64,
    /// A connection on which no byte has moved for this long, in either direction, is dropped, in seconds.
    pub stall_timeout_s: u64,
    /// At shutdown, requests under way have this long to end, in seconds.
    pub shutdown_timeout_s: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            streams_max: 64,
            header_lines_max: 64,
            header_bytes_max: 16 * 1024,
            header_timeout_s: 15,
            stall_timeout_s: 120,
            shutdown_timeout_s: 10,
        }
    }
}

/// A listener on TCP whose connections send what they have at once. Otherwise the end of a short answer would wait for the
/// client to acknowledge its beginning, which clients put off by 40 ms (Nagle, RFC 896; delayed acknowledgements, RFC 1122).
pub fn without_delay(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection will be slow to answer");
        }
    })
}

/// Serves `router` on `listener` until `shutdown` resolves, then lets requests under way end.
///
/// Handlers find the peer's address as `ConnectInfo<L::Addr>`.
pub async fn serve<L>(mut listener: L, router: Router, limits: &ServerLimits, shutdown: impl Future<Output = ()>)
where
    L: Listener,
    L::Addr: Clone + Send + Sync + 'static,
{
    let builder = builder(limits);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let (cut_off, _) = watch::channel(false);
    let stall = Duration::from_secs(limits.stall_timeout_s);
    tokio::pin!(shutdown);
    loop {
        let slot = tokio::select! {
            biased;
            () = &mut shutdown => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let (io, address) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let io = Stalling::new(io, stall);
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(address.clone()));
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        });
        let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
        let connection = graceful.watch(connection);
        let mut cut_off = cut_off.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
                _ = cut_off.wait_for(|cut_off| *cut_off) => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    let patience = Duration::from_secs(limits.shutdown_timeout_s);
    if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::info!("requests were still under way at the end of the shutdown and are cut off");
        cut_off.send_replace(true);
        // What they hold is let go of with them.
        let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(patience, slots.acquire_many(all)).await;
    }
}

fn builder(limits: &ServerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_timeout_s))
        .max_headers(limits.header_lines_max)
        .max_buf_size(limits.header_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(limits.stall_timeout_s));
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    async fn start(limits: ServerLimits) -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let server = tokio::spawn(async move {
            serve(listener, router, &limits, async {
                let _ = stopped.await;
            })
            .await;
        });
        (address, stop, server)
    }

    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_and_ends_when_told() {
        let (address, stop, server) = start(ServerLimits::default()).await;
        let answer = exchange(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_outlives_the_patience_has_let_go_of_all_it_held_when_the_server_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(());
        let endless = {
            let held = Arc::clone(&held);
            move || {
                let held = Arc::clone(&held);
                async move {
                    std::future::pending::<()>().await;
                    drop(held);
                }
            }
        };
        let limits = ServerLimits { shutdown_timeout_s: 1, ..ServerLimits::default() };
        let router = Router::new().route("/", get(endless));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move { serve(listener, router, &limits, async { _ = stopped.await }).await });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // One here, one in the router, and one in the request.
        let begun = async {
            while Arc::strong_count(&held) < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the request is taken up");
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_the_client_to_acknowledge_its_beginning() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = without_delay(listener);
        let (accepted, _client) = tokio::join!(listener.accept(), TcpStream::connect(address));
        assert!(accepted.0.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_headers_is_dropped() {
        let limits = ServerLimits { header_timeout_s: 1, ..ServerLimits::default() };
        let (address, _stop, _server) = start(limits).await;
        let dropped = exchange(address, "GET / HTTP/1.1\r\nhost: x\r\n");
        tokio::time::timeout(Duration::from_secs(20), dropped).await.expect("the server hangs up");
    }

    #[tokio::test]
    async fn too_many_header_lines_are_refused() {
        let (address, _stop, _server) = start(ServerLimits::default()).await;
        let lines = "x-line: 1\r\n".repeat(200);
        let answer = exchange(address, &format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
