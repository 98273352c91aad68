//! What becomes of statements whose server is gone without a word, or which take long.

use std::time::Duration;

use alexandria_cloud_bridge::postgres::{self, Config};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

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

/// Where there is much, a step takes longer than any statement of a bridge that serves.
#[tokio::test]
async fn a_migration_takes_the_time_it_needs() {
    let Some(database) = Database::empty().await else { return };
    let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ \
         BEGIN IF current_query() LIKE '%words_due%' THEN PERFORM pg_sleep(1); END IF; END $$; \
         CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&database.pool()).await.unwrap();
    let options: PgConnectOptions = database.url().parse().unwrap();
    let pool = PgPool::connect_lazy_with(options.options([("statement_timeout", "700")]));
    postgres::migrate(&pool).await.unwrap();
    assert!(postgres::is_migrated(&pool).await.unwrap());
    let left: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&pool).await.unwrap();
    assert_eq!(left, "700ms", "what serves has its limit again");
}
