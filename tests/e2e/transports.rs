//! What carries a session: TCP where no UDP goes through, and that is remembered.

use std::time::Duration;

use alexandria_e2e::{
    datagrams::UdpLossyProxy,
    deadline::wait_for,
    fleet::Fleet,
    line::{CLEAN, Profile},
    node::{NodeProcess, NodeSettings},
    seed::seed,
};

const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn where_udp_is_blocked_a_node_replicates_over_tcp_and_next_time_begins_with_it() {
    let fleet = Fleet::start().await;
    let blocked = Profile { loss: 1.0, ..CLEAN };
    let udp = UdpLossyProxy::start(fleet.bridge.settings().quic, blocked, seed()).await;
    let mut node = NodeSettings::default()
        .environment("ALEXANDRIA_REPLICATION__BRIDGE", udp.address().to_string())
        .environment("ALEXANDRIA_REPLICATION__BRIDGE_TCP", fleet.bridge.settings().quic.to_string())
        .start()
        .await;
    fleet.enrol(&node).await;
    let why = over_tcp(&node).await;
    assert!(why.contains("just now"), "{why}");
    let all_there = "SELECT count(*) FROM stored_blob";
    wait_for("content in the cloud", DEADLINE, async || (fleet.database.number(all_there).await > 0).then_some(()))
        .await;
    assert!(node.done("status", &[]).await.contains("over TCP"));

    node.stop().await;
    let tried = udp.to_server().lost_packets;
    assert!(tried > 0, "QUIC was tried first");
    node.start_again().await;
    let why = over_tcp(&node).await;
    assert!(why.contains("on this network"), "{why}");
    assert_eq!(udp.to_server().lost_packets, tried, "QUIC is not tried again at once");
}

/// Waits until a session is open, which must be over TCP; tells why it is.
async fn over_tcp(node: &NodeProcess) -> String {
    wait_for("a session", DEADLINE, async || {
        let replication = node.status().await["replication"].clone();
        let transport = replication["transport"].as_str()?;
        assert_eq!(transport, "TCP");
        Some(replication["transport_reason"].as_str()?.to_owned())
    })
    .await
}
