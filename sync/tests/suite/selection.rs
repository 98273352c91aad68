//! What one end does not want it does not pull; what it evicted comes back whole.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::domain::{Author, Typed};
use alexandria_sync::driver::HostInput;
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Chosen, Config, Event, Selection};
use alexandria_sync::store::RecordStore as _;
use alexandria_sync::transport::Transport;
use alexandria_sync::wire::CloseReason;

use crate::fleet::{Connected, DEADLINE, Running, Site, connect};

fn shelf() -> (RecordId, BucketId) {
    let id = RecordId::derived(&[b"shelf"]);
    (id, BucketId::Collection(id))
}

fn without_shelf() -> Selection {
    Selection { collections: Chosen::AllBut([shelf().0].into()), ..Selection::default() }
}

fn shelf_returning() -> Selection {
    Selection { returning: [shelf().0].into(), ..Selection::default() }
}

fn write(site: &Site, count: u64) {
    for number in 0..count {
        let id = RecordId::derived(&[b"on the shelf", site.id.as_bytes(), &number.to_be_bytes()]);
        let author = Author { name: format!("author {number}"), ..Author::default() };
        let key = RecordKey { bucket: shelf().1, kind: Author::KIND, id };
        site.records.write(key, |_, stamp| Some(author.to_record(key.bucket, id, stamp)));
    }
}

/// Small pages, so that a cut falls between two.
fn small_pages() -> Config {
    Config { page_bytes: 4096, ..Config::default() }
}

/// A node and its bridge, and the bridge's end of a session that runs until the node has heard enough.
async fn session(
    node: &Site,
    bridge: &Site,
    selection: Selection,
    features_of_bridge: u64,
    mut enough: impl FnMut(&Running, &Event) -> bool,
) -> Vec<Event> {
    let Connected { node: node_link, bridge: bridge_link, bridge_listener: _listener } = connect(Transport::Quic).await;
    let mut hello = bridge.hello();
    hello.features = features_of_bridge;
    let mut at_node = node.run_selecting(bridge.id, node_link, small_pages(), (node.hello(), selection));
    let at_bridge = bridge.run_selecting(node.id, bridge_link, small_pages(), (hello, Selection::default()));
    let ended = tokio::spawn(at_bridge.wait_end());
    let mut heard = Vec::new();
    loop {
        let event = tokio::time::timeout(DEADLINE, at_node.events.recv()).await.expect("it goes on");
        let event = event.expect("it lives");
        let done = enough(&at_node, &event);
        heard.push(event);
        if done {
            break;
        }
    }
    at_node.host.send(HostInput::Stop(CloseReason::GoingAway, String::new())).await.unwrap();
    at_node.wait_end().await.unwrap();
    ended.await.unwrap().unwrap();
    heard
}

fn quiet(_: &Running, event: &Event) -> bool {
    matches!(event, Event::Quiet)
}

const GIVES_BACK: u64 = alexandria_sync::wire::feature::OWN_ROWS;

/// A node that holds the shelf together with its bridge, each with records of its own.
async fn in_step() -> (Site, Site) {
    let (node, bridge) = (Site::new(1), Site::new(2));
    write(&node, 200);
    write(&bridge, 100);
    session(&node, &bridge, Selection::default(), GIVES_BACK, quiet).await;
    assert_eq!(node.records.feed(shelf().1).len(), 300);
    (node, bridge)
}

#[tokio::test]
async fn what_was_evicted_comes_back_whole_also_what_this_end_wrote_itself() {
    let (node, bridge) = in_step().await;
    node.records.evict(shelf().1);
    assert!(node.records.all().is_empty());
    let heard = session(&node, &bridge, shelf_returning(), GIVES_BACK, quiet).await;
    assert_eq!(node.records.all(), bridge.records.all());
    assert!(heard.iter().any(|event| matches!(event, Event::Returned(bucket) if *bucket == shelf().1)));
}

#[tokio::test]
async fn a_cut_while_it_comes_back_skips_nothing() {
    let (node, bridge) = in_step().await;
    node.records.evict(shelf().1);
    let first_page = |_: &Running, event: &Event| matches!(event, Event::Applied(..));
    let heard = session(&node, &bridge, shelf_returning(), GIVES_BACK, first_page).await;
    assert!(!heard.iter().any(|event| matches!(event, Event::Returned(_))), "there is more than a page");
    session(&node, &bridge, shelf_returning(), GIVES_BACK, quiet).await;
    assert_eq!(node.records.all(), bridge.records.all());
}

#[tokio::test]
async fn a_peer_that_would_leave_out_what_came_from_here_is_not_asked_for_what_was_evicted() {
    let (node, bridge) = in_step().await;
    node.records.evict(shelf().1);
    session(&node, &bridge, shelf_returning(), 0, quiet).await;
    assert!(node.records.all().is_empty(), "half of it would be taken for all of it");
    assert_eq!(node.records.cursor(bridge.id, shelf().1).await.unwrap(), None);
    session(&node, &bridge, shelf_returning(), GIVES_BACK, quiet).await;
    assert_eq!(node.records.all(), bridge.records.all());
}

#[tokio::test]
async fn what_is_not_wanted_is_not_pulled_and_edits_of_it_reach_the_peer_which_tells_how_far() {
    let (node, bridge) = (Site::new(1), Site::new(2));
    write(&node, 50);
    write(&bridge, 100);
    let told = |events: &[Event]| -> Option<Seq> {
        events.iter().rev().find_map(|event| match event {
            Event::HeldByPeer { bucket, upto } if *bucket == shelf().1 => Some(*upto),
            _ => None,
        })
    };
    let heard = session(&node, &bridge, without_shelf(), GIVES_BACK, quiet).await;
    assert_eq!((node.records.all().len(), bridge.records.all().len()), (50, 150));
    assert_eq!(told(&heard), Some(Seq(50)), "all of it is there once it is quiet");
    // The next session knows it from the start, and hears nothing of an edit that was not sent.
    let opened = |_: &Running, event: &Event| matches!(event, Event::HeldByPeer { .. });
    write(&node, 51);
    let heard = session(&node, &bridge, without_shelf(), GIVES_BACK, opened).await;
    assert_eq!(told(&heard), Some(Seq(50)));
    // Who could not give it back does not count.
    let heard = session(&node, &bridge, without_shelf(), 0, quiet).await;
    assert_eq!(told(&heard), None);
}

#[tokio::test]
async fn a_peer_says_which_blobs_it_holds_before_it_is_quiet() {
    let (node, bridge) = (Site::new(1), Site::new(2));
    let (both, nobody) = (node.import(1, 100_000), BlobHash::of(b"never seen"));
    session(&node, &bridge, Selection::default(), GIVES_BACK, quiet).await;
    let mut asked = false;
    let answers = session(&node, &bridge, Selection::default(), GIVES_BACK, |running, event| {
        if !std::mem::replace(&mut asked, true) {
            running.host.try_send(HostInput::CheckBlobs(vec![both, nobody, both])).unwrap();
            return false;
        }
        // Asked before it was quiet: both answers come first.
        matches!(event, Event::Quiet)
    })
    .await;
    let answers: Vec<(BlobHash, bool)> = answers
        .iter()
        .filter_map(|event| match event {
            Event::BlobChecked { blob, held_by_peer } => Some((*blob, *held_by_peer)),
            _ => None,
        })
        .collect();
    assert_eq!(answers.len(), 2);
    assert!(answers.contains(&(both, true)) && answers.contains(&(nobody, false)));
}
