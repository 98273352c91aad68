//! A fleet: a bridge with a database, a bucket and a topic of its own, a queue that listens to the topic, and nodes
//! that join it with tokens from the bridge's command line.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use crate::{
    aws::{Aws, Message},
    bridge::{BridgeProcess, BridgeSettings, Neighbours},
    deadline::wait_for,
    node::NodeProcess,
    postgres::{Database, Postgres},
};

/// A running bridge and what is behind it.
pub struct Fleet {
    pub bridge: BridgeProcess,
    pub database: Database,
    pub aws: &'static Aws,
    /// Gets every event.
    pub queue_url: String,
}

/// An event as a subscriber got it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The CloudEvent.
    pub body: Value,
    /// The attributes of the message.
    pub attributes: BTreeMap<String, String>,
}

impl Fleet {
    /// A bridge as it comes, on the shared servers.
    pub async fn start() -> Self {
        Self::start_with(|settings, _| settings).await
    }

    /// A bridge whose settings, such as where its neighbours are, are changed first.
    pub async fn start_with(change: impl FnOnce(BridgeSettings, &Database) -> BridgeSettings) -> Self {
        let database = Postgres::shared().await.database().await;
        let aws = Aws::shared().await;
        let neighbours = Neighbours::on(&database, aws).await;
        let queue_url = aws.messaging().queue_on(&neighbours.topic_arn).await;
        let bridge = change(BridgeSettings::new(neighbours), &database).start().await;
        Self { bridge, database, aws, queue_url }
    }

    /// A one-time token.
    pub async fn token(&self) -> String {
        let output = self.bridge.run("token", &["create", "--site", "School of the tests"]).await;
        assert!(output.status.success(), "token create: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Lets a node in.
    pub async fn enrol(&self, node: &NodeProcess) {
        let token = self.token().await;
        node.done("enroll", &["--bridge", &self.enrolment(), "--token", &token]).await;
    }

    /// Where nodes enrol: HOST:PORT.
    pub fn enrolment(&self) -> String {
        self.bridge.settings().enrolment.to_string()
    }

    /// The object that holds some content.
    pub async fn object(&self, content: &str) -> Option<Bytes> {
        let bucket = &self.bridge.settings().neighbours.bucket;
        self.aws.s3().object(bucket, &format!("blobs/{content}")).await
    }

    /// Whether some content is whole in the cloud.
    pub async fn has_stored(&self, content: &str) -> bool {
        let query = format!("SELECT count(*) FROM stored_blob WHERE hash = decode('{content}', 'hex')");
        self.database.number(&query).await == 1
    }

    /// Takes events from the queue until one of each `type subject` in `expected` has come; returns all that came.
    ///
    /// # Panics
    ///
    /// Once `deadline` has passed, naming those that did not come.
    pub async fn events(&self, expected: &[String], deadline: Duration) -> Vec<Event> {
        let mut taken: Vec<Event> = Vec::new();
        let mut missing: Vec<String> = expected.to_vec();
        let what = format!("{} events", expected.len());
        wait_for(&what, deadline, async || {
            let messages = self.aws.messaging().take(&self.queue_url).await;
            for event in messages.into_iter().map(Event::from) {
                missing.retain(|name| *name != event.name());
                taken.push(event);
            }
            missing.is_empty().then_some(())
        })
        .await;
        taken
    }
}

impl Event {
    /// `MEDIA_CREATED media/…`.
    pub fn name(&self) -> String {
        let text = |member: &str| self.body[member].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("type"), text("subject"))
    }
}

impl From<Message> for Event {
    fn from(message: Message) -> Self {
        let body = serde_json::from_str(&message.body);
        let body = body.unwrap_or_else(|error| panic!("an event is not JSON ({error}): {}", message.body));
        Self { body, attributes: message.attributes }
    }
}
