//! Enrolment, revocation, and the authority's key.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use alexandria_cloud_bridge::fleet::authority::AuthorityError;
use alexandria_cloud_bridge::fleet::enrolment::{EnrolError, Enrolled, Renewal, Request};
use alexandria_cloud_bridge::fleet::token::CreateTokenError;
use alexandria_cloud_bridge::fleet::{Config, Fleet};
use alexandria_cloud_bridge::metrics::{Metrics, Refusal};
use alexandria_sync::absence::Standing;
use alexandria_sync::domain::{Erasure, OpenCount, Revocation, Typed};
use alexandria_sync::erase;
use alexandria_sync::id::{BucketId, Epoch, Incarnation, NodeId, Seq};
use alexandria_sync::identity::{Identity, PeerIdentity, PeerRole, SigningRequest};
use alexandria_sync::record::{Record, RecordKey};
use alexandria_sync::store::Peer;

use crate::fixture::{Database, media, new_id, now_ms, stamp};

pub(crate) fn config(folder: &Path) -> Config {
    Config { ca_key_file: folder.join("ca.key"), ..Config::default() }
}

pub(crate) async fn fleet(database: &Database, folder: &Path) -> Fleet {
    Fleet::open(database.pool(), config(folder), Metrics::new()).await.unwrap()
}

pub(crate) fn signing_request(node: NodeId) -> SigningRequest {
    SigningRequest::make(PeerIdentity { role: PeerRole::Node, id: node }).unwrap()
}

pub(crate) fn request(token: &str, node: NodeId, csr: &SigningRequest) -> Request {
    Request { token: token.into(), csr_pem: csr.request_pem.clone(), node_id: node, name: "Ship".into() }
}

pub(crate) fn a_node() -> NodeId {
    NodeId::from_bytes(rand::random())
}

