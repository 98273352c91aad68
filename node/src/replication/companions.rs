//! Tasks that go with a session, and must not be missing without anybody noticing.

use std::panic::resume_unwind;
use std::pin::pin;

use tokio::task::JoinSet;

/// What tells a session of the node and the node of its session, and ends it in time. Dropped, it ends where it is.
#[derive(Default)]
pub(crate) struct Companions(JoinSet<()>);

impl Companions {
    /// Starts one. It may end before the session does.
    pub(crate) fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }

    /// Runs the session to its end beside them.
    ///
    /// # Panics
    ///
    /// If one of them does: without it the session would look sound, and last for a day.
    pub(crate) async fn beside<T>(&mut self, session: impl Future<Output = T>) -> T {
        let mut session = pin!(session);
        loop {
            tokio::select! {
                ended = &mut session => return ended,
                Some(ended) = self.0.join_next() => {
                    if let Err(panic) = ended.or_else(|lost| lost.try_into_panic().map_or(Ok(()), Err)) {
                        resume_unwind(panic);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_session_ends_with_a_companion_that_panics_and_goes_on_without_one_that_ends() {
        let mut companions = Companions::default();
        companions.spawn(ready(()));
        assert_eq!(companions.beside(tokio::task::yield_now()).await, ());

        let mut companions = Companions::default();
        companions.spawn(ready(()));
        companions.spawn(async { panic!("a bug") });
        let ended = tokio::spawn(async move { companions.beside(pending::<()>()).await }).await;
        assert!(ended.is_err_and(|lost| lost.is_panic()));
    }
}
