//! How late the node's own work begins: the time between a task being ready and being run.
//!
//! A task that sleeps and looks how much later than due it woke stands in the same run queue as every request. Invariant: of an interval
//! the least delay counts, so that one long piece of work on one thread is not taken for a queue.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time between two looks.
pub const BEAT: Duration = Duration::from_millis(10);
/// Looks in an interval.
pub const LOOKS: u32 = 5;

/// Waits for an interval of 50 ms, and says by how much everything in it was late, at least. Less than a millisecond is the timer's own.
pub async fn least_delay() -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..LOOKS {
        let due = Instant::now() + BEAT;
        sleep(BEAT).await;
        least = least.min(due.elapsed());
    }
    least.saturating_sub(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_in_the_way_shows_and_a_single_piece_does_not() {
        let held = |times: u32| async move {
            for _ in 0..times {
                std::thread::sleep(Duration::from_millis(30));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (least, ()) = tokio::join!(least_delay(), held(1));
        assert!(least < Duration::from_millis(15), "{least:?}");
        let (least, ()) = tokio::join!(least_delay(), held(8));
        assert!(least >= Duration::from_millis(10), "{least:?}");
    }
}
