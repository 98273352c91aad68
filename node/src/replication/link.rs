//! The link to the bridge under the operator's policy: whether it may be used now, and how far a session may go.
//!
//! The rules are `alexandria_sync::budget`; here they meet a clock, a disk and a connection. What a session may use is
//! counted on disk before ([`Link::open`], [`LinkUse::watch`]), so that a node that is killed has counted too much, never
//! too little.

mod config;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alexandria_sync::budget::account::CONNECT_BYTES;
use alexandria_sync::budget::{Account, Ledger, LinkPolicy, Spent, Word};
use alexandria_sync::driver::HostInput;
use alexandria_sync::hlc::ClockQuality;
use alexandria_sync::outlook::{BudgetLeft, Wait};
use alexandria_sync::quic::TransportConfig;
use alexandria_sync::quic::congestion::CongestionConfig;
use alexandria_sync::wire::CloseReason;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::LinkConfig;

use crate::library::Library;
use crate::store::Records;
use crate::store::link::{self, LinkCountError};

/// How often what has crossed the wire is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// And at most this often, however often a session says that it lacks something else.
const MEASURE_APART: Duration = Duration::from_millis(5);
/// A node that may not dial looks again after this long at the latest: its clock may have been set.
const LOOK_AGAIN: Duration = Duration::from_mins(10);
/// On a metered link a quiet connection says something this often.
const METERED_KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why the link may not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Its policy says so.
    #[error("{0}")]
    Held(Wait),
    /// The count cannot be read or kept.
    #[error(transparent)]
    Count(#[from] LinkCountError),
}

/// The link and what was used of it.
pub(super) struct Link {
    policy: LinkPolicy,
    metered: bool,
    data_dir: PathBuf,
    records: Records,
    started: Instant,
    /// As it is on disk; `None` until it was read.
    spent: Mutex<Option<Spent>>,
}

impl Link {
    pub(super) fn new(library: &Library, config: &LinkConfig) -> Self {
        Self {
            policy: config.policy(),
            metered: config.metered,
            data_dir: library.data_dir().to_owned(),
            records: library.store().records.clone(),
            started: Instant::now(),
            spent: Mutex::default(),
        }
    }

    /// How long the bridge may not be dialled, if so.
    pub(super) fn held_for(&self) -> Option<(Wait, Duration)> {
        let ledger = self.ledger().ok()?;
        let (now_unix_ms, now_ms) = self.now(&ledger);
        let account = Account::open(ledger, now_unix_ms, now_ms);
        let hold = account.hold(now_unix_ms)?;
        let wait_ms = hold.until_unix_ms().saturating_sub(now_unix_ms);
        Some((Wait::held(hold, self.policy.offset), Duration::from_millis(wait_ms).min(LOOK_AGAIN)))
    }

    /// What is left of the budgets, if there are any.
    pub(super) fn budget_left(&self) -> Option<BudgetLeft> {
        let ledger = self.ledger().ok().filter(|ledger| ledger.policy().has_budget())?;
        let left = ledger.left(self.now(&ledger).0);
        Some(BudgetLeft { all_bytes: left.all_bytes, content_bytes: left.content_bytes })
    }

    /// Counts what an attempt to connect may use, durably.
    ///
    /// # Errors
    ///
    /// [`LinkError::Held`] if the link may not be used now.
    pub(super) async fn open(self: &Arc<Self>) -> Result<LinkUse, LinkError> {
        let ledger = self.ledger()?;
        let (now_unix_ms, now_ms) = self.now(&ledger);
        let mut account = Account::open(ledger, now_unix_ms, now_ms);
        if let Some(hold) = account.hold(now_unix_ms) {
            return Err(LinkError::Held(Wait::held(hold, self.policy.offset)));
        }
        if let Some(spent) = account.reserve(None, now_unix_ms) {
            self.keep(spent).await?;
        }
        account.kept();
        Ok(LinkUse { link: Arc::clone(self), account })
    }

    /// Whether sessions are told how far they may go.
    fn gives_credit(&self) -> bool {
        self.policy.has_budget() || self.policy.rate_bytes_per_s.is_some()
    }

    fn ledger(&self) -> Result<Ledger, LinkCountError> {
        if !self.policy.has_budget() {
            return Ok(Ledger::new(self.policy.clone(), Spent::default()));
        }
        let mut known = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = match &*known {
            Some(spent) => spent.clone(),
            None => known.insert(link::spent(&self.data_dir)?).clone(),
        };
        Ok(Ledger::new(self.policy.clone(), spent))
    }

    async fn keep(&self, spent: Spent) -> Result<(), LinkCountError> {
        let (data_dir, kept) = (self.data_dir.clone(), spent.clone());
        let keeping = tokio::task::spawn_blocking(move || link::keep_spent(&data_dir, &kept));
        keeping.await.unwrap_or(Err(LinkCountError::Closed))?;
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = Some(spent);
        Ok(())
    }

    /// The time that counts for budgets, and that on a clock that never goes back.
    fn now(&self, ledger: &Ledger) -> (u64, u64) {
        let is_trusted = self.records.clock_quality() == ClockQuality::Trusted;
        let unix_ms = ledger.time(self.records.now_unix_ms(), is_trusted);
        (unix_ms, self.started.elapsed().as_millis() as u64)
    }
}

/// The use of the link for one attempt to connect, and the session that may come of it.
pub(super) struct LinkUse {
    link: Arc<Link>,
    account: Account,
}

