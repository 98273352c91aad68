use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alexandria_e2e::{
    deadline::wait_until,
    files::content_name,
    http,
    node::{NodeProcess, NodeSettings},
    seed::{generator, seed},
};
use hyper::Method;
use rand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

/// How often the node is killed: set `ALEXANDRIA_E2E_KILLS` for another number.
const KILLS: u32 = 200;
const KILLS_VARIABLE: &str = "ALEXANDRIA_E2E_KILLS";
/// Clients that write at the same time, so that a kill meets writes at every stage of their way.
const WRITERS: u64 = 6;
/// Writes that are acknowledged between two kills.
const BETWEEN_KILLS: std::ops::Range<usize> = 1..40;
const SOON: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_there_after_200_kills_under_write_load() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |text| text.parse().expect("a number of kills"));
    let mut chance = generator(seed());
    let mut node = NodeSettings::default().bare().start().await;
    let load = Load::default();
    let mut checked = 0;
    for kill in 1..=kills {
        let writers = load.start(&node);
        let until = checked + chance.random_range(BETWEEN_KILLS);
        wait_until("writes to be acknowledged", SOON, async || load.acknowledged().len() >= until).await;
        node.kill_9();
        writers.join_all().await;
        node.start_again().await;
        let acknowledged = load.acknowledged();
        for write in &acknowledged[checked..] {
            write.is_there(&node, &format!("after kill {kill}")).await;
        }
        checked = acknowledged.len();
    }
    let acknowledged = load.acknowledged();
    println!("{} writes acknowledged over {kills} kills", acknowledged.len());
    for write in &acknowledged {
        write.is_there(&node, "at the end").await;
    }
    let said = node.done("verify", &[]).await;
    assert!(said.contains(" 0 damaged"), "{said}");
}

/// What was acknowledged, by all writers.
#[derive(Clone, Default)]
struct Load {
    acknowledged: Arc<Mutex<Vec<Write>>>,
    numbers: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Write {
    /// An author with this name.
    Author { id: String, name: String },
    /// The author was then described so.
    Description { id: String, description: String },
    /// Content.
    Blob { content: String },
}

impl Load {
    fn acknowledged(&self) -> Vec<Write> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Writes until the node is gone.
    fn start(&self, node: &NodeProcess) -> JoinSet<()> {
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (load, url) = (self.clone(), node.url().to_owned());
            writers.spawn(async move { while load.write(&url).await.is_some() {} });
        }
        writers
    }

    /// Makes an author, describes it, stores some content. `None` if the node does not answer any more.
    async fn write(&self, url: &str) -> Option<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let name = format!("Author {number}");
        let created = http::post(format!("{url}/v1/authors")).json(&json!({ "name": name })).send().await.ok()?;
        assert!(created.status.is_success(), "{created:?}");
        let id = created.json()["id"].as_str().expect("an id").to_owned();
        self.note(Write::Author { id: id.clone(), name });

        let description = format!("Described as number {number}");
        let patch = http::request(Method::PATCH, format!("{url}/v1/authors/{id}"));
        let patched = patch.json(&json!({ "description": description })).send().await.ok()?;
        assert!(patched.status.is_success(), "{patched:?}");
        self.note(Write::Description { id, description });

        let bytes = format!("content number {number}\n").repeat(500).into_bytes();
        let content = content_name(&bytes);
        let upload = http::post(format!("{url}/v1/blobs")).header("content-type", "text/plain").body(bytes);
        let uploaded = upload.send().await.ok()?;
        assert!(uploaded.status.is_success(), "{uploaded:?}");
        self.note(Write::Blob { content });
        Some(())
    }

    fn note(&self, write: Write) {
        self.acknowledged.lock().unwrap().push(write);
    }
}

impl Write {
    async fn is_there(&self, node: &NodeProcess, when: &str) {
        match self {
            Self::Author { id, name } => {
                let author = node.get(&format!("/v1/authors/{id}")).ok().await.json();
                assert_eq!(author["name"], name.as_str(), "{when}");
            }
            Self::Description { id, description } => {
                let author = node.get(&format!("/v1/authors/{id}")).ok().await.json();
                assert_eq!(author["description"], description.as_str(), "{when}");
            }
            Self::Blob { content } => {
                let blob = node.get(&format!("/v1/blobs/{content}")).ok().await;
                assert_eq!(content_name(&blob.body), *content, "{when}");
            }
        }
    }
}
