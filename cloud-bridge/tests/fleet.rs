//! Enrolment, revocation, the authority's key, and AWS IoT.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use alexandria_cloud_bridge::fleet::authority::AuthorityError;
use alexandria_cloud_bridge::fleet::enrolment::{EnrolError, Enrolled, Request};
use alexandria_cloud_bridge::fleet::iot::Reconciler;
use alexandria_cloud_bridge::fleet::{Config, Fleet};
use alexandria_cloud_bridge::metrics::{Metrics, Refusal};
use alexandria_sync::id::NodeId;
use alexandria_sync::identity::{Identity, PeerIdentity, PeerRole, SigningRequest};
use aws_sdk_iot::types::CertificateStatus;

use crate::fixture::{Aws, Database, Outage, wait_for};

pub(crate) fn config(folder: &Path) -> Config {
    Config { ca_key_file: folder.join("ca.key"), ..Config::default() }
}

async fn fleet(database: &Database, folder: &Path) -> Fleet {
    Fleet::open(database.pool(), config(folder), Metrics::new()).await.unwrap()
}

fn signing_request(node: NodeId) -> SigningRequest {
    SigningRequest::make(PeerIdentity { role: PeerRole::Node, id: node }).unwrap()
}

fn request(token: &str, node: NodeId, csr: &SigningRequest) -> Request {
    Request { token: token.into(), csr_pem: csr.request_pem.clone(), node_id: node, name: "Ship".into() }
}

fn a_node() -> NodeId {
    NodeId::from_bytes(rand::random())
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
    assert_eq!(fleet.admit(node).await.unwrap(), Ok(()));
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
    assert_eq!(fleet.admit(node).await.unwrap(), Err(Refusal::Revoked));
    assert!(matches!(fleet.enrol(&request(&second, node, &csr)).await, Err(EnrolError::Revoked)));
    assert_eq!(fleet.admit(a_node()).await.unwrap(), Err(Refusal::UnknownNode));

    let expired = fleet.create_token("Harbour", Some(0)).await.unwrap();
    let late = a_node();
    let refused = fleet.enrol(&request(&expired, late, &signing_request(late))).await;
    assert!(matches!(refused, Err(EnrolError::WrongToken)));
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

/// AWS IoT is away while a node enrols, and again while it is revoked; in the end it knows both.
#[tokio::test]
async fn aws_iot_is_told_later_what_it_missed() {
    let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let fleet = fleet(&database, folder.path()).await;
    let relay = Outage::before(&aws.address).await;
    let client = aws_sdk_iot::Client::new(&Aws::at(&relay.address).sdk().await);
    let reconciler = Reconciler::new(fleet.clone(), client, Metrics::new());
    let node = a_node();
    let token = fleet.create_token("Harbour", None).await.unwrap();

    relay.away();
    fleet.enrol(&request(&token, node, &signing_request(node))).await.unwrap();
    assert!(reconciler.reconcile_one().await.unwrap());
    let known = fleet.nodes(None, 10).await.unwrap();
    assert_eq!(known[0].iot_state, "register");
    assert!(known[0].iot_error.is_some(), "the operator sees why");

    // Its answers are lost in the middle: steps are done twice.
    relay.lose_answers();
    due_now(&database).await;
    assert!(reconciler.reconcile_one().await.unwrap());
    relay.over();
    reconcile(&database, &reconciler, "registered").await;
    let iot = aws_sdk_iot::Client::new(&aws.sdk().await);
    let principals = iot.list_thing_principals().thing_name(node.to_string()).send().await.unwrap();
    assert_eq!(principals.principals().len(), 1);
    let fingerprint: String = database.value("SELECT encode(certificate_fingerprint, 'hex') FROM node").await;
    assert!(principals.principals()[0].ends_with(&fingerprint), "{principals:?}");
    assert_eq!(status(&iot, &fingerprint).await, CertificateStatus::Active);

    relay.away();
    fleet.revoke(node).await.unwrap();
    assert!(reconciler.reconcile_one().await.unwrap());
    assert_eq!(status(&iot, &fingerprint).await, CertificateStatus::Active);
    relay.over();
    reconcile(&database, &reconciler, "revoked").await;
    assert_eq!(status(&iot, &fingerprint).await, CertificateStatus::Inactive);
    assert!(!reconciler.reconcile_one().await.unwrap(), "nothing is left to tell");
}

async fn reconcile(database: &Database, reconciler: &Reconciler, state: &'static str) {
    wait_for(state, || async {
        due_now(database).await;
        reconciler.reconcile_one().await.unwrap();
        (database.value::<String>("SELECT iot_state FROM node").await == state).then_some(())
    })
    .await;
}

async fn due_now(database: &Database) {
    sqlx::query("UPDATE node SET iot_next_attempt_at = '-infinity'").execute(&database.pool()).await.unwrap();
}

async fn status(iot: &aws_sdk_iot::Client, certificate_id: &str) -> CertificateStatus {
    let found = iot.describe_certificate().certificate_id(certificate_id).send().await.unwrap();
    found.certificate_description().and_then(|found| found.status()).unwrap().clone()
}
