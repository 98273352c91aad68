use std::{net::SocketAddr, time::Duration};

use alexandria_e2e::{
    aws::Aws,
    deadline::wait_until,
    http::{self, HttpError},
    outage::{OutageProxy, Passage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for loopback to have delivered what it will.
const SILENCE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_cut_resets_connections_in_use_and_takes_new_ones() {
    let proxy = OutageProxy::start(echo().await).await;
    let mut connection = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(answers(&mut connection).await);
    proxy.cut();
    let error = timeout(SOON, connection.read_u8()).await.expect("a cut is noticed").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn a_refused_passage_is_a_server_that_is_down() {
    let proxy = OutageProxy::start(echo().await).await;
    let mut connection = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(answers(&mut connection).await);
    proxy.set(Passage::Refused);
    assert!(!answers(&mut connection).await);
    let refuses = async || TcpStream::connect(proxy.address()).await.is_err();
    wait_until("the port to refuse", SOON, refuses).await;
    proxy.set(Passage::Open);
    wait_until("the port to answer again", SOON, async || !refuses().await).await;
    assert!(answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await);
}

#[tokio::test]
async fn a_silent_passage_keeps_connections_and_delivers_later() {
    let proxy = OutageProxy::start(echo().await).await;
    let mut connection = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(answers(&mut connection).await);
    proxy.set(Passage::Silent);
    connection.write_u8(7).await.unwrap();
    assert!(timeout(SILENCE, connection.read_u8()).await.is_err(), "nothing comes through");
    proxy.set(Passage::Open);
    assert_eq!(timeout(SOON, connection.read_u8()).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn s3_behind_a_proxy_goes_away_and_comes_back_with_its_objects() {
    let aws = Aws::start().await;
    let proxy = OutageProxy::start(aws.address()).await;
    let url = format!("{}/shelf/book", proxy.url());
    aws.s3().create_bucket("shelf").await;
    aws.s3().put("shelf", "book", "text").await;
    let signed = || {
        http::get(&url).header("authorization", "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request")
    };
    assert_eq!(signed().ok().await.text(), "text");
    assert!(proxy.to_client_bytes() > 0 && proxy.to_server_bytes() > 0);
    proxy.set(Passage::Refused);
    assert!(matches!(signed().send().await, Err(HttpError::Send { .. })));
    proxy.set(Passage::Open);
    wait_until("S3 to be back", SOON, async || signed().send().await.is_ok_and(|answer| answer.body == "text")).await;
}

/// A server that says everything back.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = connection.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn answers(connection: &mut TcpStream) -> bool {
    let both_ways = async {
        connection.write_u8(1).await?;
        connection.read_u8().await
    };
    timeout(SOON, both_ways).await.is_ok_and(|answer| answer.is_ok())
}
