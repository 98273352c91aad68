//! What AWS IoT is told of the fleet, also when it is away, slow, or loses its answers.

use alexandria_cloud_bridge::fleet::Fleet;
use alexandria_cloud_bridge::fleet::iot::Reconciler;
use alexandria_cloud_bridge::metrics::Metrics;
use alexandria_sync::id::NodeId;
use aws_sdk_iot::types::CertificateStatus;

use crate::fixture::{Aws, DEADLINE, Database, Outage, wait_for};
use crate::fleet::{a_node, enrol, fleet, request, signing_request};

/// A fleet that reaches AWS IoT through a relay, and a node that comes.
struct World {
    database: Database,
    fleet: Fleet,
    /// Between `reconciler` and AWS IoT.
    relay: Outage,
    reconciler: Reconciler,
    /// AWS IoT itself.
    iot: aws_sdk_iot::Client,
    node: NodeId,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let (Some(database), Some(aws)) = (Database::new().await, Aws::shared()) else { return None };
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(&database, folder.path()).await;
        let relay = Outage::before(&aws.address).await;
        let client = aws_sdk_iot::Client::new(&Aws::at(&relay.address).sdk().await);
        let reconciler = Reconciler::new(fleet.clone(), client, Metrics::new());
        let iot = aws_sdk_iot::Client::new(&aws.sdk().await);
        Some(Self { database, fleet, relay, reconciler, iot, node: a_node(), _folder: folder })
    }

    /// Of another process of the bridge, which nothing holds up.
    fn other(&self) -> Reconciler {
        Reconciler::new(self.fleet.clone(), self.iot.clone(), Metrics::new())
    }

    async fn reconcile_to(&self, state: &'static str) {
        wait_for(state, || async {
            self.due_now().await;
            self.reconciler.reconcile_one().await.unwrap();
            (self.state().await == state).then_some(())
        })
        .await;
    }

    async fn due_now(&self) {
        let now = "UPDATE node SET iot_next_attempt_at = '-infinity'";
        sqlx::query(now).execute(&self.database.pool()).await.unwrap();
    }

    async fn state(&self) -> String {
        self.database.value("SELECT iot_state FROM node").await
    }

    async fn fingerprint(&self) -> String {
        self.database.value("SELECT encode(certificate_fingerprint, 'hex') FROM node").await
    }

    async fn certificate_status(&self) -> CertificateStatus {
        self.status_of(&self.fingerprint().await).await
    }

    async fn status_of(&self, certificate_id: &str) -> CertificateStatus {
        let found = self.iot.describe_certificate().certificate_id(certificate_id).send().await.unwrap();
        found.certificate_description().and_then(|found| found.status()).unwrap().clone()
    }
}

#[tokio::test]
async fn aws_iot_is_told_later_what_it_missed() {
    let Some(world) = World::new().await else { return };
    world.relay.away();
    enrol(&world.fleet, world.node).await;
    assert!(world.reconciler.reconcile_one().await.unwrap());
    let known = world.fleet.nodes(None, 10).await.unwrap();
    assert_eq!(known[0].iot_state, "register");
    assert!(known[0].iot_error.is_some(), "the operator sees why");

    // Its answers are lost in the middle: steps are done twice.
    world.relay.lose_answers();
    world.due_now().await;
    assert!(world.reconciler.reconcile_one().await.unwrap());
    world.relay.over();
    world.reconcile_to("registered").await;
    let principals = world.iot.list_thing_principals().thing_name(world.node.to_string()).send().await.unwrap();
    assert_eq!(principals.principals().len(), 1);
    assert!(principals.principals()[0].ends_with(&world.fingerprint().await), "{principals:?}");
    assert_eq!(world.certificate_status().await, CertificateStatus::Active);

    world.relay.away();
    world.fleet.revoke(world.node).await.unwrap();
    assert!(world.reconciler.reconcile_one().await.unwrap());
    assert_eq!(world.certificate_status().await, CertificateStatus::Active);
    world.relay.over();
    world.reconcile_to("revoked").await;
    assert_eq!(world.certificate_status().await, CertificateStatus::Inactive);
    assert!(!world.reconciler.reconcile_one().await.unwrap(), "nothing is left to tell");
}

