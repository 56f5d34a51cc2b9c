//! All that is stored of an issue, a project, a metric alert or a notice, and what Datadog was told of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use super::{AlertReport, AlertState, AlertText, Heard, IssueReport, IssueState, IssueText, Level, Notice};
use crate::domain::build::Timestamp;
use crate::domain::record::Announced;
use crate::domain::status::{Change, Status};

/// What is over is remembered for so long, lest a late webhook bring it back; its OK is sent for as long.
pub const REMEMBERED: Duration = Duration::from_hours(24);

/// One stored thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SentryRecord {
    Issue(IssueRecord),
    Project(ProjectRecord),
    Alert(AlertRecord),
    Notice(NoticeRecord),
}

impl SentryRecord {
    /// What its check says, and was said to say; a notice has none.
    pub fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Issue(issue) => Some(&issue.standing),
            Self::Project(project) => Some(&project.standing),
            Self::Alert(alert) => Some(&alert.standing),
            Self::Notice(_) => None,
        }
    }

    /// The sink has taken what was to be told. `false` when something else is due by now.
    pub fn confirm(&mut self, status: Status) -> bool {
        match self {
            Self::Issue(issue) => issue.standing.confirm(status),
            Self::Project(project) => project.standing.confirm(status),
            Self::Alert(alert) => alert.standing.confirm(status),
            Self::Notice(notice) => !std::mem::replace(&mut notice.told, true),
        }
    }

    /// Nothing is left to say of it, and nothing more is to be expected. An issue that an operator forgot may still be open
    /// in Sentry, and would come back if it were not remembered.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let is_old = |at: Timestamp| now.since(at) >= REMEMBERED;
        match self {
            Self::Issue(issue) => {
                issue.standing.is_told()
                    && issue.is_closed()
                    && is_old(issue.touched)
                    && issue.ended != Some(Ended::Forgotten)
            }
            Self::Project(project) => {
                project.is_empty
                    && project.standing.is_told()
                    && project.standing.announced.is_none_or(|told| is_old(told.at))
            }
            Self::Alert(alert) => alert.standing.is_told() && alert.status() == Status::Ok && is_old(alert.touched),
            Self::Notice(notice) => notice.told && is_old(notice.touched),
        }
    }
}

/// The tags that a check had when it was told: which group of a monitor it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub project: Option<String>,
    pub name: Option<String>,
}

/// What is told of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    announced: Option<Announced>,
    group: Group,
    /// Groups that it was in before, a renamed project's say: what was told there is taken back.
    left: Vec<Group>,
}

impl Standing {
    /// Whoever is renamed so often before anybody could be told is not taken back everywhere.
    const MAX_LEFT: usize = 8;

    pub fn announced(&self) -> Option<Announced> {
        self.announced
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    pub fn left(&self) -> &[Group] {
        &self.left
    }

    /// Nothing waits to be told.
    pub fn is_told(&self) -> bool {
        self.announced.is_none_or(|announced| announced.confirmed)
    }

    /// Makes this what is to be announced, where it differs from what was.
    fn announce(&mut self, status: Status, group: Group, now: Timestamp) -> Option<Change> {
        let before = self.announced.map(|announced| announced.status);
        let moves = before.is_some() && group != self.group;
        let before_group = std::mem::replace(&mut self.group, group);
        if moves && before != Some(Status::Ok) && self.left.len() < Self::MAX_LEFT {
            self.left.push(before_group);
        }
        let change = Change::between(before, status);
        if change.is_none() && !moves {
            return None;
        }
        // One that moved is told anew, and is no event if that is all.
        self.announced =
            Some(Announced { status, before: before.or(moves.then_some(status)), at: now, confirmed: false });
        change
    }

    fn confirm(&mut self, status: Status) -> bool {
        match &mut self.announced {
            Some(announced) if announced.status == status && !announced.confirmed => {
                announced.confirmed = true;
                self.left.clear();
                true
            }
            _ => false,
        }
    }
}

/// Why an issue is no longer spoken of, whatever Sentry says of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// Sentry has it no more.
    Gone,
    /// Into this one.
    Merged(u64),
    /// An operator said so.
    Forgotten,
    /// Its project has more open issues than are watched, and it had been quiet for longest.
    Crowded,
    /// The configuration has its integration no more.
    Filtered,
}

