//! One timer for many things that are waited for, one after another, and mostly come.

use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

/// To set a timer for each of them and to take it off again costs more than to let it go off too early now and then, and set it
/// for the rest.
#[derive(Debug)]
pub struct Alarm<T: DerefMut<Target = Sleep>>(Pin<T>);

impl<T: DerefMut<Target = Sleep>> Alarm<T> {
    /// Of a timer that is set for any time.
    pub fn new(timer: Pin<T>) -> Self {
        Self(timer)
    }

    /// Ready when it is past the `deadline`.
    pub fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.0.as_mut();
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            // What is read without end must not keep the time from being over.
            ready!(Pin::new(&mut unconstrained(timer.as_mut())).poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_each_deadline_be_that_sooner_or_later_than_the_one_before() {
        let start = Instant::now();
        let mut alarm = Alarm::new(Box::pin(sleep(Duration::from_secs(5))));
        for (after, at) in [(9, 9), (30, 30), (20, 30), (31, 31)] {
            let deadline = start + Duration::from_secs(after);
            // What is not waited for to its end leaves the timer as it is.
            let sooner = timeout(Duration::from_millis(1), poll_fn(|context| alarm.poll(deadline, context))).await;
            assert_eq!(sooner.is_ok(), at > after);
            poll_fn(|context| alarm.poll(deadline, context)).await;
            assert_eq!(start.elapsed().as_secs(), at);
        }
        let far = start + Duration::from_mins(10);
        let waiting = timeout(Duration::from_secs(1), poll_fn(|context| alarm.poll(far, context)));
        assert!(waiting.await.is_err());
        poll_fn(|context| alarm.poll(start + Duration::from_mins(1), context)).await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
