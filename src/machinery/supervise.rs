//! Background tasks: started here, counted here, and noticed when one fails.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them in order: only sources are told to stop; whatever is downstream ends when its channel runs
/// dry.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    failed: Arc<AtomicBool>,
}

/// How the end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was begun is done.
    Drained,
    /// The deadline came first.
    Cut,
    /// A task had failed, and the rest was ended for it.
    Failed,
}

impl Supervisor {
    /// The token that sources watch.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// A task that panics, or ends before it is time to stop, stops the whole: half a daemon is worse than one that is
    /// started anew.
    #[expect(clippy::disallowed_methods, reason = "this is the room that the ban points to")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        let task = tokio::spawn(self.tasks.track_future(task));
        tokio::spawn(async move {
            let panicked = task.await.is_err_and(|error| error.is_panic());
            if panicked || !stop.is_cancelled() {
                tracing::error!(task = name, panicked, "a background task failed, recoverd stops");
                failed.store(true, Ordering::Relaxed);
                stop.cancel();
            }
        });
    }

    /// Tells the sources to stop and waits for all tasks, at most `deadline`.
    pub async fn end(self, deadline: Duration) -> Ended {
        self.stop.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok();
        if self.failed.load(Ordering::Relaxed) {
            Ended::Failed
        } else if drained {
            Ended::Drained
        } else {
            Ended::Cut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_stops_the_others() {
        let supervisor = Supervisor::default();
        let stop = supervisor.stop();
        supervisor.spawn("sound", async move { stop.cancelled().await });
        supervisor.spawn("broken", async { panic!("on purpose") });
        supervisor.stop().cancelled().await;
        assert_eq!(supervisor.end(Duration::from_secs(5)).await, Ended::Failed);
    }

    #[tokio::test]
    async fn a_task_that_ends_too_early_stops_the_others() {
        let supervisor = Supervisor::default();
        supervisor.spawn("tired", async {});
        supervisor.stop().cancelled().await;
        assert_eq!(supervisor.end(Duration::from_secs(5)).await, Ended::Failed);
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_cut_off_at_the_deadline() {
        let supervisor = Supervisor::default();
        supervisor.spawn("deaf", std::future::pending());
        assert_eq!(supervisor.end(Duration::from_millis(10)).await, Ended::Cut);
    }

    #[tokio::test]
    async fn a_task_that_finishes_its_work_is_waited_for() {
        let supervisor = Supervisor::default();
        let stop = supervisor.stop();
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        supervisor.spawn("slow", async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            flag.store(true, Ordering::Relaxed);
        });
        assert_eq!(supervisor.end(Duration::from_secs(5)).await, Ended::Drained);
        assert!(done.load(Ordering::Relaxed));
    }
}
