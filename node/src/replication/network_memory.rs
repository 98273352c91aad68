//! What was learned on the networks that the node has been on: one small file, the latest network first.
//!
//! It only makes things quicker: a file that is lost or damaged is begun anew.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::membership::write_private;
use super::network::Network;
use super::transport_choice::Experiences;

const FILE: &str = "networks.json";
/// Networks that are remembered, at most; the one that was left longest ago goes first.
const NETWORKS_MAX: usize = 32;
/// Bytes of the file, at most.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// All networks that are remembered.
#[derive(Debug)]
pub(super) struct NetworkMemory {
    path: PathBuf,
    networks: Vec<Remembered>,
}

/// One network.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Remembered {
    network: Network,
    /// What the transports did on it.
    #[serde(flatten)]
    pub(super) experiences: Experiences,
}

impl NetworkMemory {
    /// What this data folder holds of it.
    pub(super) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let networks = match read(&path) {
            Ok(networks) => networks,
            Err(error) => {
                tracing::warn!(error = &*error, path = %path.display(), "what was known of networks is not readable");
                Vec::new()
            }
        };
        Self { path, networks }
    }

    /// What is known of a network.
    pub(super) fn of(&self, network: &Network, now_unix_ms: u64) -> Experiences {
        let known = self.networks.iter().find(|known| known.network.is(network));
        known.map_or(Experiences { since_unix_ms: now_unix_ms, ..Experiences::default() }, |known| known.experiences)
    }

    /// Changes what is known of a network, and keeps it.
    pub(super) fn learn(&mut self, network: &Network, now_unix_ms: u64, change: impl FnOnce(&mut Experiences)) {
        let mut experiences = self.of(network, now_unix_ms);
        change(&mut experiences);
        self.networks.retain(|known| !known.network.is(network));
        self.networks.insert(0, Remembered { network: network.clone(), experiences });
        self.networks.truncate(NETWORKS_MAX);
        let text = serde_json::to_string_pretty(&self.networks).expect("names and numbers are always JSON");
        if let Err(error) = write_private(&self.path, &text) {
            tracing::warn!(error = &error as &dyn std::error::Error, "what was learned of this network is not kept");
        }
    }
}

fn read(path: &Path) -> Result<Vec<Remembered>, Box<dyn std::error::Error>> {
    let size_bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        metadata => metadata?.len(),
    };
    if size_bytes > FILE_BYTES_MAX {
        return Err("the file is larger than any that was written".into());
    }
    let mut networks: Vec<Remembered> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    networks.truncate(NETWORKS_MAX);
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Network {
        Network::towards(([127, 0, 0, 1], 1).into(), name)
    }

    #[test]
    fn what_was_learned_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = NetworkMemory::load(folder.path());
        memory.learn(&network("a"), 5, |known| known.quic.is_unreachable = true);
        memory.learn(&network("b"), 6, |known| known.tcp.goodput = Some(7));
        let memory = NetworkMemory::load(folder.path());
        assert!(memory.of(&network("a"), 9).quic.is_unreachable);
        assert_eq!(memory.of(&network("a"), 9).since_unix_ms, 5);
        assert_eq!(memory.of(&network("b"), 9).tcp.goodput, Some(7));
        assert_eq!(memory.of(&network("c"), 9), Experiences { since_unix_ms: 9, ..Experiences::default() });
    }

    #[test]
    fn the_network_left_longest_ago_is_forgotten_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = NetworkMemory::load(folder.path());
        for number in 0..=NETWORKS_MAX {
            memory.learn(&network(&number.to_string()), 1, |known| known.quic.broken = 1);
        }
        let memory = NetworkMemory::load(folder.path());
        assert_eq!(memory.networks.len(), NETWORKS_MAX);
        assert_eq!(memory.of(&network("0"), 2).quic.broken, 0);
        assert_eq!(memory.of(&network("1"), 2).quic.broken, 1);
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in ["[{\"network\":", "{}", "[".repeat(100_000).as_str()] {
            std::fs::write(folder.path().join(FILE), damaged).unwrap();
            let mut memory = NetworkMemory::load(folder.path());
            assert!(memory.networks.is_empty());
            memory.learn(&network("a"), 5, |known| known.quic.broken = 2);
            assert_eq!(NetworkMemory::load(folder.path()).of(&network("a"), 9).quic.broken, 2);
        }
    }
}
