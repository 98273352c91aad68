//! What a session says and hears about content that is not there yet.

use alexandria_sync::chunk::BlobHash;
use alexandria_sync::session::{Event, Input};
use alexandria_sync::wire::Message;
use alexandria_sync::wire::message::FETCHING_BLOBS_MAX;

use crate::liars::Victim;

fn times_asked(victim: &Victim, blob: BlobHash) -> usize {
    victim.sent.iter().filter(|message| **message == Message::ManifestAsk { blob }).count()
}

/// They travel on different lanes.
#[test]
fn a_word_that_content_has_come_is_not_lost_when_it_overtakes_the_one_that_it_was_not_there() {
    let blob = BlobHash::of(b"content");
    let absent = Message::Manifest { blob, manifest: None };
    let mut overtaken = Victim::wanting(blob);
    overtaken.hear(Message::Have { blob });
    assert_eq!(times_asked(&overtaken, blob), 1, "the answer is still to come");
    overtaken.hear(absent.clone());
    assert_eq!(times_asked(&overtaken, blob), 2, "it is asked for at once");
    overtaken.hear(absent.clone());
    assert_eq!(times_asked(&overtaken, blob), 2, "the word counts once");

    let mut in_order = Victim::wanting(blob);
    in_order.hear(absent);
    assert_eq!(times_asked(&in_order, blob), 1);
    in_order.hear(Message::Have { blob });
    assert_eq!(times_asked(&in_order, blob), 2);
}

#[test]
fn who_fetches_content_for_all_tells_it_in_messages_that_fit() {
    let blobs: Vec<BlobHash> = (0..=2 * FETCHING_BLOBS_MAX).map(|at| BlobHash::of(&at.to_be_bytes())).collect();
    let told = |victim: &Victim| {
        let told = victim.sent.iter().filter_map(|message| match message {
            Message::Fetching { blobs, begun: true } => Some(blobs.clone()),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let fetching = || Input::Fetching { blobs: blobs.clone(), begun: true };
    let mut early = Victim::new();
    early.handle(fetching());
    assert!(told(&early).is_empty(), "nobody has said hello");
    let mut victim = Victim::after_hello();
    victim.handle(fetching());
    assert_eq!(told(&victim).iter().map(Vec::len).collect::<Vec<_>>(), [FETCHING_BLOBS_MAX, FETCHING_BLOBS_MAX, 1]);
    assert_eq!(told(&victim).concat(), blobs);

    victim.hear(Message::Fetching { blobs: blobs[..2].to_vec(), begun: false });
    let heard =
        |event: &Event| matches!(event, Event::PeerFetches { blobs: heard, begun: false } if *heard == blobs[..2]);
    assert!(victim.events.iter().any(heard));
    victim.is_well();
}
