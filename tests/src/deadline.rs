//! Waiting for a condition with a deadline. No test sleeps: it says what it waits for and how long that may take.

use std::time::{Duration, Instant};

/// How long to pause between two looks at the condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` returns a value.
///
/// # Panics
///
/// Once `deadline` has passed, naming `what` never came.
pub async fn wait_for<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        // A look that hangs must not outlive the deadline either.
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Some(found)) => return found,
            Ok(None) if started.elapsed() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            Ok(None) | Err(_) => panic!("waited {deadline:?} in vain for {what}"),
        }
    }
}

/// [`wait_for`] a plain condition.
pub async fn wait_until(what: &str, deadline: Duration, mut holds: impl AsyncFnMut() -> bool) {
    wait_for(what, deadline, async || holds().await.then_some(())).await;
}
