use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alexandria_e2e::{
    datagrams::UdpLossyProxy,
    deadline::wait_until,
    line::{CLEAN, Profile},
    seed::seed,
};
use tokio::{net::UdpSocket, time::timeout};

const SOON: Duration = Duration::from_secs(5);
const DATAGRAM: [u8; 1200] = [7; 1200];
/// Few enough for the buffers of a socket.
const BURST: u64 = 50;

#[tokio::test]
async fn a_lossy_relay_loses_the_share_it_was_told_and_counts_it() {
    const SENT: u64 = 4000;
    let (server, received) = sink().await;
    let proxy = UdpLossyProxy::start(server, Profile { loss: 0.2, ..CLEAN }, seed()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let seen = || proxy.to_server().packets + proxy.to_server().lost_packets;
    for sent in 1..=SENT {
        client.send_to(&DATAGRAM, proxy.address()).await.unwrap();
        if sent % BURST == 0 {
            wait_until("the relay to see every datagram", SOON, async || seen() == sent).await;
        }
    }
    let traffic = proxy.to_server();
    assert!((SENT / 6..SENT / 4).contains(&traffic.lost_packets), "{traffic:?}");
    assert_eq!(traffic.sent_bytes(), SENT * DATAGRAM.len() as u64);
    wait_until("the rest to arrive", SOON, async || received.load(Ordering::Relaxed) == traffic.packets).await;
}

#[tokio::test]
async fn a_cut_loses_everything_until_it_heals() {
    let (server, received) = sink().await;
    let proxy = UdpLossyProxy::start(server, CLEAN, seed()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    proxy.cut();
    client.send_to(&DATAGRAM, proxy.address()).await.unwrap();
    wait_until("the relay to lose it", SOON, async || proxy.to_server().lost_packets == 1).await;
    proxy.heal();
    client.send_to(&DATAGRAM, proxy.address()).await.unwrap();
    wait_until("the second to arrive", SOON, async || received.load(Ordering::Relaxed) == 1).await;
    assert_eq!(proxy.to_server().packets, 1);
}

#[tokio::test]
async fn delay_is_paid_both_ways_and_answers_reach_the_one_who_asked() {
    let delay = Duration::from_millis(60);
    let proxy = UdpLossyProxy::start(echo().await, Profile { delay, ..CLEAN }, seed()).await;
    let clients = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    for (number, client) in clients.iter().enumerate() {
        let asked = Instant::now();
        client.send_to(&[number as u8; 10], proxy.address()).await.unwrap();
        let mut answer = [9; 10];
        let (count, from) = timeout(SOON, client.recv_from(&mut answer)).await.unwrap().unwrap();
        assert_eq!((count, answer, from), (10, [number as u8; 10], proxy.address()));
        assert!(asked.elapsed() >= 2 * delay, "{:?}", asked.elapsed());
    }
    assert_eq!(proxy.to_client().packets, 2);
}

/// A server that only counts.
async fn sink() -> (SocketAddr, Arc<AtomicU64>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    tokio::spawn(async move {
        while socket.recv(&mut [0; 2000]).await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, received)
}

/// A server that says everything back.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..count], from).await;
        }
    });
    address
}
