//! What Sentry tells, joined with what is known: an issue or alert, and the project that it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::metrics::counter::Counter;

use super::Pages;
use crate::domain::build::Timestamp;
use crate::domain::sentry::record::{
    AlertRecord, Ended, IssueRecord, NoticeRecord, ProjectRecord, SentryRecord, Standing,
};
use crate::domain::sentry::speech::SentryNews;
use crate::domain::sentry::tally::{Room, Tally};
use crate::domain::sentry::{
    AlertReport, Heard, IntegrationName, IssueReport, IssueState, Notice, Occurrence, Seen, SentryKey, Subject,
};
use crate::domain::status::Change;
use crate::store::News;

/// The steps, and each project's issues at a glance, which come from the records themselves at a start.
#[derive(Debug, Default)]
pub(in crate::store) struct SentryLedger {
    tallies: BTreeMap<(IntegrationName, String), Tally>,
    notices: BTreeMap<IntegrationName, Notices>,
    /// OKs that were given up before anybody was told.
    given_up: Counter,
}

/// The notices of one integration.
#[derive(Debug, Default)]
struct Notices {
    all: usize,
    /// Those that are only remembered, the oldest first.
    told: BTreeSet<(Timestamp, Subject)>,
}

impl SentryLedger {
    /// Notices of one integration that are stored. One beyond that takes the place of the oldest that is told.
    const MAX_NOTICES: usize = 10_000;

    /// Issues that make room at one step. What a long time without the Agent has heaped up goes little by little.
    const MOST_ROOM: usize = 8;

    pub(in crate::store) fn new(given_up: Counter) -> Self {
        Self { given_up, ..Self::default() }
    }

    /// Takes note of what is stored.
    pub(in crate::store) fn learn(&mut self, key: &SentryKey, record: &SentryRecord) {
        match (&key.subject, record) {
            (Subject::Issue(id), SentryRecord::Issue(issue)) => self.tally(key, issue.project()).put(*id, issue),
            (_, SentryRecord::Notice(notice)) => {
                let known = self.known_notices(&key.integration);
                known.all += 1;
                if notice.told {
                    known.told.insert((notice.touched, key.subject.clone()));
                }
            }
            _ => {}
        }
    }

    fn known_notices(&mut self, integration: &IntegrationName) -> &mut Notices {
        self.notices.entry(integration.clone()).or_default()
    }

    fn tally(&mut self, key: &SentryKey, project: &str) -> &mut Tally {
        self.tallies.entry((key.integration.clone(), project.to_owned())).or_default()
    }