impl Ended {
    /// A clause for people, to follow "no longer watched".
    pub fn reason(self) -> String {
        match self {
            Self::Gone => "deleted in Sentry".to_owned(),
            Self::Merged(into) => format!("merged in Sentry, now issue {into}"),
            Self::Forgotten => "forgotten by an operator".to_owned(),
            Self::Crowded => format!("its project has more than {} open issues", Tally::MAX_ISSUES),
            Self::Filtered => "left out by the configuration".to_owned(),
        }
    }
}

/// One issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueRecord {
    state: IssueState,
    /// When that was so, by Sentry's clock.
    at: Timestamp,
    /// When that was heard, by ours.
    touched: Timestamp,
    about: IssueText,
    ended: Option<Ended>,
    standing: Standing,
}

impl IssueRecord {
    pub fn new(report: &IssueReport, now: Timestamp) -> Self {
        let (state, at, about) = (report.state, report.at, report.about.clone());
        Self { state, at, touched: now, about, ended: None, standing: Standing::default() }
    }

    pub fn about(&self) -> &IssueText {
        &self.about
    }

    pub fn state(&self) -> IssueState {
        self.state
    }

    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// When something was last heard of it, by our clock.
    pub fn touched(&self) -> Timestamp {
        self.touched
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What it is counted under.
    pub fn project(&self) -> &str {
        self.about.project.as_deref().unwrap_or_default()
    }

    pub fn is_closed(&self) -> bool {
        self.ended.is_some() || self.state != IssueState::Open
    }

    /// Without a level it is an error, as Sentry has it.
    pub fn status(&self) -> Status {
        if self.is_closed() { Status::Ok } else { self.about.level.unwrap_or(Level::Error).status() }
    }

    /// Joins what is told. The latest change decides, in whatever order they come; of two in one moment, as webhooks tell
    /// whole seconds, that which leaves it open.
    pub fn take(&mut self, report: &IssueReport, now: Timestamp) -> Heard {
        if (report.at, report.state) < (self.at, self.state) {
            fill(&mut self.about, report.about.clone());
            return if report.state == self.state { Heard::Duplicate } else { Heard::Stale };
        }
        let before = (self.state, self.status());
        let is_later = report.at > self.at;
        (self.state, self.at, self.touched) = (report.state, report.at, now);
        let older = std::mem::replace(&mut self.about, report.about.clone());
        fill(&mut self.about, older);
        if is_later && report.state == IssueState::Open {
            self.ended = None;
        }
        if (self.state, self.status()) == before { Heard::Duplicate } else { Heard::Changed }
    }

    /// Joins what Sentry shows when asked. What is as it was leaves no trace; what an operator forgot stays so until it
    /// is open anew.
    pub fn see(&mut self, report: &IssueReport, now: Timestamp) -> Heard {
        let is_same = self.state == report.state && self.about.level == report.about.level.or(self.about.level);
        let is_known =
            self.ended.is_none() || (self.ended == Some(Ended::Forgotten) && report.state == IssueState::Open);
        let is_named = report.about.project.is_none() || report.about.project == self.about.project;
        if is_same && is_known && is_named {
            return Heard::Duplicate;
        }
        self.take(report, now)
    }

    /// Ends it, until something later is told of it than what is known: `at` by Sentry's clock, or now. `false` when it has
    /// ended already, or something later is known.
    pub fn end(&mut self, why: Ended, at: Option<Timestamp>, now: Timestamp) -> bool {
        let at = at.unwrap_or(self.at);
        if self.ended == Some(why) || at < self.at {
            return false;
        }
        (self.ended, self.touched, self.at) = (Some(why), now, at);
        true
    }

    pub fn reopen(&mut self) {
        self.ended = None;
    }

    pub fn announce(&mut self, id: u64, now: Timestamp) -> Option<Change> {
        let name = self.about.short_id.clone().unwrap_or_else(|| id.to_string());
        let group = Group { project: self.about.project.clone(), name: Some(name) };
        self.standing.announce(self.status(), group, now)
    }
}

/// What `newer` does not say, `older` does.
fn fill(newer: &mut IssueText, older: IssueText) {
    let IssueText { project, short_id, level, title, culprit, link } = older;
    newer.project = newer.project.take().or(project);
    newer.short_id = newer.short_id.take().or(short_id);
    newer.level = newer.level.or(level);
    newer.title = newer.title.take().or(title);
    newer.culprit = newer.culprit.take().or(culprit);
    newer.link = newer.link.take().or(link);
}

/// One project: the worst of its issues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// Open ones.
    pub critical: u64,
    pub warning: u64,
    /// It has no issue left, not even one that is over.
    is_empty: bool,
    standing: Standing,
}

