use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use alexandria_e2e::{
    deadline::wait_until,
    line::{CLEAN, Profile},
    link::{self, BadLink},
    namespace::{Door, Namespace},
    seed::seed,
    skip,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a clean link to have delivered what it will.
const SILENCE: Duration = Duration::from_millis(300);
/// Few enough for the queues of a device.
const BURST: u64 = 50;

#[tokio::test]
async fn a_link_joins_two_hosts_with_the_delay_it_was_told() {
    let Some((a, b)) = hosts() else { return };
    let delay = Duration::from_millis(50);
    let link = BadLink::between(&a, &b, Profile { delay, ..CLEAN }, seed()).unwrap();
    for (from, to) in link.addresses_of_a().into_iter().zip(link.addresses_of_b()) {
        let server = echo(&b, to);
        let client = socket(&a, from);
        let asked = Instant::now();
        assert!(answers(&client, server, SOON).await, "{to}");
        assert!(asked.elapsed() >= 2 * delay, "{to}: {:?}", asked.elapsed());
    }
    assert!(link.a_to_b().bytes > 0 && link.b_to_a().bytes > 0);
}

#[tokio::test]
async fn a_link_reaches_a_namespace_from_the_machine_itself() {
    let Some((_, b)) = hosts() else { return };
    let link = BadLink::between(&Namespace::host(), &b, CLEAN, seed()).unwrap();
    let server = echo(&b, link.addresses_of_b()[0]);
    assert!(answers(&socket(&Namespace::host(), link.addresses_of_a()[0]), server, SOON).await);
}

#[tokio::test]
async fn a_cut_link_carries_nothing_until_it_heals() {
    let Some((a, b)) = hosts() else { return };
    let link = BadLink::between(&a, &b, CLEAN, seed()).unwrap();
    let server = echo(&b, link.addresses_of_b()[0]);
    let client = socket(&a, link.addresses_of_a()[0]);
    assert!(answers(&client, server, SOON).await);
    link.cut();
    assert!(!answers(&client, server, SILENCE).await);
    assert!(link.a_to_b().lost_packets > 0);
    link.heal();
    wait_until("the link to carry again", SOON, async || answers(&client, server, SILENCE).await).await;
}

#[tokio::test]
async fn a_lossy_link_loses_the_share_it_was_told() {
    const SENT: u64 = 2000;
    let Some((a, b)) = hosts() else { return };
    let link = BadLink::between(&a, &b, CLEAN, seed()).unwrap();
    let server = echo(&b, link.addresses_of_b()[0]);
    let client = socket(&a, link.addresses_of_a()[0]);
    // Neighbours find each other before the loss begins.
    assert!(answers(&client, server, SOON).await);
    link.set(Profile { loss: 0.3, ..CLEAN });
    let before = link.a_to_b();
    let seen = || {
        let now = link.a_to_b();
        (now.packets - before.packets, now.lost_packets - before.lost_packets)
    };
    for sent in 1..=SENT {
        client.send_to(&[7; 100], server).await.unwrap();
        if sent % BURST == 0 {
            wait_until("the link to see every packet", SOON, async || seen().0 + seen().1 >= sent).await;
        }
    }
    let (_, lost) = seen();
    assert!((SENT * 24 / 100..SENT * 36 / 100).contains(&lost), "{lost} of {SENT}");
}

#[tokio::test]
async fn a_door_leads_into_a_namespace_past_every_link() {
    let Some((_, b)) = hosts() else { return };
    let inside: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = b.within(|| std::net::TcpListener::bind(inside)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let door = Door::open(&Namespace::host(), inside, &b, listener.local_addr().unwrap()).unwrap();
    let mut outer = TcpStream::connect(door.address()).await.unwrap();
    let (mut inner, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    inner.write_u8(42).await.unwrap();
    assert_eq!(timeout(SOON, outer.read_u8()).await.unwrap().unwrap(), 42);
}

fn hosts() -> Option<(Namespace, Namespace)> {
    if let Some(reason) = link::unavailable() {
        skip::because(reason);
        return None;
    }
    Some((Namespace::create("a"), Namespace::create("b")))
}

fn socket(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = namespace.within(|| std::net::UdpSocket::bind((address, 0))).unwrap();
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket).unwrap()
}

/// A server that says everything back.
fn echo(namespace: &Namespace, address: IpAddr) -> SocketAddr {
    let socket = socket(namespace, address);
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..count], from).await;
        }
    });
    address
}

async fn answers(client: &UdpSocket, server: SocketAddr, deadline: Duration) -> bool {
    client.send_to(&[1], server).await.unwrap();
    timeout(deadline, client.recv(&mut [0; 10])).await.is_ok_and(|answer| answer.is_ok())
}
