//! What is set, in three layers: a TOML file, then the environment, then flags. Parsed once, at the start; an unknown
//! key is refused, and a bad value is an error that names its key.
//!
//! Every key has one name: `section.key` in the file and after `--set`, `ALEXANDRIA_BRIDGE_SECTION_KEY` in the
//! environment. Each section belongs to the module that it is about; here they are only put together.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use alexandria_api::serve::ServerLimits;
use serde::Deserialize;
use toml::{Table, Value};

use crate::{aws, content, events, fleet, postgres};

/// What stands before every key in the environment.
pub const ENVIRONMENT_PREFIX: &str = "ALEXANDRIA_BRIDGE_";
/// Read by the command line, not a key.
const CONFIG_FILE_VARIABLE: &str = "ALEXANDRIA_BRIDGE_CONFIG";
/// Bytes of a configuration file, at most.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Characters of an operator's token, at least.
pub const OPERATOR_TOKEN_CHARS_MIN: usize = 16;

/// The longest lease, in seconds: ten years.
const LEASE_S_MAX: u64 = 10 * 366 * 24 * 60 * 60;
/// The most handshakes at once that may be asked for.
const HANDSHAKES_MAX_MAX: usize = 100_000;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The record store.
    pub postgres: postgres::Config,
    /// The operators' server.
    pub http: HttpConfig,
    /// The server that nodes enrol at.
    pub enrolment: EnrolmentConfig,
    /// The server that nodes replicate with.
    pub quic: QuicConfig,
    /// The same over TCP, for networks that let no UDP through.
    pub tcp: TcpConfig,
    /// The certificate authority and enrolment.
    pub fleet: fleet::Config,
    /// How AWS is reached.
    pub aws: aws::Config,
    /// The blob store.
    pub content: content::Config,
    /// The topic.
    pub events: events::Config,
    /// AWS IoT.
    pub iot: fleet::iot::Config,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// The `[http]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where operators and their apps are served. In the clear: put it behind a TLS proxy, or keep it local.
    pub listen: SocketAddr,
    /// The bearer token of operators.
    pub operator_token: String,
    /// Limits of the server.
    pub limits: ServerLimits,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 8081).into(), operator_token: String::new(), limits: ServerLimits::default() }
    }
}

/// The `[enrolment]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrolmentConfig {
    /// Where nodes enrol, over TLS.
    pub listen: SocketAddr,
}

impl Default for EnrolmentConfig {
    fn default() -> Self {
        Self { listen: ([0, 0, 0, 0], 8443).into() }
    }
}

/// The `[quic]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuicConfig {
    /// Where nodes replicate, over QUIC (UDP).
    pub listen: SocketAddr,
    /// The `HOST:PORT` that enrolled nodes are told, if it is not the host they enrolled at with the port of `listen`.
    pub public_address: Option<String>,
    /// Sessions at once, at most.
    pub sessions_max: usize,
    /// Handshakes under way at once, at most. Past half of them a node shows first where it is, which takes it a round trip.
    pub handshakes_max: usize,
    /// Bytes that one session may have on the way and not durable, at most.
    pub session_window_bytes: u64,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 4433).into(),
            public_address: None,
            sessions_max: 1000,
            handshakes_max: 1024,
            session_window_bytes: 16 * 1024 * 1024,
        }
    }
}

/// The `[tcp]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// Whether nodes may replicate over TCP.
    pub enabled: bool,
    /// Where they do; the address and port of `quic.listen` if not given.
    pub listen: Option<SocketAddr>,
    /// The `HOST:PORT` that enrolled nodes are told, if it is not the host they enrolled at with the port listened on.
    pub public_address: Option<String>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { enabled: true, listen: None, public_address: None }
    }
}

/// The `[log]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: `info`, or per module as `tracing-subscriber` has it.
    pub filter: String,
    /// One JSON object for each line, or text for people.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info,sqlx::postgres::notice=warn".into(), format: LogFormat::Text }
    }
}

/// What is wrong with what was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A flag is not `section.key=value`, or a variable names no section.
    #[error("`{0}` is not of the form section.key=value")]
    NotAKey(String),
    /// There is no such key, or it does not take this value.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

