//! The TLS server that nodes enrol at: `POST /v1/enrol`, and later `POST /v1/renew` for another certificate.
//!
//! It shows the bridge's certificate and the authority's. A node has no certificate yet and trusts nobody; it compares
//! the authority's certificate with the fingerprint in its token, checks the bridge's against it (under the name
//! `bridge.alexandria.internal`), and only then sends the token.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alexandria_api::problem::{self, Problem, ProblemKind};
use alexandria_sync::id::NodeId;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Fleet;
use super::authority::BridgeIdentity;
use super::enrolment::{EnrolError, Enrolled, Renewal, Request};

/// Bytes of a request, at most; a signing request has about 500.
const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once, at most; more callers wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// When a node should ask again after the bridge's own trouble, in seconds.
const RETRY_AFTER_S: u32 = 5;
/// Connections that are ready and wait to be served, at most.
const READY_MAX: usize = 64;

/// What a node gets for its token.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub struct Answer {
    /// The node's certificate in PEM.
    pub certificate_pem: String,
    /// The authority's certificate in PEM.
    pub ca_pem: String,
    /// The bridge, as one replica.
    pub bridge_id: NodeId,
    /// Where sessions are opened: `HOST:PORT`, UDP. With an empty host (`:PORT`), the host that the node enrolled at.
    pub quic_address: String,
    /// The same for TCP, if the bridge takes sessions over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_address: Option<String>,
    /// The site that the token was made for.
    pub site: String,
}

/// Where nodes are told to open sessions.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Over QUIC.
    pub quic: String,
    /// Over TCP, if they may.
    pub tcp: Option<String>,
}

#[derive(Clone)]
struct Enrolment {
    fleet: Fleet,
    bridge_id: NodeId,
    addresses: Arc<Addresses>,
}

/// The routes of the enrolment server.
pub fn router(fleet: Fleet, bridge_id: NodeId, addresses: Addresses) -> Router {
    Router::new()
        .route("/v1/enrol", post(enrol))
        .route("/v1/renew", post(renew))
        .fallback(problem::not_found)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(Enrolment { fleet, bridge_id, addresses: addresses.into() })
}

async fn enrol(
    State(enrolment): State<Enrolment>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Json<Answer>, Problem> {
    let Json(request) = request.map_err(|error| Problem::new(ProblemKind::InvalidBody, error.body_text()))?;
    let enrolled = enrolment.fleet.enrol(&request).await.map_err(|error| refusal(&error))?;
    Ok(Json(enrolment.answer(enrolled)))
}

async fn renew(
    State(enrolment): State<Enrolment>,
    renewal: Result<Json<Renewal>, JsonRejection>,
) -> Result<Json<Answer>, Problem> {
    let Json(renewal) = renewal.map_err(|error| Problem::new(ProblemKind::InvalidBody, error.body_text()))?;
    let enrolled = enrolment.fleet.renew(&renewal).await.map_err(|error| refusal(&error))?;
    Ok(Json(enrolment.answer(enrolled)))
}

impl Enrolment {
    fn answer(&self, enrolled: Enrolled) -> Answer {
        Answer {
            certificate_pem: enrolled.certificate_pem,
            ca_pem: self.fleet.authority().certificate_pem().to_owned(),
            bridge_id: self.bridge_id,
            quic_address: self.addresses.quic.clone(),
            tcp_address: self.addresses.tcp.clone(),
            site: enrolled.site,
        }
    }
}

fn refusal(error: &EnrolError) -> Problem {
    let detail = error.to_string();
    match error {
        EnrolError::WrongToken => Problem::new(ProblemKind::Forbidden, detail).at("token"),
        EnrolError::NotAMember | EnrolError::NodeIdTaken | EnrolError::Revoked | EnrolError::ReplacesItself => {
            Problem::new(ProblemKind::Forbidden, detail).at("node_id")
        }
        EnrolError::BadName => Problem::new(ProblemKind::InvalidField, detail).at("name"),
        EnrolError::Malformed(_) => Problem::new(ProblemKind::InvalidField, detail).at("csr_pem"),
        EnrolError::Database(_) => Problem::new(ProblemKind::Busy, "ask again later").retry_after(RETRY_AFTER_S),
    }
}

/// A TCP listener whose connections speak TLS. Handshakes go on beside each other: a slow one holds up nobody.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    /// Listens on `address` under the bridge's certificate, until `stop`.
    ///
    /// # Errors
    ///
    /// If the address is taken, or the certificate makes no sense.
    pub async fn bind(address: SocketAddr, identity: &BridgeIdentity, stop: CancellationToken) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(Arc::new(config)), sender, stop));
        Ok(Self { ready, address })
    }
}

async fn shake_hands(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, address)) = accepted else {
            // Out of file descriptors, most likely: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = ready.send((stream, address)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Stopped: the server is about to be, too.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
