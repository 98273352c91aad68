//! Talks to the node of a data folder.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::bundles::{BundleExportLine, BundleExportRequest, BundleImportLine, BundleRequest, BundleSurvey};
use super::held_back::{HeldBackLine, ReleaseAnswer, ReleaseRequest};
use super::messages::{
    BackupLine, BackupRequest, DropRequest, EnrollRequest, Enrolled, EraseAnswer, EraseRequest, ImportLine,
    ImportRequest, QuarantineLine, ReplayAnswer, ReplayRequest, RestoreLine, RestoreRequest, SetAsideRecord, Status,
    SyncLine, TokenAnswer, VerifyLine, VerifyRequest,
};
use super::selection::{ChooseRequest, CollectionState, PinAnswer, PinRequest};

/// Bytes of one line or one answer, at most.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why the node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node runs on this folder, or it may not be talked to.
    #[error("connect to the node at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("talk to the node")]
    Http(#[from] hyper::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It answered something that this version does not understand.
    #[error("the node's answer is not understood")]
    NotUnderstood(#[from] serde_json::Error),
    /// A line of the answer is over its limit.
    #[error("a line of the node's answer is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// It went away in the middle.
    #[error("the node went away before it was done")]
    CutOff,
}

/// The command line's side of the local socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the node that listens at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Whether a node answers there.
    pub async fn answers(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// What the node holds and does.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as every method here.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/status").await
    }

    /// The token for writing.
    pub async fn token(&self) -> Result<TokenAnswer, ClientError> {
        self.get("/token").await
    }

    /// Takes in files.
    pub async fn import(&self, request: &ImportRequest) -> Result<Lines<ImportLine>, ClientError> {
        self.stream("/import", request).await
    }

    /// Checks everything.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Lines<VerifyLine>, ClientError> {
        self.stream("/verify", request).await
    }

    /// Writes a backup.
    pub async fn backup(&self, request: &BackupRequest) -> Result<Lines<BackupLine>, ClientError> {
        self.stream("/backup", request).await
    }

    /// Writes a bundle.
    pub async fn export_bundle(&self, request: &BundleExportRequest) -> Result<Lines<BundleExportLine>, ClientError> {
        self.stream("/bundle/export", request).await
    }

    /// Looks at a bundle or a receipt.
    pub async fn survey_bundle(&self, request: &BundleRequest) -> Result<BundleSurvey, ClientError> {
        let answer = self.send(Method::POST, "/bundle/survey", serde_json::to_vec(request)?).await?;
        Ok(serde_json::from_slice(&whole(answer).await?)?)
    }

    /// Takes in a bundle or a receipt.
    pub async fn import_bundle(&self, request: &BundleRequest) -> Result<Lines<BundleImportLine>, ClientError> {
        self.stream("/bundle/import", request).await
    }

    /// Puts a backup back.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<Lines<RestoreLine>, ClientError> {
        self.stream("/restore", request).await
    }

    /// Joins a fleet.
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<Enrolled, ClientError> {
        self.post("/enroll", request).await
    }

    /// Every collection, and how much of it the node keeps.
    pub async fn collections(&self) -> Result<Vec<CollectionState>, ClientError> {
        self.get("/collections").await
    }

    /// Chooses how much of a collection is kept.
    pub async fn choose(&self, request: &ChooseRequest) -> Result<CollectionState, ClientError> {
        self.post("/collections", request).await
    }

    /// Pins something, or takes its pin back.
    pub async fn pin(&self, request: &PinRequest) -> Result<PinAnswer, ClientError> {
        self.post("/pins", request).await
    }

    /// Erases a record.
    pub async fn erase(&self, request: &EraseRequest) -> Result<EraseAnswer, ClientError> {
        self.post("/erase", request).await
    }

    /// Shows what is set aside.
    pub async fn quarantine(&self) -> Result<Lines<QuarantineLine>, ClientError> {
        self.stream("/quarantine", &()).await
    }

    /// Lets in what is set aside.
    pub async fn replay(&self, request: &ReplayRequest) -> Result<ReplayAnswer, ClientError> {
        self.post("/quarantine/replay", request).await
    }

    /// Shows what is held back after a long absence.
    pub async fn held_back(&self) -> Result<Lines<HeldBackLine>, ClientError> {
        self.stream("/heldback", &()).await
    }

    /// Sends it.
    pub async fn send_held_back(&self, request: &ReleaseRequest) -> Result<ReleaseAnswer, ClientError> {
        self.post("/heldback/send", request).await
    }

    /// Throws it away.
    pub async fn drop_held_back(&self, request: &ReleaseRequest) -> Result<ReleaseAnswer, ClientError> {
        self.post("/heldback/drop", request).await
    }

    /// Throws a record away that is set aside.
    pub async fn drop_set_aside(&self, request: &DropRequest) -> Result<SetAsideRecord, ClientError> {
        self.post("/quarantine/drop", request).await
    }

    /// Replicates until both sides hold the same.
    pub async fn sync(&self) -> Result<Lines<SyncLine>, ClientError> {
        self.stream("/sync", &()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.send(Method::GET, path, Vec::new()).await?;
        Ok(serde_json::from_slice(&whole(answer).await?)?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T, ClientError> {
        let answer = self.send(Method::POST, path, serde_json::to_vec(request)?).await?;
        Ok(serde_json::from_slice(&whole(answer).await?)?)
    }

    async fn stream<T>(&self, path: &str, request: &impl Serialize) -> Result<Lines<T>, ClientError> {
        let answer = self.send(Method::POST, path, serde_json::to_vec(request)?).await?;
        Ok(Lines { body: answer.into_body(), buffer: Vec::new(), of: PhantomData })
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let stream = connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "alexandria.local")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a constant request line and headers are well-formed");
        let answer = sender.send_request(request).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let text = whole(answer).await?;
        let problem: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(ClientError::Refused(detail))
    }
}

async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(path).await.map_err(|source| ClientError::Connect { path: path.to_owned(), source })
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(answer.into_body(), LINE_BYTES_MAX);
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| {
        match error.downcast::<hyper::Error>() {
            Ok(error) => ClientError::Http(*error),
            Err(_) => ClientError::LineTooLong,
        }
    })
}

/// An answer that comes line by line.
pub struct Lines<T> {
    body: Incoming,
    buffer: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; an error if the answer ends before its last.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<T, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ClientError::LineTooLong);
            }
            let frame = self.body.frame().await.ok_or(ClientError::CutOff)??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
