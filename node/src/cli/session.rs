//! The node that a command talks to: the one that runs on the data folder, or one started for this command.

use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::local::{Client, socket_path};
use crate::node::{Face, Node};

/// How long a node that was just started may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A node to talk to.
pub(super) struct NodeSession {
    client: Client,
    /// The node, if it was started for this command.
    started: Option<Node>,
}

impl NodeSession {
    /// Finds the running node, or starts one without its public web server.
    pub(super) async fn open(config: Config) -> anyhow::Result<Self> {
        let data = std::path::absolute(&config.data).context("find the data folder")?;
        let client = Client::new(socket_path(&data));
        if client.answers().await {
            return Ok(Self { client, started: None });
        }
        let node = Node::start(config, Face::LocalOnly).await?;
        let answered = async {
            while !client.answers().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START_DEADLINE, answered).await.context("the node did not come up")?;
        Ok(Self { client, started: Some(node) })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Stops the node if it was started for this command.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self.started {
            Some(node) => node.stop().await,
            None => Ok(()),
        }
    }
}
