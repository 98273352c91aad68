//! Two nodes that meet without a bridge, over real sockets on the loopback, with the certificates that nodes have.

use alexandria_sync::domain::{Author, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use alexandria_sync::identity::{Authority, Identity, PeerIdentity, PeerRole};
use alexandria_sync::record::RecordKey;
use alexandria_sync::session::{Config, Scope};
use alexandria_sync::tcp::TcpConfig;
use alexandria_sync::tls::{ClientTls, ServerTls};
use alexandria_sync::transport::{AnyLink, ConnectError, Transport};

use crate::fleet::{Bridge, NOW_UNIX_S, Site, authority, identity, node_id};

const TRANSPORTS: [Transport; 2] = [Transport::Quic, Transport::Tcp];
/// After every certificate here has expired.
const LATER_UNIX_S: u64 = NOW_UNIX_S + 19 * 365 * 24 * 3600;

type Ends = (Result<AnyLink, ConnectError>, Result<AnyLink, ConnectError>);

/// One who listens for nodes, and what comes of dialling it.
struct Neighbour(Bridge);

impl Neighbour {
    fn listen(identity: &Identity, floor_unix_s: u64) -> Self {
        let tls = ServerTls::for_peers(identity, floor_unix_s).expect("the identity is good");
        Self(Bridge::listen_as(&tls, &TcpConfig::default()))
    }

    async fn dialled(&self, over: Transport, from: &Identity, floor_unix_s: u64, number: u8) -> Ends {
        let tls = ClientTls::for_peer(from, floor_unix_s, node_id(number)).expect("the identity is good");
        let expected = PeerIdentity { role: PeerRole::Node, id: node_id(number) };
        self.0.dialled_as(over, &tls, expected).await
    }
}

fn node(authority: &Authority, number: u8) -> Identity {
    identity(authority, PeerRole::Node, number)
}

#[tokio::test]
async fn two_nodes_meet_and_records_and_blobs_move_both_ways_but_nobodys_site() {
    for over in TRANSPORTS {
        let fleet = authority();
        let neighbour = Neighbour::listen(&node(&fleet, 2), 0);
        let (dialled, answered) = neighbour.dialled(over, &node(&fleet, 1), 0, 2).await;
        let (dialled, answered) = (dialled.expect("it dials"), answered.expect("it answers"));
        assert_eq!((dialled.peer().id, answered.peer().id), (node_id(2), node_id(1)));

        let (one, two) = (Site::new(1), Site::new(2));
        one.write_authors(300);
        two.write_authors(200);
        let (from_one, from_two) = (one.import(1, 3_000_000), two.import(2, 2_500_000));
        for here in [&one, &two] {
            for site in [&one, &two] {
                let key = RecordKey {
                    bucket: BucketId::Site(site.id),
                    kind: Author::KIND,
                    id: RecordId::derived(&[b"private"]),
                };
                let author = Author { name: format!("of {}", site.id), ..Author::default() };
                here.records.write(key, |_, stamp| Some(author.to_record(key.bucket, key.id, stamp)));
            }
        }
        let mut at_one = one.run_in(Scope::between_nodes(), two.id, dialled, Config::default());
        let mut at_two = two.run_in(Scope::between_nodes(), one.id, answered, Config::default());
        at_one.wait_quiet().await;
        at_two.wait_quiet().await;

        assert!(one.blobs.whole(from_two).is_some() && two.blobs.whole(from_one).is_some(), "{over}");
        let public = |site: &Site| {
            let mut records = site.records.all();
            records.retain(|record| !matches!(record.key.bucket, BucketId::Site(_)));
            records
        };
        assert_eq!(public(&one).len(), 502);
        assert_eq!(public(&one), public(&two));
        let private = |site: &Site, of: &Site| {
            let cursors = site.records.cursors();
            cursors.iter().filter(|(_, bucket, _)| *bucket == BucketId::Site(of.id)).count()
        };
        for (here, of) in [(&one, &one), (&one, &two), (&two, &one), (&two, &two)] {
            assert_eq!(private(here, of), 0, "{over}: a site was read");
        }
    }
}

#[tokio::test]
async fn who_is_not_the_node_that_was_dialled_or_not_of_the_fleet_is_refused_by_either_end() {
    let (ours, foreign) = (authority(), authority());
    let two = Neighbour::listen(&node(&ours, 2), 0);
    for over in TRANSPORTS {
        // Another node than the one expected there.
        let (dialled, answered) = two.dialled(over, &node(&ours, 1), 0, 3).await;
        assert!(dialled.is_err() && answered.is_err(), "{over}: another node");

        // A node of another fleet dials; one of another fleet is dialled that has the same id.
        let (dialled, answered) = two.dialled(over, &node(&foreign, 1), 0, 2).await;
        assert!(dialled.is_err() && answered.is_err(), "{over}: a stranger dials");
        let stranger = Neighbour::listen(&node(&foreign, 2), 0);
        let (dialled, answered) = stranger.dialled(over, &node(&ours, 1), 0, 2).await;
        assert!(dialled.is_err() && answered.is_err(), "{over}: a stranger is dialled");

        // A bridge is not a node, at either end.
        let (_, answered) = two.dialled(over, &identity(&ours, PeerRole::Bridge, 1), 0, 2).await;
        assert!(answered.is_err(), "{over}: a bridge dials");
        let bridge = Neighbour::listen(&identity(&ours, PeerRole::Bridge, 2), 0);
        let (dialled, _) = bridge.dialled(over, &node(&ours, 1), 0, 2).await;
        assert!(dialled.is_err(), "{over}: a bridge is dialled");

        // Certificates that have expired, as either end sees it.
        let (dialled, _) = two.dialled(over, &node(&ours, 1), LATER_UNIX_S, 2).await;
        assert!(dialled.is_err(), "{over}: the one that is dialled has expired");
        let late = Neighbour::listen(&node(&ours, 2), LATER_UNIX_S);
        let (_, answered) = late.dialled(over, &node(&ours, 1), 0, 2).await;
        assert!(answered.is_err(), "{over}: the one that dials has expired");

        // And the right one is let in.
        let (dialled, answered) = two.dialled(over, &node(&ours, 1), 0, 2).await;
        assert!(dialled.is_ok() && answered.is_ok(), "{over}");
    }
}
