//! The same rounds for what Sentry told: every issue, project and metric alert again, and each notice until it is told.

use tokio_util::sync::CancellationToken;

use super::{Interrupted, Resend, pause};
use crate::domain::sentry::record::{Ended, SentryRecord, Standing};
use crate::domain::sentry::speech::SentrySpeaker;
use crate::domain::sentry::{SentryKey, Subject};
use crate::domain::signal::Signal;
use crate::domain::status::Status;
use crate::store::{SentryEntry, Told};

/// What was counted on the way.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Open issues, and metric alerts that are not OK.
    pub(super) issues: i64,
    pub(super) alerts: i64,
    /// Notices that wait to be told.
    pub(super) notices: i64,
}

impl Resend {
    pub(super) async fn sentry_round(&self, stop: &CancellationToken) -> Result<Counts, Interrupted> {
        let mut counts = Counts::default();
        let mut after: Option<SentryKey> = None;
        loop {
            let (behind, seen) = (after.take(), self.store.changes());
            let page = self.sentry_page(behind.clone()).await?;
            let Some(last) = page.last() else { return Ok(counts) };
            after = Some(last.key.clone());
            let is_last = page.len() < Self::PAGE;
            let page = self.reviewed_sentry(page).await?;
            for entry in &page {
                counts.add(&entry.record);
            }
            self.tell_sentry(&page).await?;
            self.correct_sentry(behind, page, seen).await?;
            // How many pages there are is not known before; one takes as long as a page of jobs.
            let pause = if is_last { std::time::Duration::ZERO } else { pause(self.interval, Self::SENTRY_PACE) };
            if !pause.is_zero() && stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(Interrupted::Stopped);
            }
        }
    }

    /// As if there were so many: at ten thousand a round takes half of the interval.
    const SENTRY_PACE: u64 = 10_000;

    async fn sentry_page(&self, behind: Option<SentryKey>) -> Result<Vec<SentryEntry>, Interrupted> {
        self.blocking(move |store| store.sentry_page(behind.as_ref(), Self::PAGE)).await
    }

    /// What changed while it was being told is told again, as it may have been told in the wrong order.
    async fn correct_sentry(
        &self,
        behind: Option<SentryKey>,
        mut told: Vec<SentryEntry>,
        mut seen: u64,
    ) -> Result<(), Interrupted> {
        let announced = |entry: &SentryEntry| entry.record.standing().and_then(Standing::announced);
        while self.store.changes() != seen {
            seen = self.store.changes();
            let mut page = self.sentry_page(behind.clone()).await?;
            page.retain(|entry| {
                let before = told.iter().find(|before| before.key == entry.key);
                before.is_some_and(|before| announced(before) != announced(entry))
            });
            if page.is_empty() {
                break;
            }
            self.tell_sentry(&page).await?;
            for entry in page {
                told.retain(|before| before.key != entry.key);
                told.push(entry);
            }
        }
        Ok(())
    }

    /// Applies the rules to what contradicts them, and forgets what is over.
    async fn reviewed_sentry(&self, mut page: Vec<SentryEntry>) -> Result<Vec<SentryEntry>, Interrupted> {
        let now = self.clock.now();
        let is_due = |SentryEntry { key, record }: &SentryEntry| {
            let is_covered = self.rulebook.integration(&key.integration).is_some();
            let contradicts = match record {
                SentryRecord::Issue(issue) if is_covered => issue.ended() == Some(Ended::Filtered),
                SentryRecord::Issue(issue) => !issue.is_closed(),
                SentryRecord::Alert(alert) => !is_covered && alert.status() != Status::Ok,
                SentryRecord::Project(_) | SentryRecord::Notice(_) => false,
            };
            contradicts || record.is_over(now)
        };
        let keys: Vec<SentryKey> = page.iter().filter(|entry| is_due(entry)).map(|entry| entry.key.clone()).collect();
        if !keys.is_empty() {
            self.store.review_sentry(keys.clone()).await.map_err(Interrupted::Store)?;
            // The writer has handed its news to the announcer already.
            page.retain(|entry| !keys.contains(&entry.key));
        }
        Ok(page)
    }

    async fn tell_sentry(&self, page: &[SentryEntry]) -> Result<(), Interrupted> {
        let now = self.clock.now();
        let mut signals = Vec::with_capacity(page.len());
        let mut to_confirm = Vec::new();
        for SentryEntry { key, record } in page {
            let speaker = SentrySpeaker::new(&key.integration, &self.rulebook);
            let announced = record.standing().and_then(Standing::announced);
            let is_silent = matches!(record, SentryRecord::Issue(issue)
                if issue.ended().is_some() && announced.is_none_or(|announced| announced.confirmed));
            if !is_silent {
                speaker.checks(&key.subject, record, &mut signals);
            }
            if let (Subject::Project(slug), SentryRecord::Project(project)) = (&key.subject, record) {
                signals.extend(speaker.gauges(slug, project).map(Signal::Metric));
            }
            // Until when it is probably being told just now, and when it happened.
            let untold = match record {
                SentryRecord::Notice(notice) => (!notice.told).then_some((notice.touched, None)),
                _ => announced
                    .filter(|announced| !announced.confirmed)
                    .map(|announced| (announced.at, announced.change())),
            };
            if let Some((at, change)) = untold.filter(|(at, ..)| now.since(*at) >= Self::IN_FLIGHT) {
                signals.extend(speaker.event(&key.subject, record, change, at).map(Signal::Event));
                to_confirm.push((signals.len(), Told::Sentry(key.clone(), record.standing().cloned())));
            }
        }
        self.hand_over(signals, to_confirm).await
    }
}

impl Counts {
    fn add(&mut self, record: &SentryRecord) {
        match record {
            SentryRecord::Issue(issue) => self.issues += i64::from(!issue.is_closed()),
            SentryRecord::Alert(alert) => self.alerts += i64::from(alert.status() != Status::Ok),
            SentryRecord::Notice(notice) => self.notices += i64::from(!notice.told),
            SentryRecord::Project(_) => {}
        }
    }
}
