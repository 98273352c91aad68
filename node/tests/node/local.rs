//! What the command line asks of a node over its local socket.

use alexandria_node::config::Config;
use alexandria_node::local::{
    Client, ClientError, DropRequest, QuarantineLine, ReplayRequest, SetAsideRecord, socket_path,
};
use alexandria_node::node::{Face, Node};
use alexandria_node::store::{self, Store};
use alexandria_sync::hlc::DRIFT_BOUND_MS;
use alexandria_sync::id::Seq;
use alexandria_sync::store::RecordStore;

use crate::store::samples::{folder, media_record, peer, shelf, stamp};

async fn shown(client: &Client) -> Vec<SetAsideRecord> {
    let mut lines = client.quarantine().await.unwrap();
    let mut shown = Vec::new();
    loop {
        match lines.next().await.unwrap() {
            QuarantineLine::Record(record) => shown.push(record),
            QuarantineLine::Done(kept) => {
                assert_eq!(kept.records, shown.len() as u64);
                return shown;
            }
            QuarantineLine::Failed { reason } => panic!("{reason}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_is_shown_let_in_and_thrown_away_beside_a_running_node() {
    let dir = folder();
    let data = dir.path().join("data");
    let store = Store::open(&store::Config::new(&data)).unwrap();
    let now = store.records.now_unix_ms();
    store.records.set_trusted_time(now);
    let ahead = |number| media_record(number, "from the future", stamp(now + DRIFT_BOUND_MS + 3_600_000, 5));
    store.records.apply(peer(1, 1), shelf(), vec![ahead(1), ahead(2)], Seq(2)).await.unwrap();
    drop(store);

    let config = Config { data: data.clone(), ..Config::default() };
    let node = Node::start(config, Face::LocalOnly).await.unwrap();
    let client = Client::new(socket_path(&std::path::absolute(&data).unwrap()));
    let all = shown(&client).await;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (all[0].kind.as_str(), all[0].written_by, all[0].received_from),
        ("media", peer(5, 1).node, peer(1, 1).node)
    );
    assert!(all[0].ahead_ms > DRIFT_BOUND_MS && all[0].received_unix_ms >= now);
    assert_eq!(client.status().await.unwrap().quarantined, 2);

    let request = ReplayRequest { id: Some(all[0].id), as_new_edit: true };
    assert_eq!(client.replay(&request).await.unwrap().applied, 1);
    let dropped = client.drop_set_aside(&DropRequest { id: all[1].id }).await.unwrap();
    assert_eq!(dropped.record, all[1].record);
    let again = client.drop_set_aside(&DropRequest { id: all[1].id }).await;
    assert!(matches!(again, Err(ClientError::Refused(_))), "{again:?}");
    assert!(shown(&client).await.is_empty());
    node.stop().await.unwrap();
}
