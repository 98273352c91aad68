//! What works in the background of a node, by name.
//!
//! Workers go on until the node is told to stop. One that ends before, or panics, ends the node: without it the node would look sound
//! and be without replication, or search. Whoever started the node starts it anew. An errand may end; it may not panic either.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// The workers of a node. Dropped, it ends them where they are.
#[derive(Default)]
pub(super) struct Workers {
    running: JoinSet<()>,
    told_of: HashMap<Id, Worker>,
}

#[derive(Clone, Copy)]
struct Worker {
    name: &'static str,
    may_end: bool,
}

/// Why a node cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerLost {
    /// It is not there any more, and nobody knows why.
    #[error("{name} ended before it was told to")]
    Ended {
        /// Which.
        name: &'static str,
    },
    /// It panicked.
    #[error("{name} failed")]
    Failed {
        /// Which.
        name: &'static str,
        /// How.
        source: JoinError,
    },
}

impl Workers {
    /// Starts what goes on until the node stops.
    pub(super) fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.add(Worker { name, may_end: false }, work);
    }

    /// Starts what may be done before the node stops.
    pub(super) fn spawn_errand(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.add(Worker { name, may_end: true }, work);
    }

    fn add(&mut self, worker: Worker, work: impl Future<Output = ()> + Send + 'static) {
        self.told_of.insert(self.running.spawn(work).id(), worker);
    }

    /// Resolves with the first one that is lost, and never if none is. May be dropped and called again.
    pub(super) async fn lost(&mut self) -> WorkerLost {
        while let Some(ended) = self.running.join_next_with_id().await {
            match self.seen_to(ended) {
                Ok(Worker { name, may_end: false }) => return WorkerLost::Ended { name },
                Ok(_) => {}
                Err(lost) => return lost,
            }
        }
        std::future::pending().await
    }

    /// Waits until all have ended, as they were told to.
    ///
    /// # Errors
    ///
    /// [`WorkerLost`] if one failed instead; the others have ended as well.
    pub(super) async fn ended(mut self) -> Result<(), WorkerLost> {
        let mut all = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            all = all.and(self.seen_to(ended).map(drop));
        }
        all
    }

    fn seen_to(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<Worker, WorkerLost> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let worker = self.told_of.remove(&id).expect("all that runs was added");
        match ended {
            Ok(_) => Ok(worker),
            Err(source) => Err(WorkerLost::Failed { name: worker.name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn lost(workers: &mut Workers) -> String {
        let lost = tokio::time::timeout(DEADLINE, workers.lost()).await.expect("somebody notices");
        format!("{:#}", anyhow::Error::from(lost))
    }

    #[tokio::test]
    async fn a_worker_that_panics_or_ends_is_lost_by_name_while_others_go_on() {
        let mut workers = Workers::default();
        workers.spawn("steady work", std::future::pending());
        workers.spawn("frail work", async { panic!("a bug") });
        let said = lost(&mut workers).await;
        assert!(said.starts_with("frail work failed") && said.contains("a bug"), "{said}");
        workers.spawn("lazy work", async {});
        assert_eq!(lost(&mut workers).await, "lazy work ended before it was told to");
    }

    #[tokio::test]
    async fn an_errand_may_end_but_not_panic() {
        let mut workers = Workers::default();
        let (done, is_done) = oneshot::channel::<()>();
        workers.spawn_errand("an errand", async move { drop(done) });
        workers.spawn_errand("a bad errand", async move {
            assert!(is_done.await.is_ok(), "the other one is done");
        });
        let said = lost(&mut workers).await;
        assert!(said.starts_with("a bad errand failed"), "{said}");
    }

    #[tokio::test]
    async fn all_have_ended_before_a_failure_on_the_way_is_told() {
        let mut workers = Workers::default();
        let (go, told) = oneshot::channel::<()>();
        workers.spawn("frail work", async move {
            drop(go);
            panic!("a bug");
        });
        let (ends, has_ended) = oneshot::channel();
        workers.spawn("steady work", async move {
            let _ = told.await;
            let _ = ends.send(());
        });
        let ended = workers.ended().await;
        assert!(matches!(ended, Err(WorkerLost::Failed { name: "frail work", .. })), "{ended:?}");
        assert_eq!(has_ended.await, Ok(()));
    }
}