    pub(in crate::store) fn hear<P: Pages>(
        &mut self,
        pages: &mut P,
        integration: &IntegrationName,
        occurrence: Occurrence,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Heard, P::Error> {
        match occurrence {
            Occurrence::Issue(report) => {
                self.issue(pages, integration, &report, Some(report.action), IssueRecord::take, now, news)
            }
            Occurrence::Alert(report) => {
                let action = Some(report.state.as_str());
                Self::alert(pages, integration, &report, action, AlertRecord::take, now, news)
            }
            Occurrence::Notice(notice) => self.notice(pages, integration, notice, now, news),
        }
    }

    /// Joins what Sentry shows. Returns how much of it was news.
    pub(in crate::store) fn see<P: Pages>(
        &mut self,
        pages: &mut P,
        integration: &IntegrationName,
        seen: Vec<Seen>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<u64, P::Error> {
        let mut changed = 0;
        for seen in seen {
            let is_news = match seen {
                Seen::Issue(report) => {
                    self.issue(pages, integration, &report, None, IssueRecord::see, now, news)? == Heard::Changed
                }
                Seen::Alert(report) => {
                    Self::alert(pages, integration, &report, None, AlertRecord::see, now, news)? == Heard::Changed
                }
                Seen::Merged { issue, into, at } => {
                    self.end_issue(pages, integration, issue, Ended::Merged(into), Some(at), now, news)?
                }
                Seen::IssueGone { issue, at } => {
                    self.end_issue(pages, integration, issue, Ended::Gone, Some(at), now, news)?
                }
                Seen::AlertGone { rule, identifier, at } => {
                    Self::close_alert(pages, integration, rule, now, news, |alert| alert.close(identifier, at, now))?
                }
            };
            changed += u64::from(is_news);
        }
        Ok(changed)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a transaction, and how it joins")]
    fn issue<P: Pages>(
        &mut self,
        pages: &mut P,
        integration: &IntegrationName,
        report: &IssueReport,
        action: Option<&'static str>,
        join: fn(&mut IssueRecord, &IssueReport, Timestamp) -> Heard,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Heard, P::Error> {
        let key = SentryKey { integration: integration.clone(), subject: Subject::Issue(report.id) };
        let known = pages.load_sentry(&key)?;
        let is_watched = matches!(&known, Some(SentryRecord::Issue(record)) if record.ended() != Some(Ended::Crowded));
        let slug = report.about.project.as_deref().unwrap_or_default();
        if action.is_none() && !is_watched && self.tally(&key, slug).is_full() {
            // A list would bring back, look after look, what others have displaced.
            return Ok(Heard::Stale);
        }
        let (mut record, heard) = match known {
            Some(SentryRecord::Issue(mut record)) => {
                let heard = join(&mut record, report, now);
                (record, heard)
            }
            // What is over when it is first seen needs no word.
            _ if action.is_none() && report.state != IssueState::Open => return Ok(Heard::Stale),
            _ => (IssueRecord::new(report, now), Heard::Changed),
        };
        if heard == Heard::Duplicate && action.is_none() {
            return Ok(heard);
        }
        let action = action.filter(|_| heard == Heard::Changed);
        self.settle(pages, key.clone(), &mut record, report.id, action, now, news)?;
        self.make_room(pages, &key, record.project(), report.id, now, news)?;
        Ok(heard)
    }

    /// Stores an issue, and its project's status with it.
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn settle<P: Pages>(
        &mut self,
        pages: &mut P,
        key: SentryKey,
        record: &mut IssueRecord,
        id: u64,
        action: Option<&'static str>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        // One that was told without a project counts under the empty name.
        let told = record.standing().announced().map(|_| record.standing().group().project.clone().unwrap_or_default());
        let before = told.filter(|before| before != record.project());
        let mut change = record.announce(id, now);
        let is_news = change.is_some() || action.is_some();
        if is_old_news(change, action) {
            record.hush();
            change = None;
        }
        if let Some(before) = before {
            self.tally(&key, &before).remove(id);
            self.project(pages, &key, &before, now, news)?;
        }
        let slug = record.project().to_owned();
        self.tally(&key, &slug).put(id, record);
        let stored = SentryRecord::Issue(record.clone());
        pages.save_sentry(&key, &stored)?;
        self.project(pages, &key, &slug, now, news)?;
        if is_news {
            news.push(News::Sentry(Box::new(SentryNews { key, record: stored, change, action })));
        }
        Ok(())
    }

    fn project<P: Pages>(
        &mut self,
        pages: &mut P,
        of: &SentryKey,
        slug: &str,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let key = SentryKey { integration: of.integration.clone(), subject: Subject::Project(slug.to_owned()) };
        let mut project = match pages.load_sentry(&key)? {
            Some(SentryRecord::Project(project)) => project,
            _ => ProjectRecord::default(),
        };
        let change = project.announce(slug, self.tally(of, slug), now);
        let record = SentryRecord::Project(project);
        pages.save_sentry(&key, &record)?;
        if change.is_some() {
            news.push(News::Sentry(Box::new(SentryNews { key, record, change, action: None })));
        }
        Ok(())
    }

    /// A project with too many issues gives up those that matter least.
    fn make_room<P: Pages>(
        &mut self,
        pages: &mut P,
        of: &SentryKey,
        slug: &str,
        latest: u64,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        for _ in 0..Self::MOST_ROOM {
            let Some(room) = self.tally(of, slug).overflow(latest) else { break };
            match room {
                Room::Forget(id) | Room::GiveUp(id) => {
                    self.tally(of, slug).remove(id);
                    let subject = Subject::Issue(id);
                    pages.remove_sentry(&SentryKey { integration: of.integration.clone(), subject })?;
                    self.given_up.inc_by(u64::from(room == Room::GiveUp(id)));
                }
                Room::Close(id) => {
                    self.end_issue(pages, &of.integration, id, Ended::Crowded, None, now, news)?;
                }
            }
        }
        Ok(())
    }

    /// `false` when there is no such issue, or something later is known of it.
    #[expect(clippy::too_many_arguments, reason = "as above")]
    pub(in crate::store) fn end_issue<P: Pages>(
        &mut self,
        pages: &mut P,
        integration: &IntegrationName,
        id: u64,
        why: Ended,
        at: Option<Timestamp>,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        let key = SentryKey { integration: integration.clone(), subject: Subject::Issue(id) };
        let Some(SentryRecord::Issue(mut record)) = pages.load_sentry(&key)? else { return Ok(false) };
        if !record.end(why, at, now) {
            return Ok(false);
        }
        self.settle(pages, key, &mut record, id, None, now, news)?;
        Ok(true)
    }

    fn alert<P: Pages>(
        pages: &mut P,
        integration: &IntegrationName,
        report: &AlertReport,
        action: Option<&'static str>,
        join: fn(&mut AlertRecord, &AlertReport, Timestamp) -> Heard,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Heard, P::Error> {
        let key = SentryKey { integration: integration.clone(), subject: Subject::Alert(report.rule) };
        let mut alert = match pages.load_sentry(&key)? {
            Some(SentryRecord::Alert(alert)) => alert,
            _ => AlertRecord::default(),
        };
        let heard = join(&mut alert, report, now);
        if heard == Heard::Duplicate && action.is_none() {
            return Ok(heard);
        }
        let mut change = alert.announce(report.rule, now);
        let action = action.filter(|_| heard == Heard::Changed);
        let is_news = change.is_some() || action.is_some();
        if is_old_news(change, action) {
            alert.hush();
            change = None;
        }
        let record = SentryRecord::Alert(alert);
        pages.save_sentry(&key, &record)?;
        if is_news {
            news.push(News::Sentry(Box::new(SentryNews { key, record, change, action })));
        }
        Ok(heard)
    }

    /// Closes some of an alert's spans. `false` when there was nothing to close.
    pub(in crate::store) fn close_alert<P: Pages>(
        pages: &mut P,
        integration: &IntegrationName,
        rule: u64,
        now: Timestamp,
        news: &mut Vec<News>,
        close: impl FnOnce(&mut AlertRecord) -> bool,
    ) -> Result<bool, P::Error> {
        let key = SentryKey { integration: integration.clone(), subject: Subject::Alert(rule) };
        let Some(SentryRecord::Alert(mut alert)) = pages.load_sentry(&key)? else { return Ok(false) };
        if !close(&mut alert) {
            return Ok(false);
        }
        let change = alert.announce(rule, now);
        let record = SentryRecord::Alert(alert);
        pages.save_sentry(&key, &record)?;
        news.push(News::Sentry(Box::new(SentryNews { key, record, change, action: None })));
        Ok(true)
    }

    fn notice<P: Pages>(
        &mut self,
        pages: &mut P,
        integration: &IntegrationName,
        notice: Notice,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<Heard, P::Error> {
        let subject = Subject::Notice(notice.kind, notice.id.clone());
        let key = SentryKey { integration: integration.clone(), subject };
        if pages.load_sentry(&key)?.is_some() {
            return Ok(Heard::Duplicate);
        }
        let action = Some(notice.kind.as_str());
        let record = SentryRecord::Notice(NoticeRecord { notice, touched: now, told: false });
        let known = self.known_notices(integration);
        if known.all < Self::MAX_NOTICES {
            known.all += 1;
        } else if let Some((_, oldest)) = known.told.pop_first() {
            pages.remove_sentry(&SentryKey { integration: integration.clone(), subject: oldest })?;
        } else {
            return Ok(Heard::Full);
        }
        pages.save_sentry(&key, &record)?;
        news.push(News::Sentry(Box::new(SentryNews { key, record, change: None, action })));
        Ok(Heard::Changed)
    }

    pub(in crate::store) fn confirm<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &SentryKey,
        told: Option<&Standing>,
    ) -> Result<(), P::Error> {
        let Some(mut record) = pages.load_sentry(key)? else { return Ok(()) };
        if !record.confirm(told) {
            return Ok(());
        }
        match (&key.subject, &record) {
            (Subject::Issue(id), SentryRecord::Issue(issue)) => self.tally(key, issue.project()).put(*id, issue),
            (subject, SentryRecord::Notice(notice)) => {
                let known = self.known_notices(&key.integration);
                known.told.insert((notice.touched, subject.clone()));
            }
            _ => {}
        }
        pages.save_sentry(key, &record)
    }

    /// An operator, or the configuration, is done with it. `false` when there is no such thing.
    pub(in crate::store) fn forget<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &SentryKey,
        why: Ended,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<bool, P::Error> {
        match key.subject {
            Subject::Issue(id) => self.end_issue(pages, &key.integration, id, why, None, now, news),
            Subject::Alert(rule) => {
                Self::close_alert(pages, &key.integration, rule, now, news, |alert| alert.close_all(now, now))
            }
            Subject::Project(_) | Subject::Notice(..) => Ok(false),
        }
    }

    /// Brings one thing in line with the present rules, or forgets what is over.
    pub(in crate::store) fn review<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &SentryKey,
        is_covered: bool,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        let Some(record) = pages.load_sentry(key)? else { return Ok(()) };
        if record.is_over(now) {
            return self.drop(pages, key, &record, now, news);
        }
        if !is_covered {
            self.forget(pages, key, Ended::Filtered, now, news)?;
        } else if let (Subject::Issue(id), SentryRecord::Issue(mut issue)) = (&key.subject, record)
            && issue.ended() == Some(Ended::Filtered)
        {
            issue.reopen();
            self.settle(pages, key.clone(), &mut issue, *id, None, now, news)?;
        }
        Ok(())
    }

    fn drop<P: Pages>(
        &mut self,
        pages: &mut P,
        key: &SentryKey,
        record: &SentryRecord,
        now: Timestamp,
        news: &mut Vec<News>,
    ) -> Result<(), P::Error> {
        pages.remove_sentry(key)?;
        match (&key.subject, record) {
            (Subject::Issue(id), SentryRecord::Issue(issue)) => {
                self.tally(key, issue.project()).remove(*id);
                self.project(pages, key, issue.project(), now, news)?;
            }
            (Subject::Project(slug), _) => drop(self.tallies.remove(&(key.integration.clone(), slug.clone()))),
            (subject, SentryRecord::Notice(notice)) => {
                let known = self.known_notices(&key.integration);
                known.all = known.all.saturating_sub(1);
                known.told.remove(&(notice.touched, subject.clone()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a look shows for the first time has been so for a while: all that was open before recoverd came is no event.
fn is_old_news(change: Option<Change>, action: Option<&'static str>) -> bool {
    action.is_none() && matches!(change, Some(Change::First(_)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::domain::job::JobKey;
    use crate::domain::projects::Source;
    use crate::domain::record::JobRecord;
    use crate::domain::rules::Children;
    use crate::domain::sentry::{IssueText, Level};

    /// Nothing but Sentry's things, in memory.
    #[derive(Default)]
    struct Shelf(BTreeMap<SentryKey, SentryRecord>);

    impl Pages for Shelf {
        type Error = Infallible;

        fn load(&self, _: &JobKey) -> Result<Option<JobRecord>, Infallible> {
            Ok(None)
        }
        fn save(&mut self, _: &JobKey, _: &JobRecord) -> Result<(), Infallible> {
            Ok(())
        }
        fn remove(&mut self, _: &JobKey) -> Result<(), Infallible> {
            Ok(())
        }
        fn below(&self, _: &JobKey) -> Result<Vec<JobKey>, Infallible> {
            Ok(Vec::new())
        }
        fn save_project(&mut self, _: &JobKey, _: Source, _: Children) -> Result<(), Infallible> {
            Ok(())
        }
        fn load_sentry(&self, key: &SentryKey) -> Result<Option<SentryRecord>, Infallible> {
            Ok(self.0.get(key).cloned())
        }
        fn save_sentry(&mut self, key: &SentryKey, record: &SentryRecord) -> Result<(), Infallible> {
            self.0.insert(key.clone(), record.clone());
            Ok(())
        }
        fn remove_sentry(&mut self, key: &SentryKey) -> Result<(), Infallible> {
            self.0.remove(key);
            Ok(())
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
    const MAX: u64 = Tally::MAX_ISSUES as u64;

    fn acme() -> IntegrationName {
        IntegrationName::parse("acme").unwrap()
    }

    fn issue(id: u64, state: IssueState) -> IssueReport {
        let about = IssueText { level: Some(Level::Error), ..IssueText::default() };
        let at = Timestamp::from_millis(i64::try_from(id).unwrap());
        IssueReport { id, state, action: "created", at, about }
    }

    /// So many issues that are over.
    fn with_over(many: u64, is_told: bool) -> (SentryLedger, Shelf) {
        let (mut ledger, mut shelf) = (SentryLedger::default(), Shelf::default());
        for id in 1..=many {
            let mut record = IssueRecord::new(&issue(id, IssueState::Resolved), NOW);
            record.announce(id, NOW);
            let mut record = SentryRecord::Issue(record);
            if is_told {
                let told = record.standing().cloned();
                record.confirm(told.as_ref());
            }
            let key = SentryKey { integration: acme(), subject: Subject::Issue(id) };
            ledger.learn(&key, &record);
            shelf.0.insert(key, record);
        }
        (ledger, shelf)
    }

    fn issues(shelf: &Shelf) -> u64 {
        shelf.0.keys().filter(|key| matches!(key.subject, Subject::Issue(_))).count() as u64
    }

    #[test]
    fn what_was_heaped_up_while_nobody_could_be_told_goes_with_the_next_issues() {
        let (mut ledger, mut shelf) = with_over(MAX + 20, true);
        for id in 1..=5 {
            let report = issue(2 * MAX + id, IssueState::Open);
            ledger.hear(&mut shelf, &acme(), Occurrence::Issue(report), NOW, &mut Vec::new()).unwrap();
        }
        assert_eq!(issues(&shelf), MAX);
        assert_eq!(ledger.given_up.get(), 0);
    }

    #[test]
    fn an_ok_that_is_given_up_before_anybody_was_told_is_counted() {
        let (mut ledger, mut shelf) = with_over(2 * MAX, false);
        let report = issue(3 * MAX, IssueState::Open);
        ledger.hear(&mut shelf, &acme(), Occurrence::Issue(report), NOW, &mut Vec::new()).unwrap();
        assert_eq!((issues(&shelf), ledger.given_up.get()), (2 * MAX, 1));
    }
}
