//! What becomes of statements whose server is gone without a word.

use std::time::Duration;

use alexandria_cloud_bridge::postgres::{self, Config};

use crate::fixture::{Database, Outage};

/// Where a host dies or a firewall forgets a connection, nothing ever says so.
#[tokio::test]
async fn a_connection_that_fell_silent_makes_room_for_another() {
    let Some(database) = Database::new().await else { return };
    let relay = Outage::before(&database.address()).await;
    let config = Config { url: database.url_by(&relay.address), connections_max: 1, ..database.config() };
    let pool = postgres::pool(&config).unwrap();
    let mut connection = pool.acquire().await.unwrap();
    relay.silence();
    let never = sqlx::query("SELECT 1").execute(&mut *connection);
    assert!(tokio::time::timeout(Duration::from_millis(50), never).await.is_err());
    drop(connection);
    let answer: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await.unwrap();
    assert_eq!(answer, 1);
}