/// A node that is enrolled again, with the key that it has, gets another certificate; the one before is worth nothing.
#[tokio::test]
async fn only_the_latest_certificate_of_a_node_is_active_and_none_once_it_is_revoked() {
    let Some(world) = World::new().await else { return };
    let csr = signing_request(world.node);
    let enrolled = async || {
        let token = world.fleet.create_token("Harbour", None).await.unwrap();
        world.fleet.enrol(&request(&token, world.node, &csr)).await.unwrap();
        world.reconcile_to("registered").await;
        world.fingerprint().await
    };
    let (first, second) = (enrolled().await, enrolled().await);
    assert_ne!(first, second);
    assert_eq!(world.status_of(&first).await, CertificateStatus::Inactive);
    assert_eq!(world.status_of(&second).await, CertificateStatus::Active);
    let known = world.fleet.nodes(None, 10).await.unwrap();
    assert!(known[0].certificate_until.as_ref().is_some_and(|until| *until > known[0].enrolled_at), "{known:?}");

    // As an earlier version of the bridge has left it.
    let again = world.iot.update_certificate().certificate_id(&first).new_status(CertificateStatus::Active);
    again.send().await.unwrap();
    world.fleet.revoke(world.node).await.unwrap();
    world.reconcile_to("revoked").await;
    for certificate in [&first, &second] {
        assert_eq!(world.status_of(certificate).await, CertificateStatus::Inactive);
    }
}

/// Whoever connects or is to be shut out does not wait for AWS, which may take its time.
#[tokio::test]
async fn while_aws_iot_takes_its_time_nodes_are_let_in_and_shut_out() {
    let Some(world) = World::new().await else { return };
    enrol(&world.fleet, world.node).await;
    world.relay.hold();
    let registers = tokio::spawn({
        let reconciler = world.reconciler.clone();
        async move { reconciler.reconcile_one().await.unwrap() }
    });
    world.relay.holds_one().await;
    let soon = DEADLINE / 12;
    let admitted = tokio::time::timeout(soon, world.fleet.admit(world.node)).await.expect("it is let in at once");
    assert_eq!(admitted.unwrap().map(drop), Ok(()));
    let revoked = tokio::time::timeout(soon, world.fleet.revoke(world.node)).await.expect("it is shut out at once");
    assert!(revoked.unwrap());

    // What the registration still does would undo what is told before it has ended.
    let other = world.other();
    assert!(!other.reconcile_one().await.unwrap(), "the revocation waits");
    world.relay.over();
    assert!(registers.await.unwrap());
    assert_eq!(world.certificate_status().await, CertificateStatus::Active);
    assert!(other.reconcile_one().await.unwrap(), "it is due at once");
    assert_eq!(world.certificate_status().await, CertificateStatus::Inactive);
    assert_eq!(world.state().await, "revoked");
}

/// A process that is killed while it tells AWS IoT leaves a claim behind; it runs out.
#[tokio::test]
async fn what_a_killed_process_was_telling_aws_iot_is_told_by_another() {
    let Some(world) = World::new().await else { return };
    enrol(&world.fleet, world.node).await;
    world.relay.hold();
    let killed = world.reconciler.clone();
    let registers = tokio::spawn(async move { killed.reconcile_one().await });
    world.relay.holds_one().await;
    registers.abort();
    let later = "UPDATE node SET iot_claimed_until = iot_claimed_until - interval '1 hour'";
    sqlx::raw_sql(later).execute(&world.database.pool()).await.unwrap();
    assert!(world.other().reconcile_one().await.unwrap());
    assert_eq!(world.state().await, "registered");
}
