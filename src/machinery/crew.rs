//! Threads with a runtime of their own each, on which connections live as a whole: what one of them waits for wakes nobody on
//! another thread.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// More of them than any relay needs, however many processors there are.
pub const MOST: usize = 8;

/// A runtime that wakes that often anyhow need not be woken for each timer that is set.
const TICK: Duration = Duration::from_millis(500);

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// Which of the crew this thread is, from 1; 0 for all threads that are of no crew.
pub fn seat() -> usize {
    SEAT.get()
}

/// As many threads as processors. They end when it is dropped, with all that is still on them.
#[derive(Debug)]
pub struct Crew {
    hands: Vec<Hand>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Hand {
    runtime: Handle,
    /// How much it has on its hands.
    load: Arc<AtomicUsize>,
}

/// One more on somebody's hands, until it is dropped.
struct Burden(Arc<AtomicUsize>);

impl Burden {
    fn on(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(name: &str) -> io::Result<Self> {
        let end = CancellationToken::new();
        let size = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let hands = (1..=size).map(|seat| Hand::new(format!("{name}-{seat}"), seat, end.clone()));
        Ok(Self { hands: hands.collect::<io::Result<_>>()?, _end: end.drop_guard() })
    }

    /// On the thread that has the least to do. Like a connection, it is no background task: its failure is its own.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(hand) = self.hands.iter().min_by_key(|hand| hand.load.load(Ordering::Relaxed)) else { return };
        let burden = Burden::on(&hand.load);
        hand.runtime.spawn(async move {
            task.await;
            drop(burden);
        });
    }
}

impl Hand {
    fn new(name: String, seat: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let hand = Self { runtime: runtime.handle().clone(), load: Arc::default() };
        std::thread::Builder::new().name(name).spawn(move || {
            SEAT.set(seat);
            runtime.block_on(async {
                let mut ticks = tokio::time::interval(TICK);
                while end.run_until_cancelled(ticks.tick()).await.is_some() {}
            });
            runtime.shutdown_background();
        })?;
        Ok(hand)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Barrier, oneshot};

    use super::*;

    #[tokio::test]
    async fn work_is_shared_evenly_and_what_is_done_counts_no_more() {
        let crew = Crew::new("test").unwrap();
        assert_eq!(seat(), 0);
        let most = 3 * crew.hands.len();
        let barrier = Arc::new(Barrier::new(most));
        let mut seats = Vec::new();
        for _ in 0..most {
            let (barrier, (tell, told)) = (barrier.clone(), oneshot::channel());
            crew.spawn(async move {
                barrier.wait().await;
                tell.send(seat()).unwrap();
            });
            seats.push(told);
        }
        let mut counts = vec![0; crew.hands.len()];
        for seat in seats {
            counts[seat.await.unwrap() - 1] += 1;
        }
        assert_eq!(counts, vec![3; crew.hands.len()]);
        while crew.hands.iter().any(|hand| hand.load.load(Ordering::Relaxed) > 0) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_still_under_way_ends_with_the_crew() {
        let crew = Crew::new("test").unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        crew.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(crew);
        assert!(dropped.await.is_err());
    }
}