/// Lets a node in, with a token of its own.
pub(crate) async fn enrol(fleet: &Fleet, node: NodeId) {
    let token = fleet.create_token("Harbour", None).await.unwrap();
    fleet.enrol(&request(&token, node, &signing_request(node))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_lets_in_one_node_however_many_come_with_it() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    // Each is held up between its look at the token and its commit, so that all look before the first commits.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON node FOR EACH ROW EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&database.pool()).await.unwrap();
    let token = fleet.create_token("Harbour", None).await.unwrap();
    let mut callers = Vec::new();
    for _ in 0..16 {
        let (fleet, token, node) = (fleet.clone(), token.clone(), a_node());
        let csr = signing_request(node);
        callers.push(tokio::spawn(async move { (fleet.enrol(&request(&token, node, &csr)).await, node, csr) }));
    }
    let mut winners = Vec::new();
    for caller in callers {
        match caller.await.unwrap() {
            (Ok(enrolled), node, csr) => winners.push((enrolled, node, csr)),
            (Err(error), ..) => assert!(matches!(error, EnrolError::WrongToken), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1, "one token, one node");
    let (enrolled, node, csr) = winners.remove(0);
    let held =
        Identity::from_pem(&enrolled.certificate_pem, &csr.key_pem, fleet.authority().certificate_pem()).unwrap();
    assert_eq!(held.named(), PeerIdentity { role: PeerRole::Node, id: node });
    // Its answer was lost: it gets the same one again. With another key it is somebody else.
    assert_eq!(fleet.enrol(&request(&token, node, &csr)).await.unwrap(), enrolled);
    let other_key = fleet.enrol(&request(&token, node, &signing_request(node))).await;
    assert!(matches!(other_key, Err(EnrolError::WrongToken)));
    // The database has the secret's hash, not the secret.
    let secret = token.split('.').next().unwrap();
    let kept: String = database.value("SELECT string_agg(token::text, ' ') FROM enrolment_token token").await;
    assert!(!kept.contains(secret), "{kept}");
    let hashed: i64 = database.value("SELECT count(*) FROM enrolment_token WHERE octet_length(hash) = 32").await;
    assert_eq!(hashed, 1);
    assert_eq!(fleet.admit(node).await.unwrap().map(drop), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_that_asks_many_times_at_once_gets_one_answer() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    let token = fleet.create_token("Harbour", None).await.unwrap();
    let node = a_node();
    let request = request(&token, node, &signing_request(node));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (fleet, request) = (fleet.clone(), request.clone());
            tokio::spawn(async move { fleet.enrol(&request).await.unwrap() })
        })
        .collect();
    let mut answers: Vec<Enrolled> = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

/// Nodes that meet without the bridge have to hear of it.
#[tokio::test]
async fn all_nodes_are_told_once_who_was_revoked() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (fleet, records) = (fleet(&database, folder.path()).await, database.records().await);
    let (stays, goes) = (a_node(), a_node());
    for node in [stays, goes] {
        enrol(&fleet, node).await;
    }
    assert_eq!(fleet.tell_of_revoked(&records).await.unwrap(), 0);
    fleet.revoke(goes).await.unwrap();
    assert_eq!(fleet.tell_of_revoked(&records).await.unwrap(), 1);
    assert_eq!(fleet.tell_of_revoked(&records).await.unwrap(), 0, "once");
    let told = records.held_versions(&[Revocation::key(stays), Revocation::key(goes)]).await.unwrap();
    let bridge = records.identity().node_id();
    assert_eq!(told[0], None);
    assert!(told[1].as_ref().is_some_and(|record| Revocation::counts(record, goes, bridge)), "{told:?}");
}

#[tokio::test]
async fn who_should_not_be_let_in_is_not() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    let node = a_node();
    let csr = signing_request(node);
    let refused = fleet.enrol(&request("nonsense.00", node, &csr)).await;
    assert!(matches!(refused, Err(EnrolError::WrongToken)));

    let token = fleet.create_token("Harbour", None).await.unwrap();
    let mut forged = request(&token, node, &csr);
    forged.csr_pem = forged.csr_pem.replace("-----BEGIN", "-----");
    assert!(matches!(fleet.enrol(&forged).await, Err(EnrolError::Malformed(_))));
    assert!(fleet.enrol(&request(&token, node, &csr)).await.is_ok(), "a refused attempt does not use the token up");

    let second = fleet.create_token("Harbour", None).await.unwrap();
    let taken = fleet.enrol(&request(&second, node, &signing_request(node))).await;
    assert!(matches!(taken, Err(EnrolError::NodeIdTaken)), "a token does not give away another node's name");

    assert!(fleet.revoke(node).await.unwrap());
    assert_eq!(fleet.admit(node).await.unwrap().map(drop), Err(Refusal::Revoked));
    assert!(matches!(fleet.enrol(&request(&second, node, &csr)).await, Err(EnrolError::Revoked)));
    assert_eq!(fleet.admit(a_node()).await.unwrap().map(drop), Err(Refusal::UnknownNode));

    let expired = fleet.create_token("Harbour", Some(0)).await.unwrap();
    let late = a_node();
    let refused = fleet.enrol(&request(&expired, late, &signing_request(late))).await;
    assert!(matches!(refused, Err(EnrolError::WrongToken)));
}

/// DESIGN section 4: what belongs to a site is handed to a replacement node, and to nobody else.
#[tokio::test]
async fn a_replacement_takes_over_the_site_and_the_replaced_node_is_shut_out() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    let records = database.records().await;
    let (old, new) = (a_node(), a_node());
    let unknown = fleet.create_replacement_token("Harbour", None, old).await;
    assert!(matches!(unknown, Err(CreateTokenError::NoSuchNode(_))));
    enrol(&fleet, old).await;

    let (from, to) = (BucketId::Site(old), BucketId::Site(new));
    let medium = new_id();
    let opened = OpenCount { media: medium, count: 7 };
    let opened = opened.to_record(from, OpenCount::record_id(medium, old, Incarnation(1)), stamp(1, 0));
    let note = media(from, new_id(), "a private upload", stamp(1, 1));
    let gone = media(from, new_id(), "deleted", stamp(1, 2)).deleted(stamp(1, 3));
    let mut many: Vec<Record> = (0..1200).map(|_| media(from, new_id(), "x", stamp(1, 4))).collect();
    let erasure = RecordKey { bucket: BucketId::Catalogue, kind: Erasure::KIND, id: new_id() };
    let receipt = erase::receipt(erasure, old, Incarnation(1), stamp(1, 5));
    many.extend([opened, note.clone(), gone, receipt.clone()]);
    records.apply(Peer { node: old, epoch: Epoch(1) }, from, many, Seq(1204)).await.unwrap();

    let token = fleet.create_replacement_token("Harbour", None, old).await.unwrap();
    let itself = fleet.enrol(&request(&token, old, &signing_request(old))).await;
    assert!(itself.is_err(), "nor does that use the token up");
    assert_eq!(fleet.admit(old).await.unwrap().map(drop), Ok(()), "nothing has happened yet");
    fleet.enrol(&request(&token, new, &signing_request(new))).await.unwrap();
    assert_eq!(fleet.admit(old).await.unwrap().map(drop), Err(Refusal::Revoked));
    assert_eq!(fleet.to_be_handed_over(new).await.unwrap(), Some(old));
    assert_eq!(fleet.to_be_handed_over(old).await.unwrap(), None);

    assert_eq!(records.hand_over_site(old, new).await.unwrap(), 1202);
    assert_eq!(records.hand_over_site(old, new).await.unwrap(), 0, "once");
    let live = async |bucket| {
        let (mut live, mut after) = (Vec::new(), Seq(0));
        loop {
            let page = records.page(bucket, after, None, (1000, 1 << 20)).await.unwrap();
            live.extend(page.records.into_iter().filter(|record| !record.is_tombstone()));
            if !page.more {
                return live;
            }
            after = page.next;
        }
    };
    assert_eq!(live(from).await, [receipt], "it is the old disk that has forgotten");
    let handed_over = live(to).await;
    assert_eq!(handed_over.len(), 1202);
    let moved = handed_over.iter().find(|record| record.key.id == note.key.id).expect("it is there");
    assert_eq!((moved.key.bucket, &moved.body), (to, &note.body), "as it was, stamps and all");
    let popularity: i64 = database.value("SELECT opened::bigint FROM popularity").await;
    assert_eq!(popularity, 7, "counted once");

    // A session of the old node may have run for some seconds more.
    fleet.note_handed_over(new).await.unwrap();
    assert_eq!(fleet.to_be_handed_over(new).await.unwrap(), Some(old));
    let later = "UPDATE node SET revoked_at = revoked_at - interval '2 minutes' WHERE revoked_at IS NOT NULL";
    sqlx::raw_sql(later).execute(&database.pool()).await.unwrap();
    fleet.note_handed_over(new).await.unwrap();
    assert_eq!(fleet.to_be_handed_over(new).await.unwrap(), None);
}

