use std::time::Duration;

use alexandria_e2e::{
    deadline::wait_until,
    postgres::{Postgres, Stop},
};

#[tokio::test]
async fn postgres_starts_and_answers() {
    let database = Postgres::shared().await.database().await;
    assert_eq!(database.number("SELECT 6 * 7::bigint").await, 42);
}

#[tokio::test]
async fn every_test_has_a_database_of_its_own_and_the_template_is_filled_once() {
    let cluster = Postgres::shared().await;
    let mut fillings = 0;
    let mut databases = Vec::new();
    for _ in 0..2 {
        let database = cluster.database_from("own_database_test", async |template| {
            fillings += 1;
            template.connect().await.batch_execute("CREATE TABLE book (title text)").await.unwrap();
        });
        databases.push(database.await);
    }
    databases[0].connect().await.batch_execute("INSERT INTO book VALUES ('Silas Marner')").await.unwrap();
    assert_eq!(databases[0].number("SELECT count(*) FROM book").await, 1);
    assert_eq!(databases[1].number("SELECT count(*) FROM book").await, 0);
    assert_eq!(fillings, 1);
}

#[tokio::test]
async fn a_stopped_postgres_refuses_and_comes_back_with_what_was_committed() {
    let mut cluster = Postgres::start().await;
    let database = cluster.database().await;
    let session = database.connect().await;
    session.batch_execute("CREATE TABLE book (title text); INSERT INTO book VALUES ('Felix Holt')").await.unwrap();
    for how in [Stop::Crash, Stop::Fast] {
        cluster.stop(how).await;
        assert!(tokio::net::TcpStream::connect(cluster.address()).await.is_err(), "{how:?}");
        wait_until("the session to be cut", Duration::from_secs(5), async || session.is_closed()).await;
        cluster.start_again().await;
        assert_eq!(database.number("SELECT count(*) FROM book").await, 1, "{how:?}");
    }
}
