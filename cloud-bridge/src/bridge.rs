//! The composition root: opens the stores, starts the servers and the loops, and ends them in order.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use alexandria_api::serve::{serve as serve_http, without_delay};
use alexandria_sync::quic::{self, TransportConfig};
use alexandria_sync::tcp::{self, TcpConfig};
use alexandria_sync::tls::ServerTls;
use alexandria_sync::transport::Listener;
use anyhow::{Context, bail};
use aws_config::SdkConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aws;
use crate::bundle::Bundles;
use crate::catalogue::Library;
use crate::config::Config;
use crate::content::Content;
use crate::events::Publisher;
use crate::fleet::Fleet;
use crate::fleet::iot::Reconciler;
use crate::fleet::listener::{self, TlsListener};
use crate::http::{self, Served};
use crate::metrics::Metrics;
use crate::postgres::absence::collect_interval;
use crate::postgres::{self, Records, words};
use crate::replication::{REVOCATION_INTERVAL, Replication};

/// How often openings are written down.
const OPENS_INTERVAL: Duration = Duration::from_secs(5);
/// How often the quarantine is looked through.
const QUARANTINE_INTERVAL: Duration = Duration::from_secs(30);
/// How often erased content is looked for.
const ERASURE_INTERVAL: Duration = Duration::from_secs(30);
/// An erasure that this process writes is visible after this, as a rule.
const ERASURE_COMMITTED_WITHIN: Duration = Duration::from_millis(200);
/// How often what is abandoned is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_mins(15);
/// What is done again and again is broken off after this, and begun again: a server may be gone without a word.
const ACT_MAX: Duration = Duration::from_mins(5);
/// How long the loops may take to end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(20);

/// Serves until the process is told to stop (SIGTERM or SIGINT).
///
/// # Errors
///
/// If something cannot be started; once everything runs, outages are waited out.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let running = start(config, stop.clone()).await?;
    println!("listening on http://{}", running.http);
    println!("listening on https://{}", running.enrolment);
    println!("listening on quic://{}", running.quic);
    if let Some(tcp) = running.tcp {
        println!("listening on tls://{tcp}");
    }
    wait_for_signal().await?;
    tracing::info!("shutting down");
    stop.cancel();
    running.end().await;
    Ok(())
}

/// A bridge that runs in this process.
pub struct Running {
    /// Where operators are served.
    pub http: SocketAddr,
    /// Where nodes enrol.
    pub enrolment: SocketAddr,
    /// Where nodes replicate over QUIC.
    pub quic: SocketAddr,
    /// Where nodes replicate over TCP, if they may.
    pub tcp: Option<SocketAddr>,
    tasks: TaskTracker,
}

impl Running {
    /// Waits until everything has ended, after the token was cancelled.
    pub async fn end(self) {
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("not everything has ended in time; what was durable stays");
        }
    }
}

