//! A look at Sentry: all issues and metric alerts that are open, and then how those stand that are thought to be open and
//! were not listed. [`Inquiry`] says what Sentry shows; [`SentryCatchUp`] asks now and then, and joins it with what is stored.

mod absence;
mod rounds;

use std::collections::BTreeSet;

use crate::domain::build::Timestamp;
use crate::machinery::clock::Clock;
use crate::sentry::rest::{Fault, Incident, Issue, Pages, RemoteApi, RestError};
use crate::sentry::webhook::FRESH;
use absence::{Absences, Answer};
pub use rounds::{SentryCatchUp, SentryCatchUpMetrics, Watch};

/// What is watched: an issue by its id, a metric alert's incident by its identifier, which counts within the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Issue(u64),
    Alert(u64),
}

/// What Sentry showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub shown: Shown,
    /// When it was asked for: what it says was so then, or has become so since. By Sentry's clock where that is known, as
    /// that of webhooks is.
    pub asked: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Issue(Issue),
    Alert(Incident),
    /// This issue has become part of another.
    Merged {
        issue: u64,
        into: u64,
    },
    /// Sentry has not known it for two looks.
    Gone(Key),
}

/// Questions about single issues and alerts at one look. What is left over waits for the next.
const QUESTIONS: usize = 100;

/// One Sentry, look by look.
#[derive(Debug)]
pub struct Inquiry {
    api: RemoteApi,
    clock: Clock,
    absences: Absences<Key>,
}

impl Inquiry {
    pub fn new(api: RemoteApi, clock: Clock) -> Self {
        Self { api, clock, absences: Absences::default() }
    }

    /// Begins a look.
    pub fn look(&mut self) -> Look<'_> {
        let Self { api, clock, absences } = self;
        let (issues, alerts) = (api.unresolved(), api.open_incidents());
        let listed = BTreeSet::new();
        Look { api, clock, absences, issues: Some(issues), alerts: Some(alerts), listed, report: Report::default() }
    }
}

/// See [`Inquiry::look`].
#[derive(Debug)]
pub struct Look<'a> {
    api: &'a RemoteApi,
    clock: &'a Clock,
    absences: &'a mut Absences<Key>,
    /// `None` when all were shown.
    issues: Option<Pages<'a, Issue>>,
    alerts: Option<Pages<'a, Incident>>,
    listed: BTreeSet<Key>,
    report: Report,
}

/// What came of a look.
#[derive(Debug, Default)]
pub struct Report {
    /// Of those that were not listed.
    pub sightings: Vec<Sighting>,
    /// So many were not listed, of those thought to be open.
    pub absent: usize,
    /// Listed without an id or a status.
    pub unreadable: usize,
    /// Questions about one issue or alert that got no answer.
    pub unanswered: Vec<RestError>,
    /// What somebody should look after: what is wrong and what to do.
    pub troubles: Vec<String>,
    /// Metric alerts can be read.
    has_alerts: bool,
}

