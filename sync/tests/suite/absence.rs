//! What a session makes of how its two ends stand after an absence.

use std::sync::Arc;

use alexandria_sync::absence::Standing;
use alexandria_sync::domain::{Author, Typed};
use alexandria_sync::id::{BucketId, RecordId, Seq};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Closed, Collections, Config, Input, Output, Scope, Selection, Session};
use alexandria_sync::sim::{SimBlobs, SimRecords, carry_out};
use alexandria_sync::store::{Peer, RecordStore as _};
use alexandria_sync::wire::{CloseReason, Hello, Lane, Message, Offered};

use crate::fleet::{Site, node_id};

fn standing(in_step_ms: u64, collected_ms: u64) -> Standing {
    Standing { in_step_ms, collected_ms, keeps_all: true }
}

/// One end of a session by hand: node 1, whose peer is bridge 2.
struct End {
    session: Session,
    records: Arc<SimRecords>,
    blobs: Arc<SimBlobs>,
    sent: Vec<Message>,
    closed: Option<Closed>,
}

impl End {
    fn new(standing: Standing, selection: Selection) -> Self {
        let site = Site::new(1);
        site.write_authors(3);
        Self::of(site, standing, selection)
    }

    fn of(site: Site, standing: Standing, selection: Selection) -> Self {
        let hello = Hello { standing: Some(standing), ..site.hello() };
        let scope = Scope { site: node_id(1), collections: Collections::All };
        let session = Session::new(Config::default(), hello, node_id(2), scope, 0).selecting(selection);
        let (records, blobs) = (site.records, site.blobs);
        Self { session, records, blobs, sent: Vec::new(), closed: None }
    }

    /// Hears a message, and does all that follows.
    fn hears(&mut self, lane: Lane, message: Message) {
        let mut inputs = vec![Input::Message(lane, message)];
        while !inputs.is_empty() {
            for input in std::mem::take(&mut inputs) {
                self.session.handle(input, 0);
                while let Some(output) = self.session.poll() {
                    match output {
                        Output::Send(lane, message) => {
                            self.sent.push(message);
                            inputs.push(Input::LaneDrained(lane));
                        }
                        Output::Disk(request) => {
                            let done = carry_out(request, node_id(2), &self.records, &self.blobs);
                            inputs.extend(done.map(Input::Disk));
                        }
                        Output::Event(_) => {}
                        Output::Closed(closed) => self.closed = Some(closed),
                    }
                }
            }
        }
    }

    fn hears_hello(&mut self, standing: impl Into<Option<Standing>>) {
        let hello = Hello { standing: standing.into(), ..Site::new(2).hello() };
        self.hears(Lane::Control, Message::Hello(hello));
    }

    fn pulls_its_catalogue(&mut self) {
        let pull = Message::Pull {
            bucket: BucketId::Catalogue,
            after: Seq(2),
            epoch: alexandria_sync::id::Epoch(1),
            page_bytes: 4096,
            own_too: false,
        };
        self.hears(Lane::Control, pull);
    }

    fn pages(&self) -> usize {
        self.sent.iter().filter(|message| matches!(message, Message::Page { .. })).count()
    }

    fn reason(&self) -> Option<CloseReason> {
        self.closed.as_ref().map(|closed| closed.reason)
    }
}

fn page() -> Message {
    let key = RecordKey { bucket: BucketId::Catalogue, kind: Author::KIND, id: RecordId::mint(1, [1; 10]) };
    let author = Author { name: "somebody".into(), ..Author::default() };
    let record = author.to_record(key.bucket, key.id, alexandria_sync::hlc::Stamp::default());
    Message::Page { bucket: key.bucket, next: Seq(1), more: false, records: vec![record.encode()], moment: None }
}

#[test]
fn who_was_away_for_longer_than_its_lease_gives_nothing_and_ends_the_session() {
    let mut end = End::new(standing(10, 0), Selection::default());
    end.hears_hello(standing(100, 20));
    assert_eq!(end.reason(), Some(CloseReason::GoingAway), "{:?}", end.closed);
    assert!(!end.sent.iter().any(|message| matches!(message, Message::Offer(_) | Message::Page { .. })));
}

#[test]
fn who_is_in_step_gives_as_ever() {
    let mut end = End::new(standing(20, 0), Selection::default());
    end.hears_hello(standing(100, 20));
    end.pulls_its_catalogue();
    assert_eq!((end.reason(), end.pages()), (None, 1));
}

