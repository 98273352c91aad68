use std::{collections::BTreeSet, time::Duration};

use alexandria_e2e::{
    aws::Aws,
    deadline::wait_until,
    files::{content_name, noise, write},
    fleet::Fleet,
    node::{NodeProcess, NodeSettings},
    outage::{OutageProxy, Passage},
    postgres::Postgres,
};
use serde_json::json;

const SOON: Duration = Duration::from_mins(2);

#[tokio::test]
async fn nothing_is_lost_while_postgres_is_away() {
    let proxy = OutageProxy::start(Postgres::shared().await.address()).await;
    let fleet = Fleet::start_with(|mut settings, database| {
        settings.neighbours.database_url = database.url_through(proxy.address());
        settings
    })
    .await;
    let node = joined(&fleet).await;
    let before = Work::of(&node, "before").await;
    before.arrives(&fleet).await;

    proxy.set(Passage::Refused);
    let during = Work::of(&node, "during").await;
    wait_until("the bridge to say that it is not ready", SOON, async || {
        let ready = fleet.bridge.get("/readyz").send().await.unwrap();
        ready.status == hyper::StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let refused = fleet.bridge.get("/v1/authors").send().await.unwrap();
    assert!(refused.status.is_server_error(), "{refused:?}");

    proxy.set(Passage::Open);
    during.arrives(&fleet).await;
    fleet.events(&[before.events(), during.events()].concat(), SOON).await;
    before.is_there(&fleet).await;
    during.is_there(&fleet).await;
}

#[tokio::test]
async fn nothing_is_lost_while_s3_is_away() {
    let proxy = OutageProxy::start(Aws::shared().await.address()).await;
    let fleet = Fleet::start_with(|mut settings, _| {
        settings.neighbours.s3_url = Some(proxy.url());
        settings
    })
    .await;
    let node = joined(&fleet).await;
    let before = Work::of(&node, "before").await;
    before.arrives(&fleet).await;

    proxy.set(Passage::Refused);
    let during = Work::of(&node, "during").await;
    wait_until("the records to arrive without the content", SOON, async || during.has_row(&fleet).await).await;
    let ready = fleet.bridge.get("/readyz").ok().await.json();
    assert_eq!(ready["s3"], false, "{ready}");
    assert!(!fleet.has_stored(&during.content).await, "a row for content means that it is there");

    proxy.set(Passage::Open);
    during.arrives(&fleet).await;
    fleet.events(&[before.events(), during.events()].concat(), SOON).await;
    before.is_there(&fleet).await;
    during.is_there(&fleet).await;
}

#[tokio::test]
async fn nothing_is_lost_while_sns_is_away() {
    let proxy = OutageProxy::start(Aws::shared().await.address()).await;
    let fleet = Fleet::start_with(|mut settings, _| {
        settings.neighbours.sns_url = Some(proxy.url());
        settings
    })
    .await;
    let node = joined(&fleet).await;
    let before = Work::of(&node, "before").await;
    fleet.events(&before.events(), SOON).await;

    proxy.set(Passage::Refused);
    let during = Work::of(&node, "during").await;
    during.arrives(&fleet).await;
    wait_until("a call to the topic to fail", SOON, async || fleet.bridge.metric("events_failed_total").await > 0)
        .await;
    let kept = kept_events(&fleet).await;
    assert!(kept.len() >= during.events().len(), "the outbox keeps {kept:?}");
    assert!(fleet.aws.messaging().take(&fleet.queue_url).await.is_empty(), "nothing went out");

    proxy.set(Passage::Open);
    let events = fleet.events(&during.events(), SOON).await;
    wait_until("the outbox to be empty", SOON, async || {
        fleet.database.number("SELECT count(*) FROM outbox").await == 0
    })
    .await;
    let rest = fleet.aws.messaging().take(&fleet.queue_url).await;
    let mut sent: BTreeSet<String> = events.iter().map(|event| event.attributes["id"].clone()).collect();
    sent.extend(rest.iter().map(|message| message.attributes["id"].clone()));
    assert!(kept.is_subset(&sent), "every event went out under the id that it was kept under");
}

#[tokio::test]
async fn content_that_s3_has_lost_comes_again_from_a_node_when_an_operator_says_so() {
    let fleet = Fleet::start().await;
    let node = joined(&fleet).await;
    let work = Work::of(&node, "before").await;
    work.arrives(&fleet).await;
    let bucket = &fleet.bridge.settings().neighbours.bucket;
    fleet.aws.s3().delete(bucket, &format!("blobs/{}", work.content)).await;

    let lost = fleet.bridge.get(&format!("/v1/blobs/{}", work.content)).send().await;
    assert!(lost.is_err(), "the answer breaks off: {lost:?}");
    let known = fleet.bridge.get("/v1/fleet/damaged").ok().await.json();
    assert_eq!(known["blobs"][0]["blob"], work.content, "{known}");
    assert_eq!(known["blobs"][0]["what"], "its object: there is none", "{known}");
    let path = format!("/v1/fleet/damaged/{}/repair", work.content);
    let repair = fleet.bridge.request(hyper::Method::POST, &path).ok().await.json();
    assert_eq!(repair["outcome"], "wanted");

    work.arrives(&fleet).await;
    let known = fleet.bridge.get("/v1/fleet/damaged").ok().await.json();
    assert_eq!(known, json!({ "blobs": [] }));
    let again = fleet.bridge.request(hyper::Method::POST, &path).send().await.unwrap();
    assert_eq!(again.status, hyper::StatusCode::NOT_FOUND, "nothing is left to repair");
}

/// A node that replicates by itself.
async fn joined(fleet: &Fleet) -> NodeProcess {
    let settings = NodeSettings::default().bare().environment("ALEXANDRIA_REPLICATION__RETRY_MAX_S", "2");
    let node = settings.start().await;
    fleet.enrol(&node).await;
    node
}

async fn kept_events(fleet: &Fleet) -> BTreeSet<String> {
    let client = fleet.database.connect().await;
    let rows = client.query("SELECT event_id::text FROM outbox", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What a librarian did: a file imported, and an author written.
struct Work {
    author: String,
    content: String,
    bytes: Vec<u8>,
}

impl Work {
    async fn of(node: &NodeProcess, name: &str) -> Self {
        let mut bytes = format!("# A page written {name} the outage\n\n").into_bytes();
        let words = noise(300_000, name.len() as u64);
        bytes.extend(words.iter().map(|byte| b'a' + byte % 26));
        let path = write(node.scratch(), &format!("{name}.md"), &bytes);
        node.done("import", &[path.to_str().unwrap()]).await;
        let author = node.request(hyper::Method::POST, "/v1/authors").json(&json!({ "name": name })).ok().await.json();
        Self { author: author["id"].as_str().unwrap().to_owned(), content: content_name(&bytes), bytes }
    }

    async fn has_row(&self, fleet: &Fleet) -> bool {
        let named = format!(
            "SELECT (SELECT count(*) FROM author WHERE id = '{}') + (SELECT count(*) FROM media WHERE files::text LIKE '%{}%')",
            self.author, self.content
        );
        fleet.database.number(&named).await == 2
    }

    async fn arrives(&self, fleet: &Fleet) {
        wait_until("the records to be rows", SOON, async || self.has_row(fleet).await).await;
        wait_until("the content to be stored", SOON, async || fleet.has_stored(&self.content).await).await;
        self.is_there(fleet).await;
    }

    async fn is_there(&self, fleet: &Fleet) {
        assert!(self.has_row(fleet).await, "the records are rows");
        assert!(fleet.has_stored(&self.content).await, "the content is stored");
        assert_eq!(fleet.object(&self.content).await.expect("an object"), self.bytes, "byte for byte");
    }

    fn events(&self) -> Vec<String> {
        vec![format!("AUTHOR_CREATED author/{}", self.author), format!("BLOB_UPLOADED blob/{}", self.content)]
    }
}