impl Config {
    /// Puts the layers together.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if name == CONFIG_FILE_VARIABLE {
                continue;
            }
            let key = key.to_lowercase();
            let (section, key) = key.split_once('_').ok_or_else(|| ConfigError::NotAKey(name.clone()))?;
            set(&mut table, section, key, &value)?;
        }
        for setting in settings {
            let parts = setting.split_once('=').and_then(|(key, value)| Some((key.split_once('.')?, value)));
            let ((section, key), value) = parts.ok_or_else(|| ConfigError::NotAKey(setting.clone()))?;
            set(&mut table, section.trim(), key.trim(), value.trim())?;
        }
        parse(table)
    }

    /// Checks what `serve` cannot do without.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key.
    pub fn check_for_serving(&self) -> Result<(), ConfigError> {
        self.check_for_stores()?;
        if self.http.operator_token.is_empty() {
            return Err(bad("http.operator_token", "must be set"));
        }
        if self.http.operator_token.chars().count() < OPERATOR_TOKEN_CHARS_MIN {
            let problem = format!("must have at least {OPERATOR_TOKEN_CHARS_MIN} characters");
            return Err(bad("http.operator_token", &problem));
        }
        if !(1..=LEASE_S_MAX).contains(&self.fleet.lease_s) {
            return Err(bad("fleet.lease_s", &format!("must be between 1 and {LEASE_S_MAX}")));
        }
        if !(2..=HANDSHAKES_MAX_MAX).contains(&self.quic.handshakes_max) {
            return Err(bad("quic.handshakes_max", &format!("must be between 2 and {HANDSHAKES_MAX_MAX}")));
        }
        let ticket_secret = self.fleet.ticket_secret.as_deref();
        if ticket_secret.is_some_and(|secret| secret.chars().count() < fleet::TICKET_SECRET_CHARS_MIN) {
            let problem = format!("must have at least {} characters", fleet::TICKET_SECRET_CHARS_MIN);
            return Err(bad("fleet.ticket_secret", &problem));
        }
        Ok(())
    }

    /// Checks what every command needs that reads or writes content.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key.
    pub fn check_for_stores(&self) -> Result<(), ConfigError> {
        self.check_for_database()?;
        if self.content.bucket.is_empty() {
            return Err(bad("content.bucket", "must be set"));
        }
        Ok(())
    }

    /// Checks what every command needs.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key.
    pub fn check_for_database(&self) -> Result<(), ConfigError> {
        if self.postgres.url.is_empty() {
            return Err(bad("postgres.url", "must be set"));
        }
        if self.postgres.buckets_max > postgres::BUCKETS_MAX_MAX {
            let problem = format!("must be at most {}", postgres::BUCKETS_MAX_MAX);
            return Err(bad("postgres.buckets_max", &problem));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let file_error = |source| ConfigError::File { path: path.to_owned(), source };
    let size_bytes = fs::metadata(path).map_err(file_error)?.len();
    if size_bytes > FILE_BYTES_MAX {
        return Err(file_error(std::io::Error::other("larger than any configuration")));
    }
    let text = fs::read_to_string(path).map_err(file_error)?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })
}

/// Sets one key from text. A text that is no value of its key's type is tried as a TOML value: numbers, booleans, lists.
fn set(table: &mut Table, section: &str, key: &str, text: &str) -> Result<(), ConfigError> {
    let mut candidates = vec![Value::String(text.to_owned())];
    candidates.extend(format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value")));
    let mut first_error = None;
    for value in candidates {
        let one = Table::from_iter([(section.to_owned(), Value::Table(nested(key, value.clone())))]);
        match parse(one) {
            Ok(_) => {
                let section = table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
                if let Some(section) = section.as_table_mut() {
                    merge(section, nested(key, value));
                }
                return Ok(());
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| ConfigError::NotAKey(format!("{section}.{key}"))))
}

/// `limits.connections_max` is a key inside a table inside the section.
fn nested(key: &str, value: Value) -> Table {
    match key.split_once('.') {
        Some((outer, inner)) => Table::from_iter([(outer.to_owned(), Value::Table(nested(inner, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn parse(table: Table) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(table))
        .map_err(|error| bad(&error.path().to_string(), error.into_inner().to_string().trim()))
}

fn bad(key: &str, problem: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], settings: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bridge.toml");
        fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Config::load(Some(&path), environment, &settings)
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let file = "[content]\nbucket = 'file'\nlease_seconds = 1\nuploads_max = 1\n";
        let environment = [
            ("ALEXANDRIA_BRIDGE_CONTENT_LEASE_SECONDS", "2"),
            ("ALEXANDRIA_BRIDGE_CONTENT_UPLOADS_MAX", "2"),
            ("ALEXANDRIA_BRIDGE_HTTP_OPERATOR_TOKEN", "12345678901234567890"),
            ("PATH", "/bin"),
        ];
        let config = load(file, &environment, &["content.uploads_max=3", "http.limits.connections_max=7"]).unwrap();
        assert_eq!(config.content.bucket, "file");
        assert_eq!((config.content.lease_seconds, config.content.uploads_max), (2, 3));
        assert_eq!(config.http.limits.connections_max, 7);
        assert_eq!(config.http.operator_token, "12345678901234567890", "a number where a text is meant stays a text");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_in_every_layer() {
        for error in [
            load("[content]\nbukcet = 'x'\n", &[], &[]),
            load("", &[("ALEXANDRIA_BRIDGE_CONTENT_BUKCET", "x")], &[]),
            load("", &[], &["content.bukcet=x"]),
        ] {
            let text = error.unwrap_err().to_string();
            assert!(text.contains("content") && text.contains("bukcet"), "{text}");
        }
    }

    #[test]
    fn a_bad_value_names_its_key() {
        let text = load("", &[("ALEXANDRIA_BRIDGE_HTTP_LISTEN", "nowhere")], &[]).unwrap_err().to_string();
        assert!(text.contains("http.listen"), "{text}");
        let text = load("[content]\nlease_seconds = 'soon'", &[], &[]).unwrap_err().to_string();
        assert!(text.contains("content.lease_seconds"), "{text}");
    }

    #[test]
    fn serving_names_what_is_missing() {
        let text = load("[postgres]\nurl = 'x'", &[], &[]).unwrap().check_for_serving().unwrap_err().to_string();
        assert!(text.contains("content.bucket"), "{text}");
    }
}
