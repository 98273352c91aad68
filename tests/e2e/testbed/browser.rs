use alexandria_e2e::{browser, reaper, skip};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn a_scenario_clicks_through_a_site_and_leaves_a_screenshot() {
    if let Some(reason) = browser::unavailable() {
        return skip::because(reason);
    }
    let folder = reaper::folder("browser");
    let visit = browser::visit("driver_works", &site("Second").await, folder.path()).await;
    visit.assert_good();
    let picture = std::fs::read(folder.path().join("second.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
}

#[tokio::test]
async fn a_check_that_does_not_hold_is_reported() {
    if let Some(reason) = browser::unavailable() {
        return skip::because(reason);
    }
    let folder = reaper::folder("browser");
    let visit = browser::visit("driver_works", &site("Wrong").await, folder.path()).await;
    assert_eq!(visit.result["ok"], false);
    let broken: Vec<_> = visit.checks.iter().filter(|(_, held)| !held).map(|(name, _)| name.as_str()).collect();
    assert_eq!(broken, ["the link leads on"]);
}

/// A site of two pages. Returns its URL.
async fn site(second_heading: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, second_heading));
        }
    });
    url
}

async fn answer(mut connection: TcpStream, second_heading: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut connection).lines();
    let asked = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let page = if asked.starts_with("GET /second ") {
        format!("<link rel=icon href=data:,><h1>{second_heading}</h1>")
    } else {
        "<link rel=icon href=data:,><h1>First</h1><a href=/second>on</a>".to_owned()
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length";
    connection.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes()).await
}