impl ProjectRecord {
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn status(&self) -> Status {
        match (self.critical, self.warning) {
            (0, 0) => Status::Ok,
            (0, _) => Status::Warning,
            _ => Status::Critical,
        }
    }

    pub fn announce(&mut self, slug: &str, tally: &Tally, now: Timestamp) -> Option<Change> {
        (self.critical, self.warning, self.is_empty) = (tally.critical(), tally.warning(), tally.is_empty());
        let group = Group { project: Some(slug.to_owned()).filter(|slug| !slug.is_empty()), name: None };
        self.standing.announce(self.status(), group, now)
    }
}

/// One metric alert, with the spans in which it was open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRecord {
    spans: BTreeMap<u64, Span>,
    /// When something was heard of it, by our clock.
    touched: Timestamp,
    /// By Sentry's, when that was so which [`Self::about`] says.
    at: Timestamp,
    about: AlertText,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Span {
    at: Timestamp,
    state: AlertState,
}

impl AlertRecord {
    /// Spans that are remembered. A rule has one for each of its projects, and those that are over matter little.
    const MAX_SPANS: usize = 64;

    pub fn about(&self) -> &AlertText {
        &self.about
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// As of [`IssueRecord::touched`].
    pub fn touched(&self) -> Timestamp {
        self.touched
    }

    /// That of the worst span.
    pub fn state(&self) -> AlertState {
        self.spans.values().map(|span| span.state).max().unwrap_or(AlertState::Resolved)
    }

    pub fn status(&self) -> Status {
        self.state().status()
    }

    /// Spans that are open.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.spans.iter().filter(|(_, span)| span.state != AlertState::Resolved).map(|(identifier, _)| *identifier)
    }

    /// Joins what is told, as of [`IssueRecord::take`].
    pub fn take(&mut self, report: &AlertReport, now: Timestamp) -> Heard {
        let told = Span { at: report.at, state: report.state };
        let before = self.state();
        if report.at >= self.at {
            let AlertText { name, projects, text, link } = std::mem::replace(&mut self.about, report.about.clone());
            self.about.name = self.about.name.take().or(name);
            self.about.text = self.about.text.take().or(text);
            self.about.link = self.about.link.take().or(link);
            if self.about.projects.is_empty() {
                self.about.projects = projects;
            }
            self.at = report.at;
        }
        let span = self.spans.entry(report.identifier).or_insert(Span { at: told.at, state: AlertState::Resolved });
        if told < *span {
            return if told.state == span.state { Heard::Duplicate } else { Heard::Stale };
        }
        let is_same = span.state == told.state;
        *span = told;
        self.touched = now;
        self.forget_oldest();
        if is_same && before == self.state() { Heard::Duplicate } else { Heard::Changed }
    }

    /// As of [`IssueRecord::see`].
    pub fn see(&mut self, report: &AlertReport, now: Timestamp) -> Heard {
        if self.spans.get(&report.identifier).is_some_and(|span| span.state == report.state) {
            return Heard::Duplicate;
        }
        self.take(report, now)
    }

    /// Sentry has this span no more. `false` when it was over.
    pub fn close(&mut self, identifier: u64, at: Timestamp, now: Timestamp) -> bool {
        let Some(span) = self.spans.get_mut(&identifier) else { return false };
        let is_open = span.state != AlertState::Resolved && span.at <= at;
        if is_open {
            *span = Span { at, state: AlertState::Resolved };
            self.touched = now;
        }
        is_open
    }

    /// An operator or the configuration is done with it. `false` when nothing was open.
    pub fn close_all(&mut self, at: Timestamp, now: Timestamp) -> bool {
        let open: Vec<u64> = self.open().collect();
        open.into_iter().fold(false, |closed, identifier| self.close(identifier, at, now) || closed)
    }

    fn forget_oldest(&mut self) {
        while self.spans.len() > Self::MAX_SPANS {
            let oldest = self.spans.iter().min_by_key(|(_, span)| (span.state != AlertState::Resolved, span.at));
            let Some(identifier) = oldest.map(|(identifier, _)| *identifier) else { return };
            self.spans.remove(&identifier);
        }
    }

    pub fn announce(&mut self, rule: u64, now: Timestamp) -> Option<Change> {
        let name = self.about.name.clone().unwrap_or_else(|| rule.to_string());
        let group = Group { project: None, name: Some(name) };
        self.standing.announce(self.status(), group, now)
    }
}

/// Something that is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRecord {
    pub notice: Notice,
    /// When it was heard, by our clock.
    pub touched: Timestamp,
    /// The sink has taken it. Then it is only remembered, to know a repetition.
    pub told: bool,
}
