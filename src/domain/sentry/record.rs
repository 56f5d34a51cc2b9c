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

    /// The sink has taken what was `told`, which is [`Self::standing`] as it was then. `false` when something else is due by
    /// now.
    pub fn confirm(&mut self, told: Option<&Standing>) -> bool {
        match self {
            Self::Issue(issue) => issue.standing.confirm(told),
            Self::Project(project) => project.standing.confirm(told),
            Self::Alert(alert) => alert.standing.confirm(told),
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
                    && (issue.ended != Some(Ended::Forgotten) || issue.state != IssueState::Open)
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
        // While an OK is untold, the group may still have what was told before it.
        let is_owed = self.announced.is_some_and(|told| told.status != Status::Ok || !told.confirmed);
        let before_group = std::mem::replace(&mut self.group, group);
        if moves {
            self.left.retain(|left| *left != self.group && *left != before_group);
            if is_owed && self.left.len() < Self::MAX_LEFT {
                self.left.push(before_group);
            }
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

    /// What is to be announced has been so for a while: it is told, and is no event.
    fn hush(&mut self) {
        if let Some(announced) = &mut self.announced {
            announced.before = Some(announced.status);
        }
    }

    /// A status alone would not do: meanwhile the group may be another one, and the one that it left be owed an OK.
    fn confirm(&mut self, told: Option<&Self>) -> bool {
        if told != Some(&*self) {
            return false;
        }
        match &mut self.announced {
            Some(announced) if !announced.confirmed => {
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

    /// What is to be announced has been so for a while: it is told, and is no event.
    pub fn hush(&mut self) {
        self.standing.hush();
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

    /// By Sentry's clock, when the last of it was so.
    pub fn at(&self) -> Timestamp {
        self.at
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
        open.into_iter().filter(|identifier| self.close(*identifier, at.max(self.at), now)).count() > 0
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

    /// As of [`IssueRecord::hush`].
    pub fn hush(&mut self) {
        self.standing.hush();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + second * 1_000)
    }

    fn issue(second: i64, state: IssueState, level: Level) -> IssueReport {
        let about = IssueText { project: Some("web".into()), level: Some(level), ..IssueText::default() };
        IssueReport { id: 1, state, action: "unresolved", at: at(second), about }
    }

    fn alert(identifier: u64, second: i64, state: AlertState) -> AlertReport {
        AlertReport { rule: 3, identifier, state, at: at(second), about: AlertText::default() }
    }

    /// All that is to be told is told.
    fn confirm(record: &mut SentryRecord) -> bool {
        let told = record.standing().cloned();
        record.confirm(told.as_ref())
    }

    fn heard(reports: &[IssueReport]) -> IssueRecord {
        let (first, rest) = reports.split_first().unwrap();
        let mut record = IssueRecord::new(first, NOW);
        for report in rest {
            record.take(report, NOW);
        }
        record
    }

    /// A history in which no two changes share a second, and an order in which it is told, with repetitions.
    fn told() -> impl Strategy<Value = (Vec<IssueReport>, Vec<usize>)> {
        let state = prop_oneof![Just(IssueState::Open), Just(IssueState::Resolved), Just(IssueState::Archived)];
        let level = prop::sample::select(Level::ALL.to_vec());
        prop::collection::vec((state, level), 1..8).prop_flat_map(|changes| {
            let history: Vec<IssueReport> =
                (0..).zip(changes).map(|(second, (state, level))| issue(second, state, level)).collect();
            let all: Vec<usize> = (0..history.len()).collect();
            let again = prop::collection::vec(0..history.len(), 0..8);
            let order = again.prop_map(move |again| [all.clone(), again].concat()).prop_shuffle();
            (Just(history), order)
        })
    }

    proptest! {
        /// For all histories of an issue, orders and repetitions: it ends as its latest change left it.
        #[test]
        fn the_latest_change_decides((history, order) in told()) {
            let reports: Vec<IssueReport> = order.iter().map(|index| history[*index].clone()).collect();
            let record = heard(&reports);
            let latest = history.last().unwrap();
            prop_assert_eq!(record.state(), latest.state);
            let expected = if latest.state == IssueState::Open { latest.about.level.unwrap().status() } else { Status::Ok };
            prop_assert_eq!(record.status(), expected);
        }

        /// For all histories of a metric alert's spans, orders and repetitions: it is as bad as its worst span is at last.
        #[test]
        fn the_worst_span_decides(
            changes in prop::collection::vec((1..4u64, prop::sample::select(vec![AlertState::Resolved, AlertState::Warning, AlertState::Critical])), 1..9),
            order in prop::collection::vec(0..9usize, 0..12),
        ) {
            let history: Vec<AlertReport> =
                (0..).zip(&changes).map(|(second, (identifier, state))| alert(*identifier, second, *state)).collect();
            let mut record = AlertRecord::default();
            for index in order.iter().filter(|index| **index < history.len()) {
                record.take(&history[*index], NOW);
            }
            history.iter().rev().for_each(|report| _ = record.take(report, NOW));
            let last = |identifier| changes.iter().rev().find(|(of, _)| *of == identifier).map(|(_, state)| *state);
            prop_assert_eq!(record.state(), (1..4).filter_map(last).max().unwrap());
        }
    }

    #[test]
    fn of_two_changes_in_one_second_the_one_that_leaves_it_open_counts() {
        let (open, over) = (issue(1, IssueState::Open, Level::Error), issue(1, IssueState::Resolved, Level::Error));
        assert_eq!(heard(&[open.clone(), over.clone()]).state(), IssueState::Open);
        assert_eq!(heard(&[over, open]).state(), IssueState::Open);
    }

    #[test]
    fn a_level_says_how_bad_an_open_issue_is_and_none_is_an_error() {
        let table = [
            (Some(Level::Fatal), Status::Critical),
            (Some(Level::Error), Status::Critical),
            (None, Status::Critical),
            (Some(Level::Warning), Status::Warning),
            (Some(Level::Info), Status::Warning),
        ];
        for (level, expected) in table {
            let mut report = issue(1, IssueState::Open, Level::Error);
            report.about.level = level;
            assert_eq!(heard(&[report]).status(), expected, "{level:?}");
        }
    }

    #[test]
    fn what_an_operator_forgot_is_opened_by_news_and_not_by_a_look() {
        let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
        assert!(record.end(Ended::Forgotten, None, NOW));
        assert_eq!(record.status(), Status::Ok);
        assert_eq!(record.see(&issue(9, IssueState::Open, Level::Error), NOW), Heard::Duplicate);
        assert_eq!(record.take(&issue(1, IssueState::Open, Level::Error), NOW), Heard::Duplicate);
        assert_eq!(record.status(), Status::Ok, "an echo");
        assert_eq!(record.take(&issue(2, IssueState::Open, Level::Error), NOW), Heard::Changed);
        assert_eq!(record.status(), Status::Critical);
    }

    #[test]
    fn a_change_is_announced_once_and_confirmed_once() {
        let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
        assert_eq!(record.announce(1, NOW), Some(Change::First(Status::Critical)));
        assert_eq!(record.announce(1, NOW), None);
        let before = record.standing().clone();
        record.take(&issue(2, IssueState::Resolved, Level::Error), NOW);
        assert_eq!(record.announce(1, NOW), Some(Change::Recovered { from: Status::Critical }));
        let mut stored = SentryRecord::Issue(record);
        assert!(!stored.confirm(Some(&before)), "that was before");
        assert!(confirm(&mut stored) && !confirm(&mut stored));
    }

    #[test]
    fn what_was_told_of_the_group_before_does_not_confirm_what_is_owed_to_it() {
        let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
        record.announce(1, NOW);
        let told = record.standing().clone();
        let mut moved = issue(2, IssueState::Open, Level::Error);
        moved.about.project = Some("shop".into());
        record.take(&moved, NOW);
        record.announce(1, NOW);
        let mut stored = SentryRecord::Issue(record);
        assert!(!stored.confirm(Some(&told)), "the same status, told as it moved");
        assert_eq!(stored.standing().unwrap().left().len(), 1);
    }

    #[test]
    fn an_issue_that_moves_to_another_project_is_taken_back_where_it_was() {
        let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
        record.announce(1, NOW);
        let mut moved = issue(2, IssueState::Open, Level::Error);
        moved.about.project = Some("shop".into());
        record.take(&moved, NOW);
        assert_eq!(record.announce(1, NOW), None, "no change, and no event");
        assert!(!record.standing().is_told());
        let [left] = record.standing().left() else { panic!("{record:?}") };
        assert_eq!(left.project.as_deref(), Some("web"));
        let mut stored = SentryRecord::Issue(record);
        confirm(&mut stored);
        assert!(stored.standing().unwrap().left().is_empty());
    }

    #[test]
    fn what_is_renamed_before_its_ok_was_told_is_taken_back_where_it_was() {
        let named = |second, state, name: &str| {
            let mut report = alert(1, second, state);
            report.about.name = Some(name.into());
            report
        };
        let mut record = AlertRecord::default();
        record.take(&named(1, AlertState::Critical, "CPU"), NOW);
        record.announce(3, NOW);
        let mut stored = SentryRecord::Alert(record);
        confirm(&mut stored);
        let SentryRecord::Alert(mut record) = stored else { unreachable!() };
        for (second, state, name) in [(2, AlertState::Resolved, "CPU"), (3, AlertState::Critical, "CPU high")] {
            record.take(&named(second, state, name), NOW);
            record.announce(3, NOW);
        }
        let left = |record: &AlertRecord| -> Vec<_> {
            record.standing().left().iter().filter_map(|group| group.name.clone()).collect()
        };
        assert_eq!(left(&record), ["CPU"]);
        record.take(&named(4, AlertState::Critical, "CPU"), NOW);
        record.announce(3, NOW);
        assert_eq!(left(&record), ["CPU high"], "it has its old name again");
    }

    #[test]
    fn an_issue_that_moves_before_its_ok_was_told_is_taken_back_where_it_was() {
        let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
        record.announce(1, NOW);
        let mut stored = SentryRecord::Issue(record);
        confirm(&mut stored);
        let SentryRecord::Issue(mut record) = stored else { unreachable!() };
        record.take(&issue(2, IssueState::Resolved, Level::Error), NOW);
        record.announce(1, NOW);
        let mut moved = issue(3, IssueState::Resolved, Level::Error);
        moved.about.project = Some("shop".into());
        record.take(&moved, NOW);
        record.announce(1, NOW);
        let [left] = record.standing().left() else { panic!("{record:?}") };
        assert_eq!(left.project.as_deref(), Some("web"));
    }

    #[test]
    fn what_is_over_is_remembered_for_a_day() {
        let mut record = heard(&[issue(1, IssueState::Resolved, Level::Error)]);
        record.announce(1, NOW);
        let mut stored = SentryRecord::Issue(record);
        assert!(!stored.is_over(NOW.plus(REMEMBERED)), "nobody was told yet");
        confirm(&mut stored);
        assert!(!stored.is_over(NOW));
        assert!(stored.is_over(NOW.plus(REMEMBERED)));
    }

    #[test]
    fn what_an_operator_forgot_is_remembered_while_sentry_has_it_open() {
        for (state, is_over) in [(IssueState::Open, false), (IssueState::Resolved, true)] {
            let mut record = heard(&[issue(1, IssueState::Open, Level::Error)]);
            record.end(Ended::Forgotten, None, NOW);
            if state == IssueState::Resolved {
                record.take(&issue(2, state, Level::Error), NOW);
            }
            record.announce(1, NOW);
            let mut stored = SentryRecord::Issue(record);
            confirm(&mut stored);
            assert_eq!(stored.is_over(NOW.plus(REMEMBERED)), is_over, "{state:?}");
        }
    }
}
