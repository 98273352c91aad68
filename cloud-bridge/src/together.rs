//! One statement for all who ask at the same time.
//!
//! After an outage thousands of nodes come at once, and each asks PostgreSQL for the same few things. Whoever asks while a statement is
//! under way waits, and the next one asks for all who wait: alone, nobody waits, and nothing is older than its question.

use std::error::Error;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Questions that were cut off with whoever asked for all, in a row, at most.
const CUT_OFF_MAX: usize = 8;

/// Questions `Q` that wait, their answers `A`, and the errors `E`.
#[derive(Debug)]
pub(crate) struct Together<Q, A, E = sqlx::Error> {
    patience: Duration,
    statement_max: Duration,
    waiting: Mutex<Vec<Waiting<Q, A, E>>>,
    turn: tokio::sync::Mutex<()>,
}

type Waiting<Q, A, E> = (Q, oneshot::Sender<Result<A, E>>);

impl<Q: Clone, A, E: Error + From<sqlx::Error>> Together<Q, A, E> {
    /// Nobody waits longer than `patience` for the statement before its own, and no statement has its turn for longer than
    /// `statement_max`.
    pub(crate) fn new(patience: Duration, statement_max: Duration) -> Self {
        Self { patience, statement_max, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Asks one question, and with it, perhaps, those of others: `all` gives an answer for each, in their order, which is that in
    /// which they were asked.
    ///
    /// # Errors
    ///
    /// Those of `all`; [`sqlx::Error::PoolTimedOut`] if the turn does not come in time; [`sqlx::Error::Io`] if the statement takes too long.
    pub(crate) async fn ask<F>(&self, question: Q, all: impl Fn(Vec<Q>) -> F) -> Result<A, E>
    where
        F: Future<Output = Result<Vec<A>, E>>,
    {
        for _ in 0..CUT_OFF_MAX {
            let (sender, mut answer) = oneshot::channel();
            self.waiting().push((question.clone(), sender));
            let turn = tokio::time::timeout(self.patience, self.turn.lock()).await;
            match answer.try_recv() {
                Ok(answer) => return answer,
                // Whoever asked for all was cut off.
                Err(oneshot::error::TryRecvError::Closed) => continue,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let Ok(_turn) = turn else {
                drop(answer);
                self.waiting().retain(|(_, sender)| !sender.is_closed());
                return Err(sqlx::Error::PoolTimedOut.into());
            };
            let (questions, senders): (Vec<Q>, Vec<_>) = std::mem::take(&mut *self.waiting()).into_iter().unzip();
            // Whoever hangs gives up its turn: a server may be gone without a word.
            let answered = tokio::time::timeout(self.statement_max, all(questions)).await;
            match answered.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into()).into())) {
                Ok(answers) => {
                    for (sender, answer) in senders.into_iter().zip(answers) {
                        // Who has gone does not mind.
                        let _ = sender.send(Ok(answer));
                    }
                }
                Err(error) => {
                    for sender in senders {
                        let others = sqlx::Error::Protocol(format!("asked together with others: {error}"));
                        let _ = sender.send(Err(others.into()));
                    }
                    return Err(error);
                }
            }
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
        }
        Err(sqlx::Error::PoolTimedOut.into())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting<Q, A, E>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const STATEMENT_MAX: Duration = Duration::from_mins(1);

    fn twice(questions: &[u32]) -> Vec<u32> {
        questions.iter().map(|question| question * 2).collect()
    }

    #[tokio::test]
    async fn who_asks_while_a_statement_is_under_way_shares_the_next_one() {
        let (together, statements) =
            (Arc::new(Together::<u32, u32>::new(PATIENCE, STATEMENT_MAX)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let asked: Vec<_> = (0..100)
            .map(|question: u32| {
                let (together, statements, gate) = (Arc::clone(&together), Arc::clone(&statements), Arc::clone(&gate));
                tokio::spawn(async move {
                    let all = async |questions: Vec<u32>| {
                        statements.fetch_add(1, Ordering::Relaxed);
                        gate.acquire().await.expect("it stays open").forget();
                        Ok(twice(&questions))
                    };
                    together.ask(question, all).await.expect("it is answered")
                })
            })
            .collect();
        // All have asked before the first one is answered.
        while together.waiting().len() < 99 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        for (question, answer) in (0..).zip(asked) {
            assert_eq!(answer.await.unwrap(), question * 2);
        }
        assert_eq!(statements.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_and_the_next_question_is_asked_again() {
        let (together, statements) = (Together::<u32, u32>::new(PATIENCE, STATEMENT_MAX), AtomicUsize::new(0));
        let fails = async |_: Vec<u32>| {
            statements.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(sqlx::Error::WorkerCrashed)
        };
        // The second one asks for itself and the third.
        let all = tokio::join!(together.ask(1, fails), together.ask(2, fails), together.ask(3, fails));
        assert!(all.0.is_err() && all.1.is_err() && all.2.is_err());
        assert_eq!(statements.load(Ordering::Relaxed), 2);
        assert_eq!(together.ask(4, async |questions: Vec<u32>| Ok(twice(&questions))).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn who_is_cut_off_while_asking_for_all_leaves_nobody_without_an_answer() {
        let (together, statements) =
            (Arc::new(Together::<u32, u32>::new(PATIENCE, STATEMENT_MAX)), Arc::new(AtomicUsize::new(0)));
        let hangs = |question| {
            let (together, statements) = (Arc::clone(&together), Arc::clone(&statements));
            tokio::spawn(async move {
                let all = async |_: Vec<u32>| {
                    statements.fetch_add(1, Ordering::Relaxed);
                    std::future::pending().await
                };
                together.ask(question, all).await
            })
        };
        let until = async |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        let alone = hangs(1);
        until(&|| statements.load(Ordering::Relaxed) == 1).await;
        let for_two = hangs(2);
        until(&|| together.waiting().len() == 1).await;
        let last = tokio::spawn({
            let together = Arc::clone(&together);
            async move { together.ask(3, async |questions: Vec<u32>| Ok(twice(&questions))).await }
        });
        until(&|| together.waiting().len() == 2).await;
        alone.abort();
        until(&|| statements.load(Ordering::Relaxed) == 2 && together.waiting().is_empty()).await;
        for_two.abort();
        assert_eq!(last.await.unwrap().unwrap(), 6);
    }

    #[tokio::test]
    async fn nobody_waits_for_its_turn_for_ever() {
        let together = Together::<u32, u32>::new(Duration::from_millis(10), STATEMENT_MAX);
        let hangs = together.ask(1, async |_: Vec<u32>| std::future::pending().await);
        let waits = together.ask(2, async |questions: Vec<u32>| Ok(twice(&questions)));
        tokio::select! {
            biased;
            _ = hangs => panic!("it hangs"),
            answer = waits => assert!(matches!(answer, Err(sqlx::Error::PoolTimedOut)), "{answer:?}"),
        }
        assert!(together.waiting().is_empty(), "nothing is kept of who no longer waits");
    }

    #[tokio::test]
    async fn a_statement_that_never_ends_gives_up_its_turn() {
        let together = Together::<u32, u32>::new(PATIENCE, Duration::from_millis(10));
        let hangs = together.ask(1, async |_: Vec<u32>| std::future::pending().await);
        let hung = tokio::time::timeout(PATIENCE / 2, hangs).await.expect("it ends");
        assert!(matches!(&hung, Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut), "{hung:?}");
        assert_eq!(together.ask(2, async |questions: Vec<u32>| Ok(twice(&questions))).await.unwrap(), 4);
    }
}