#[tokio::test]
async fn the_authoritys_key_stays_its_owners_and_is_never_replaced_by_another() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let first = fleet(&database, folder.path()).await;
    let key = folder.path().join("ca.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fleet(&database, folder.path()).await.authority().fingerprint(), first.authority().fingerprint());

    let pem = std::fs::read_to_string(&key).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = Fleet::open(database.pool(), config(elsewhere.path()), Metrics::new()).await;
    assert!(matches!(missing.err(), Some(AuthorityError::KeyMissing(_))), "no second authority is made");
    let by_environment = Config { ca_key_pem: Some(pem), ..config(elsewhere.path()) };
    assert!(Fleet::open(database.pool(), by_environment, Metrics::new()).await.is_ok());
    let other = SigningRequest::make(PeerIdentity { role: PeerRole::Node, id: a_node() }).unwrap().key_pem;
    let wrong = Config { ca_key_pem: Some(other), ..config(elsewhere.path()) };
    assert!(matches!(Fleet::open(database.pool(), wrong, Metrics::new()).await.err(), Some(AuthorityError::WrongKey)));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = Fleet::open(database.pool(), config(folder.path()), Metrics::new()).await;
    assert!(matches!(exposed.err(), Some(AuthorityError::KeyExposed(_))));
}

/// A node far away cannot be handed a token each time that its certificate runs out.
#[tokio::test]
async fn a_node_gets_another_certificate_for_its_key_in_the_last_third_of_its_time_and_nobody_else_does() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let of_days = async |certificate_days| {
        let config = Config { certificate_days, ..config(folder.path()) };
        Fleet::open(database.pool(), config, Metrics::new()).await.unwrap()
    };
    let (short, long) = (of_days(0).await, of_days(300).await);
    let node = a_node();
    let csr = signing_request(node);
    let token = short.create_token("Harbour", None).await.unwrap();
    let first = short.enrol(&request(&token, node, &csr)).await.unwrap();
    let renewal = Renewal { csr_pem: csr.request_pem.clone(), node_id: node };
    let second = long.renew(&renewal).await.unwrap();
    assert_ne!(second.certificate_pem, first.certificate_pem);
    let authority = long.authority().certificate_pem();
    let held = Identity::from_pem(&second.certificate_pem, &csr.key_pem, authority).unwrap();
    assert_eq!((held.named().id, second.site.as_str()), (node, "Harbour"));
    assert_eq!(long.renew(&renewal).await.unwrap(), second, "it is good for long");
    assert_eq!(database.value::<String>("SELECT iot_state FROM node").await, "register");

    let other_key = Renewal { csr_pem: signing_request(node).request_pem, node_id: node };
    assert!(matches!(long.renew(&other_key).await, Err(EnrolError::NotAMember)));
    let stranger = a_node();
    let unknown = Renewal { csr_pem: signing_request(stranger).request_pem, node_id: stranger };
    assert!(matches!(long.renew(&unknown).await, Err(EnrolError::NotAMember)));
    long.revoke(node).await.unwrap();
    assert!(matches!(long.renew(&renewal).await, Err(EnrolError::Revoked)));
}

/// What one node tells is written in one statement with what others tell.
#[tokio::test]
async fn a_node_that_is_in_step_with_the_future_spoils_nothing_for_others() {
    let Some(database) = Database::new().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    let nodes: Vec<NodeId> = (0..6).map(|_| a_node()).collect();
    for &node in &nodes {
        enrol(&fleet, node).await;
    }
    let told = |in_step_ms| Some(Standing { in_step_ms, ..Standing::FRESH });
    let tomorrow_ms = now_ms() + 24 * 3600 * 1000;
    // Past what PostgreSQL has for a time, past what it has for a number, and one that only is to come.
    let told =
        [told(now_ms()), told(1 << 62), told(u64::MAX - 1), told(tomorrow_ms), told(u64::MAX), told(now_ms() + 1000)];
    let noted = nodes.iter().zip(told).map(|(&node, told)| fleet.note_standing(node, told));
    for noted in futures::future::join_all(noted).await {
        noted.unwrap();
    }
    for (&node, told) in nodes.iter().zip(told) {
        fleet.note_heard(node, told).await.unwrap();
    }
    let known = fleet.nodes(None, 10).await.unwrap();
    let is_noted = |node: &NodeId| known.iter().any(|known| known.id == *node && known.in_step_at.is_some());
    assert_eq!(nodes.iter().map(is_noted).collect::<Vec<_>>(), [true, false, false, false, true, true]);
}