/// Starts everything; it ends when `stop` is cancelled.
///
/// # Errors
///
/// If something cannot be started.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Running> {
    let metrics = Metrics::new();
    let pool = postgres::pool(&config.postgres).context("postgres.url")?;
    postgres::migrate(&pool).await.context("migrate the database")?;
    let is_announced = config.events.topic_arn.is_some();
    let records = Records::open(pool.clone(), &config.postgres, is_announced, metrics.clone())
        .await
        .context("open the record store")?;
    let bridge_id = records.identity().node_id();
    let fleet = Fleet::open(pool.clone(), config.fleet.clone(), metrics.clone()).await.context("open the fleet")?;
    let identity = fleet.authority().bridge_identity(bridge_id).context("make the bridge's certificate")?;
    let secret =
        fleet.authority().ticket_secret(config.fleet.ticket_secret.as_deref()).context("make session tickets")?;
    let tls = ServerTls::new(&identity.transport, &secret).context("use the bridge's certificate")?;

    let aws = aws::load(&config.aws).await;
    let content = Content::new(records.clone(), s3(&aws, &config), config.content.clone(), metrics.clone());
    let library = Library::new(records.clone(), content.clone(), stop.clone());

    let http = TcpListener::bind(config.http.listen).await.context("http.listen")?;
    let http_address = http.local_addr().context("http.listen")?;
    let enrolment =
        TlsListener::bind(config.enrolment.listen, &identity, stop.clone()).await.context("enrolment.listen")?;
    let enrolment_address = axum::serve::Listener::local_addr(&enrolment).context("enrolment.listen")?;
    let transport = TransportConfig { incoming_max: config.quic.handshakes_max, ..TransportConfig::default() };
    let quic = quic::Listener::bind(config.quic.listen, &tls, &transport);
    let quic = quic.context("quic.listen")?;
    let quic_address = quic.local_addr().context("quic.listen")?;
    let tcp = if config.tcp.enabled {
        let address = config.tcp.listen.unwrap_or(quic_address);
        Some(tcp::Listener::bind(address, &tls, &TcpConfig::default()).context("tcp.listen")?)
    } else {
        None
    };
    let tcp_address = tcp.as_ref().map(tcp::Listener::local_addr);
    let public = |address: Option<&String>, listening: SocketAddr| {
        address.cloned().unwrap_or_else(|| format!(":{}", listening.port()))
    };
    let told = listener::Addresses {
        quic: public(config.quic.public_address.as_ref(), quic_address),
        tcp: tcp_address.map(|listening| public(config.tcp.public_address.as_ref(), listening)),
    };

    let tasks = TaskTracker::new();
    let served = Served {
        library: library.clone(),
        fleet: fleet.clone(),
        records: records.clone(),
        content: content.clone(),
        pool,
        metrics: metrics.clone(),
    };
    let operator_routes = http::router(&served, &config.http.operator_token);
    let limits = config.http.limits.clone();
    tasks.spawn(serve_until(without_delay(http), operator_routes, limits.clone(), stop.clone()));
    let enrolment_routes = listener::router(fleet.clone(), bridge_id, told);
    tasks.spawn(serve_until(enrolment, enrolment_routes, limits, stop.clone()));
    let replication =
        Replication::new(records.clone(), content.clone(), fleet.clone(), config.quic.clone(), metrics.clone());
    tasks.spawn(replication.serve(Listener::new(quic, tcp), stop.clone()));

    tasks.spawn(records.clone().watch_heads(stop.clone()));
    if config.iot.enabled {
        let reconciler = Reconciler::new(fleet.clone(), aws_sdk_iot::Client::new(&aws), metrics.clone());
        tasks.spawn(reconciler.run(stop.clone()));
    }
    if let Some(publisher) =
        Publisher::new(records.clone(), aws_sdk_sns::Client::new(&aws), &config.events, metrics.clone())
    {
        for _ in 0..config.events.workers.max(1) {
            tasks.spawn(publisher.clone().run(stop.clone()));
        }
    }
    repeat(&tasks, &stop, (content.lease_renewal_interval(), content.lease()), "renew leases", {
        let content = content.clone();
        move || {
            let content = content.clone();
            async move { content.renew_leases().await.map_err(anyhow::Error::from) }
        }
    });
    tasks.spawn(purge_erased(records.clone(), content.clone(), stop.clone()));
    repeat(&tasks, &stop, (SWEEP_INTERVAL, ACT_MAX), "sweep", move || {
        let content = content.clone();
        async move { content.sweep().await.map_err(anyhow::Error::from) }
    });
    let lease = fleet.lease();
    repeat(&tasks, &stop, (collect_interval(lease), ACT_MAX), "forget tombstones", {
        let records = records.clone();
        move || {
            let records = records.clone();
            async move { records.collect_tombstones(lease).await.map(|_| ()).map_err(anyhow::Error::from) }
        }
    });
    repeat(&tasks, &stop, (REVOCATION_INTERVAL, ACT_MAX), "tell nodes who was revoked", {
        let records = records.clone();
        move || {
            let (fleet, records) = (fleet.clone(), records.clone());
            async move { fleet.tell_of_revoked(&records).await.map(|_| ()).map_err(anyhow::Error::from) }
        }
    });
    repeat(&tasks, &stop, (words::INTERVAL, ACT_MAX), "make the words to search in", {
        let records = records.clone();
        move || {
            let records = records.clone();
            async move { records.make_due_words().await.map(|_| ()).map_err(anyhow::Error::from) }
        }
    });
    repeat(&tasks, &stop, (QUARANTINE_INTERVAL, ACT_MAX), "replay the quarantine", move || {
        let records = records.clone();
        async move { records.replay_quarantine().await.map(|_| ()).map_err(anyhow::Error::from) }
    });
    repeat(&tasks, &stop, (OPENS_INTERVAL, ACT_MAX), "write down openings", {
        let library = library.clone();
        move || {
            let library = library.clone();
            async move { library.flush_opens().await.map_err(anyhow::Error::from) }
        }
    });
    tasks.spawn(async move {
        stop.cancelled().await;
        if let Err(error) = library.flush_opens().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last openings were not written down");
        }
    });
    Ok(Running { http: http_address, enrolment: enrolment_address, quic: quic_address, tcp: tcp_address, tasks })
}

