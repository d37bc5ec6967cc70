//! Has the allocator give memory back when many clients have gone. Input: a hub, how many clients it has. Output: calls of
//! [`give_back`](system::memory::give_back).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::hub::{Hub, Socket};

/// Time between two looks.
const PACE: Duration = Duration::from_secs(1);

/// Clients that lost their connection are back after this time.
const SETTLED: Duration = Duration::from_secs(10);

/// The memory of fewer clients is not worth it.
const MANY: usize = 1_000;

/// Looks at how many clients there are until `stopping` is cancelled.
pub(crate) async fn watch<S: Socket>(hub: Arc<Hub<S>>, stopping: CancellationToken) {
    let count = || hub.connections() + hub.saved_sessions();
    let watch = async {
        let mut most = 0;
        loop {
            tokio::time::sleep(PACE).await;
            most = most.max(count());
            if !have_gone(most, count()) {
                continue;
            }
            tokio::time::sleep(SETTLED).await;
            let count = count();
            if have_gone(most, count) {
                debug!(count, most, "most clients have gone: giving memory back");
                most = count;
                hub.shrink();
                let _ = tokio::task::spawn_blocking(system::memory::give_back).await;
                wake_workers();
            }
        }
    };
    stopping.run_until_cancelled(watch).await;
}

/// Whether most clients have gone: what a few have left is going to be used again.
const fn have_gone(most: usize, count: usize) -> bool {
    count <= most / 2 && most - count >= MANY
}

/// Each thread gives back its own memory before it sleeps, so those that do already are woken.
fn wake_workers() {
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        tokio::spawn(tokio::task::yield_now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_most_of_many_have_gone() {
        assert!(have_gone(19_000, 0) && have_gone(19_000, 9_500));
        assert!(!have_gone(19_000, 10_000) && !have_gone(900, 0) && !have_gone(0, 0));
    }
}
