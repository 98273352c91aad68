//! What can be configured, composed from the parts: a TOML file, then the environment, then flags, read once.
//!
//! A key of the file such as `http.upload_bytes_max` is `ALEXANDRIA_HTTP__UPLOAD_BYTES_MAX` in the environment. Unknown
//! keys are refused, and a bad value is an error that names its key. Every key has a default that suits a Raspberry Pi.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::http::HttpConfig;
use crate::jobs::{ImportConfig, UpkeepConfig};
use crate::lan::LanConfig;
use crate::library::StoreConfig;
use crate::library::selection::SelectionConfig;
use crate::replication::ReplicationConfig;

/// Everything.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that holds everything the node keeps.
    pub data: PathBuf,
    /// Where the library is served. `0.0.0.0:8080` opens it to the network.
    pub listen: SocketAddr,
    /// The web server.
    pub http: HttpConfig,
    /// Records and content.
    pub store: StoreConfig,
    /// Which collections are kept.
    pub selection: SelectionConfig,
    /// Files taken in.
    pub import: ImportConfig,
    /// The way to the bridge.
    pub replication: ReplicationConfig,
    /// The other nodes on the local network.
    pub lan: LanConfig,
    /// Looking after what is kept.
    pub upkeep: UpkeepConfig,
    /// What is logged.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("alexandria-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            http: HttpConfig::default(),
            store: StoreConfig::default(),
            selection: SelectionConfig::default(),
            import: ImportConfig::default(),
            replication: ReplicationConfig::default(),
            lan: LanConfig::default(),
            upkeep: UpkeepConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// What is logged.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Which messages, in the form of tracing's filters: `info`, `warn,alexandria=debug`.
    pub filter: String,
    /// One JSON object a line, for log collectors.
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "warn,alexandria_node=info,alexandria_sync=info,symphonia=error".into(), json: false }
    }
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key is unknown, or has a value of the wrong form.
    #[error("configuration key `{key}`: {problem}")]
    Key {
        /// Which key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

const ENVIRONMENT_PREFIX: &str = "ALEXANDRIA_";
/// Separates sections in the names of environment variables.
const ENVIRONMENT_SEPARATOR: &str = "__";

impl Config {
    /// Reads `file` if there is one, then `environment`, then `flags` (dotted keys with TOML values).
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, toml::Value)>,
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => read_table(path)?,
            None => toml::Table::new(),
        };
        for (name, value) in environment {
            let Some(name) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if name.contains(ENVIRONMENT_SEPARATOR) {
                let key = name.to_lowercase().replace(ENVIRONMENT_SEPARATOR, ".");
                set(&mut table, &key, environment_value(value))?;
            }
        }
        for (key, value) in flags {
            set(&mut table, key, value)?;
        }
        serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| ConfigError::Key {
            key: error.path().to_string(),
            problem: error.inner().message().to_owned(),
        })
    }
}

fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

/// A number, a boolean or a list where it reads as one; else a string.
fn environment_value(text: String) -> toml::Value {
    match toml::from_str::<toml::Table>(&format!("value = {text}")) {
        Ok(mut table) => table.remove("value").unwrap_or(toml::Value::String(text)),
        Err(_) => toml::Value::String(text),
    }
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), ConfigError> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match entry {
                toml::Value::Table(inner) => set(inner, rest, value),
                _ => Err(ConfigError::Key { key: section.to_owned(), problem: "is a section, not a value".into() }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        text: &str,
        environment: &[(&str, &str)],
        flags: Vec<(&'static str, toml::Value)>,
    ) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alexandria.toml");
        std::fs::write(&file, text).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&file), environment, flags)
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let text = "listen = '127.0.0.1:1'\n[log]\nfilter = 'file'\njson = true\n";
        let environment = [("ALEXANDRIA_LOG__FILTER", "environment"), ("ALEXANDRIA_UNRELATED", "x")];
        let config = load(text, &environment, vec![("listen", "127.0.0.1:2".into())]).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.log, LogConfig { filter: "environment".into(), json: true });
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = load("[log]\ncolour = true\n", &[], vec![]).unwrap_err().to_string();
        assert!(error.contains("log") && error.contains("colour"), "{error}");
    }

    #[test]
    fn a_bad_word_about_the_link_is_an_error_that_names_its_key() {
        for (value, key) in [
            ("bytes_a_day = 1000", "replication.link.bytes_a_day"),
            ("bytes_a_month = -1", "replication.link.bytes_a_month"),
            ("hours = ['22:00-06:00', '9-17']", "replication.link.hours[1]"),
            ("utc_offset = '3'", "replication.link.utc_offset"),
            ("rate_bytes_per_s = 10", "replication.link.rate_bytes_per_s"),
            ("reserve_percent = 91", "replication.link.reserve_percent"),
            ("bytes_an_hour = 1", "bytes_an_hour"),
        ] {
            let error = load(&format!("[replication.link]\n{value}\n"), &[], vec![]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let text = "[replication.link]\nbytes_a_day = 50_000_000\nhours = ['22:00-06:00']\nutc_offset = '+03:00'\nmetered = true\n";
        let link =
            load(text, &[("ALEXANDRIA_REPLICATION__LINK__RESERVE_PERCENT", "25")], vec![]).unwrap().replication.link;
        assert_eq!((link.bytes_a_day, link.reserve_percent, link.metered), (Some(50_000_000), 25, true));
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_its_key() {
        let error = load("", &[("ALEXANDRIA_LOG__JSON", "perhaps")], vec![]).unwrap_err().to_string();
        assert!(error.contains("log.json"), "{error}");
    }
}