impl LinkUse {
    /// The limits that its connection is to have.
    pub(super) fn transport(&self) -> TransportConfig {
        let exposure = self.account.exposure();
        let usual = TransportConfig::default();
        TransportConfig {
            lane_window_bytes: exposure.lane_window_bytes.min(usual.lane_window_bytes),
            send_window_bytes: exposure.send_window_bytes.min(usual.send_window_bytes),
            keep_alive: if self.link.metered { METERED_KEEP_ALIVE } else { usual.keep_alive },
            is_sparing: self.link.metered,
            congestion: CongestionConfig {
                rate_limit_bits_per_s: self.link.policy.rate_bytes_per_s.map(|rate| rate * 8),
            },
            ..usual
        }
    }

    /// What its session may begin with.
    pub(super) fn credit(&self) -> Option<Word> {
        self.link.gives_credit().then(|| self.account.word(self.link.now(self.account.ledger()).0))
    }

    /// No connection came about.
    pub(super) async fn failed(mut self) {
        let (now_unix_ms, now_ms) = self.link.now(self.account.ledger());
        self.account.measure(CONNECT_BYTES, now_unix_ms, now_ms);
        self.close().await;
    }

    /// Measures the connection until [`Watching::finish`], tells the session how far it may go, and ends it when it must.
    /// `wire_bytes` tells what has crossed, both ways; `waits` gets why something waits.
    pub(super) fn watch(
        self,
        wire_bytes: impl Fn() -> u64 + Send + Sync + 'static,
        session: mpsc::Sender<HostInput>,
        waits: impl Fn(Option<Wait>) + Send + Sync + 'static,
    ) -> Watching {
        let (short, lacks) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let watch = Watch { link_use: self, wire_bytes, session, waits, lacks, measured: 0 };
        Watching { short, stop, task: tokio::spawn(watch.run(stopped)) }
    }

    async fn close(self) {
        let Self { link, account } = self;
        let (now_unix_ms, now_ms) = link.now(account.ledger());
        let ledger = account.close(now_unix_ms, now_ms);
        if link.policy.has_budget()
            && let Err(error) = link.keep(ledger.spent().clone()).await
        {
            // More is counted than was used.
            tracing::warn!(%error, "what a session did not use of the link was not given back");
        }
    }
}

/// A session whose use of the link is being measured.
pub(super) struct Watching {
    short: watch::Sender<Option<u64>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Watching {
    /// Where to say what content lacks.
    pub(super) fn short(&self) -> watch::Sender<Option<u64>> {
        self.short.clone()
    }

    /// Measures once more, now that the connection is gone, and gives back what was not used.
    pub(super) async fn finish(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the use of the link is no longer measured");
        }
    }
}

struct Watch<B, W> {
    link_use: LinkUse,
    wire_bytes: B,
    session: mpsc::Sender<HostInput>,
    waits: W,
    lacks: watch::Receiver<Option<u64>>,
    measured: u64,
}

impl<B: Fn() -> u64 + Send + Sync, W: Fn(Option<Wait>) + Send + Sync> Watch<B, W> {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut due = tokio::time::interval(MEASURE_EVERY);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let link = &self.link_use.link;
        let mut goes_on = link.gives_credit() || !link.policy.hours.is_empty();
        let mut not_before = Instant::now();
        while !*stopped.borrow() {
            let lacks_more = async {
                tokio::time::sleep_until(not_before).await;
                self.lacks.changed().await
            };
            tokio::select! {
                _ = stopped.changed() => break,
                _ = due.tick(), if goes_on => {}
                Ok(()) = lacks_more, if goes_on => {}
            }
            goes_on = goes_on && self.look().await;
            not_before = Instant::now() + MEASURE_APART;
        }
        self.measure();
        self.link_use.close().await;
    }

    /// Measures, reserves, tells. Returns whether the session goes on.
    async fn look(&mut self) -> bool {
        let short = *self.lacks.borrow_and_update();
        let now_unix_ms = self.measure();
        let LinkUse { link, account } = &mut self.link_use;
        if let Some(spent) = account.reserve(short, now_unix_ms)
            && let Err(error) = link.keep(spent).await
        {
            tracing::error!(%error, "the session ends: its use of the link cannot be counted");
            self.stop(error.to_string()).await;
            return false;
        }
        account.kept();
        if let Some(hold) = account.hold(now_unix_ms) {
            let wait = Wait::held(hold, link.policy.offset);
            tracing::info!(%wait, "the session ends");
            (self.waits)(Some(wait.clone()));
            self.stop(wait.to_string()).await;
            return false;
        }
        let hold = short.and_then(|short| account.content_hold(short, now_unix_ms));
        (self.waits)(hold.map(|hold| Wait::content_held(hold, link.policy.offset)));
        if link.gives_credit() {
            // A session that is gone needs no word, and one that is too busy to take it gets the next.
            let _ = self.session.try_send(HostInput::Credit(account.word(now_unix_ms)));
        }
        true
    }

    fn measure(&mut self) -> u64 {
        let crossed = (self.wire_bytes)();
        let LinkUse { link, account } = &mut self.link_use;
        let (now_unix_ms, now_ms) = link.now(account.ledger());
        account.measure(crossed.saturating_sub(self.measured), now_unix_ms, now_ms);
        self.measured = crossed.max(self.measured);
        now_unix_ms
    }

    async fn stop(&self, text: String) {
        let _ = self.session.send(HostInput::Stop(CloseReason::GoingAway, text)).await;
    }
}