/// Opens what bundles are written from and taken into, beside whatever else runs on the same database.
///
/// # Errors
///
/// If something cannot be opened.
pub async fn open_bundles(config: Config) -> anyhow::Result<Bundles> {
    let metrics = Metrics::new();
    let pool = postgres::pool(&config.postgres).context("postgres.url")?;
    if !postgres::is_migrated(&pool).await.context("look at the database")? {
        bail!("the database is of an earlier version: `alexandria-bridge migrate` brings it up to date");
    }
    let is_announced = config.events.topic_arn.is_some();
    let records = Records::open(pool.clone(), &config.postgres, is_announced, metrics.clone())
        .await
        .context("open the record store")?;
    let aws = aws::load(&config.aws).await;
    let content = Content::new(records.clone(), s3(&aws, &config), config.content.clone(), metrics.clone());
    content.check().await.context("content.bucket")?;
    let fleet = Fleet::open(pool, config.fleet, metrics).await.context("open the fleet")?;
    Bundles::new(records, content, fleet).context("make the bridge's certificate")
}

fn s3(aws: &SdkConfig, config: &Config) -> aws_sdk_s3::Client {
    let s3 = aws_sdk_s3::config::Builder::from(aws).force_path_style(config.content.path_style).build();
    aws_sdk_s3::Client::from_conf(s3)
}

async fn serve_until<L>(
    listener: L,
    router: axum::Router,
    limits: alexandria_api::serve::ServerLimits,
    stop: CancellationToken,
) where
    L: axum::serve::Listener,
    L::Addr: Clone + Send + Sync + 'static,
{
    serve_http(listener, router, &limits, stop.cancelled_owned()).await;
}

/// Takes erased content out of S3: soon after each erasure, and now and then in case another process was to do it.
async fn purge_erased(records: Records, content: Content, stop: CancellationToken) {
    loop {
        let purged = tokio::time::timeout(ACT_MAX, content.purge_erased());
        match purged.await.map_err(anyhow::Error::from).and_then(|purged| Ok(purged?)) {
            Ok(0) => {}
            Ok(blobs) => tracing::info!(blobs, "saw to content that was erased"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "erased content could not be removed; it is tried again");
            }
        }
        tokio::select! {
            () = records.erased() => tokio::time::sleep(ERASURE_COMMITTED_WITHIN).await,
            () = tokio::time::sleep(ERASURE_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Does something again and again until told to stop. A failure is for the next time, and so is what takes too long.
fn repeat<F>(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    (every, at_most): (Duration, Duration),
    what: &'static str,
    act: impl Fn() -> F + Send + 'static,
) where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let stop = stop.clone();
    tasks.spawn(async move {
        let mut due = tokio::time::interval(every);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let acted = tokio::select! {
                _ = due.tick() => tokio::select! {
                    acted = tokio::time::timeout(at_most, act()) => acted.unwrap_or_else(|elapsed| Err(elapsed.into())),
                    // Whatever it was doing, another process or the next start can take it up.
                    () = stop.cancelled() => return,
                },
                () = stop.cancelled() => return,
            };
            if let Err(error) = acted {
                tracing::warn!(error = format!("{error:#}"), "could not {what}; it is tried again");
            }
        }
    });
}

async fn wait_for_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_never_ends_is_broken_off_and_begun_again() {
        let (tasks, stop, begun) = (TaskTracker::new(), CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let pace = (Duration::from_millis(1), Duration::from_millis(10));
        repeat(&tasks, &stop, pace, "wait for ever", {
            let begun = Arc::clone(&begun);
            move || {
                begun.add_permits(1);
                std::future::pending()
            }
        });
        let again = tokio::time::timeout(Duration::from_secs(30), begun.acquire_many(3)).await;
        again.expect("it is begun again").expect("it stays open").forget();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