/// It asks for everything, says how far it is, gives nothing, and ends once all is read.
#[test]
fn while_all_is_read_anew_nothing_is_given() {
    let mut end = End::new(standing(10, 0), Selection { all_anew: true, ..Selection::default() });
    let hello = Hello {
        standing: Some(standing(100, 20)),
        features: alexandria_sync::wire::feature::OWN_ROWS,
        ..Site::new(2).hello()
    };
    end.hears(Lane::Control, Message::Hello(hello));
    end.pulls_its_catalogue();
    end.hears(Lane::Control, Message::Offer(vec![Offered { bucket: BucketId::Catalogue, head: Seq(1) }]));
    let asked = end.sent.iter().any(|message| matches!(message, Message::Pull { after: Seq(0), own_too: true, .. }));
    assert!(asked, "{:?}", end.sent);
    assert_eq!((end.reason(), end.pages()), (None, 0));
    end.hears(Lane::Records, page());
    assert_eq!((end.reason(), end.pages()), (Some(CloseReason::GoingAway), 0), "{:?}", end.closed);
    assert_eq!(end.records.feed(BucketId::Catalogue).len(), 4);
}

/// What is held back may have reached the peer by way of a bundle, and is one of this end's own for it. Who cannot send such records is read all the same.
#[test]
fn while_records_are_held_back_what_came_from_here_is_asked_for_of_who_can_send_it() {
    for features in [alexandria_sync::wire::feature::OWN_ROWS, 0] {
        let mut end = End::new(standing(20, 0), Selection { holds_back: true, ..Selection::default() });
        let hello = Hello { standing: Some(standing(100, 20)), features, ..Site::new(2).hello() };
        end.hears(Lane::Control, Message::Hello(hello));
        end.hears(Lane::Control, Message::Offer(vec![Offered { bucket: BucketId::Catalogue, head: Seq(1) }]));
        let asked = end.sent.iter().find_map(|message| match message {
            Message::Pull { own_too, .. } => Some(*own_too),
            _ => None,
        });
        assert_eq!(asked, Some(features != 0), "{:?}", end.sent);
    }
}

#[test]
fn records_from_one_whose_lease_has_run_out_are_a_violation() {
    let mut end = End::new(standing(100, 20), Selection::default());
    end.hears_hello(standing(10, 0));
    end.hears(Lane::Control, Message::Offer(vec![Offered { bucket: BucketId::Catalogue, head: Seq(1) }]));
    assert_eq!(end.reason(), None, "it may read");
    end.hears(Lane::Records, page());
    assert_eq!(end.reason(), Some(CloseReason::Violation), "{:?}", end.closed);
    assert_eq!(end.records.feed(BucketId::Catalogue).len(), 3);
}

/// A bundle that was written after the offer may have brought more meanwhile: to ask for what follows that would be a lie.
#[tokio::test]
async fn nothing_is_asked_for_after_the_end_that_was_offered() {
    let mut end = End::new(standing(100, 0), Selection::default());
    let (bucket, peer) = (BucketId::Catalogue, Peer { node: node_id(2), epoch: Site::new(2).hello().epoch });
    end.records.apply(peer, bucket, Vec::new(), Seq(9)).await.unwrap();
    end.hears_hello(standing(100, 0));
    end.hears(Lane::Control, Message::Offer(vec![Offered { bucket, head: Seq(7) }]));
    let late = BucketId::Collection(RecordId::mint(1, [7; 10]));
    end.records.apply(peer, late, Vec::new(), Seq(3)).await.unwrap();
    end.hears(Lane::Control, Message::Offer(vec![Offered { bucket: late, head: Seq(0) }]));
    let asked: Vec<(BucketId, Seq)> = end
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::Pull { bucket, after, .. } => Some((*bucket, *after)),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [(bucket, Seq(7)), (late, Seq(3))], "the offer of a bucket that comes up later bounds nothing");
}

/// Whoever counts as in step must know of every bucket.
#[test]
fn the_last_offer_is_never_a_full_one() {
    for buckets in [0, 9_999, 10_000, 10_001] {
        let site = Site::new(1);
        for number in 0..buckets {
            let bucket = BucketId::Collection(RecordId::mint(1, u128::to_be_bytes(number)[6..].try_into().unwrap()));
            let key = RecordKey { bucket, kind: Author::KIND, id: RecordId::mint(1, [1; 10]) };
            let author = Author { name: "somebody".into(), ..Author::default() };
            site.records.write(key, |_, stamp| Some(author.to_record(key.bucket, key.id, stamp)));
        }
        let mut end = End::of(site, standing(100, 0), Selection::default());
        end.hears_hello(standing(100, 0));
        let offered: Vec<usize> = end
            .sent
            .iter()
            .filter_map(|message| match message {
                Message::Offer(offered) => Some(offered.len()),
                _ => None,
            })
            .collect();
        assert_eq!(offered.iter().sum::<usize>() as u128, buckets);
        assert!(offered.last().is_some_and(|last| *last < 10_000), "{offered:?}");
    }
}

#[test]
fn an_old_version_is_let_in_while_nothing_was_forgotten_and_refused_once_it_was_away_for_too_long() {
    let mut end = End::new(standing(100, 0), Selection::default());
    end.hears_hello(None);
    assert_eq!(end.reason(), None);
    let mut end = End::new(standing(100, 20), Selection::default());
    end.hears_hello(None);
    assert_eq!(end.reason(), Some(CloseReason::NotWelcome));
    assert!(end.closed.unwrap().text.contains("update"));
}