impl Look<'_> {
    /// Some more of what is open. `None` when all was shown; then [`Self::end`] asks for the others.
    ///
    /// # Errors
    /// When Sentry cannot be asked, or the list cannot be read to its end. What was shown until then is true.
    ///
    /// # Cancel safety
    /// A call that is dropped loses its page: the look is then to be dropped as well.
    pub async fn next(&mut self) -> Result<Option<Vec<Sighting>>, RestError> {
        let now = self.clock.now();
        if let Some(issues) = &mut self.issues {
            if let Some(page) = issues.next().await? {
                self.report.unreadable += page.unreadable;
                self.listed.extend(page.items.iter().map(|issue| Key::Issue(issue.id)));
                let asked = believable(page.asked, now);
                return Ok(Some(sightings(page.items, asked, Shown::Issue)));
            }
            if !issues.is_whole() {
                let more = "it has more open issues than are taken in; those beyond a hundred thousand are not watched: \
                            resolve or archive what nobody will look at";
                self.report.troubles.push(more.to_owned());
            }
            self.issues = None;
        }
        let Some(alerts) = &mut self.alerts else { return Ok(None) };
        match alerts.next().await {
            Ok(Some(page)) => {
                self.report.has_alerts = true;
                self.report.unreadable += page.unreadable;
                self.listed.extend(page.items.iter().map(|alert| Key::Alert(alert.identifier)));
                let asked = believable(page.asked, now);
                return Ok(Some(sightings(page.items, asked, Shown::Alert)));
            }
            Ok(None) => {}
            // A Sentry whose plan has no metric alerts does not know the address.
            Err(RestError { fault: Fault::NotFound, .. }) => self.report.has_alerts = false,
            Err(error @ RestError { fault: Fault::Forbidden, .. }) => {
                self.report.has_alerts = false;
                self.report.troubles.push(format!("its metric alerts cannot be read, {error}"));
            }
            Err(error) => return Err(error),
        }
        self.alerts = None;
        Ok(None)
    }

    /// Asks for those that are thought to be `open` and were not listed, each by itself, a hundred at most. `open` must
    /// have been read after the last page, and without what was heard of since the look began.
    ///
    /// # Errors
    /// When the token is no longer taken.
    ///
    /// # Cancel safety
    /// A call that is dropped has learned nothing: the next look asks anew.
    pub async fn end(mut self, open: impl IntoIterator<Item = Key>) -> Result<Report, RestError> {
        let (mut absent, mut known) = (BTreeSet::new(), 0);
        for key in open {
            known += 1;
            let is_asked_for = !self.listed.contains(&key) && (self.report.has_alerts || matches!(key, Key::Issue(_)));
            if is_asked_for {
                absent.insert(key);
            }
        }
        self.report.absent = absent.len();
        let mut answers = Vec::new();
        for key in self.absences.choose(&absent, QUESTIONS) {
            match self.ask(key).await {
                Ok(sighting) => {
                    answers.push((key, Answer::Shown));
                    self.report.sightings.push(sighting);
                }
                Err(error) => match error.fault {
                    Fault::NotFound => answers.push((key, Answer::Unknown)),
                    Fault::Forbidden => answers.push((key, Answer::Hidden)),
                    Fault::Unauthorized => return Err(error),
                    // One that cannot be read must not keep the others from being asked for.
                    Fault::Foreign { .. } | Fault::Syntax { .. } | Fault::TooLarge { .. } => {
                        self.report.unanswered.push(error);
                    }
                    _ => {
                        let why = format!("those that it did not list cannot be asked for, {error}");
                        self.report.troubles.push(why);
                        self.report.unanswered.push(error);
                        break;
                    }
                },
            }
        }
        let conclusion = self.absences.conclude(&absent, known, answers);
        let asked = self.clock.now();
        self.report
            .sightings
            .extend(conclusion.gone.into_iter().map(|key| Sighting { shown: Shown::Gone(key), asked }));
        if conclusion.doubtful > 0 {
            self.report.troubles.push(format!(
                "it does not know {} of the {known} that are open, so none is closed: check `organization`, and that the \
                 token sees all of its projects",
                conclusion.doubtful
            ));
        }
        if conclusion.hidden > 0 {
            self.report.troubles.push(format!(
                "{} that are open may no longer be seen, and stay as they are: give the integration the projects back",
                conclusion.hidden
            ));
        }
        Ok(self.report)
    }

    async fn ask(&self, key: Key) -> Result<Sighting, RestError> {
        let now = self.clock.now();
        let (shown, asked) = match key {
            Key::Issue(id) => {
                let answer = self.api.issue(id).await?;
                let is_same = answer.thing.id == id;
                let into = answer.thing.id;
                (if is_same { Shown::Issue(answer.thing) } else { Shown::Merged { issue: id, into } }, answer.asked)
            }
            Key::Alert(identifier) => {
                let answer = self.api.incident(identifier).await?;
                (Shown::Alert(answer.thing), answer.asked)
            }
        };
        Ok(Sighting { shown, asked: believable(asked, now) })
    }
}

/// When something was so, of which Sentry says that it was so at `said`. A time to come would outlast all that is told of it
/// until then; one that is past is that of an answer which somebody kept.
fn believable(said: Option<Timestamp>, now: Timestamp) -> Timestamp {
    said.filter(|said| said.since(now) <= FRESH).unwrap_or(now)
}

fn sightings<T>(items: Vec<T>, asked: Timestamp, shown: impl Fn(T) -> Shown) -> Vec<Sighting> {
    items.into_iter().map(|item| Sighting { shown: shown(item), asked }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_is_not_believed() {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let minutes = |minutes: i64| Timestamp::from_millis(1_790_000_000_000 + minutes * 60_000);
        let table =
            [(None, 0), (Some(-5), -5), (Some(-10_000), -10_000), (Some(10), 10), (Some(11), 0), (Some(525_600), 0)];
        for (said, expected) in table {
            assert_eq!(believable(said.map(minutes), now), minutes(expected), "{said:?}");
        }
    }
}
