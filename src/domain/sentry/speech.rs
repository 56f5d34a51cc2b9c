//! From what is known of Sentry's issues and alerts to what Datadog is told. Pure.

use std::sync::Arc;

use super::record::{AlertRecord, Group, IssueRecord, NoticeRecord, ProjectRecord, SentryRecord};
use super::{AlertState, IntegrationName, IssueState, IssueText, NoticeKind, SentryKey, Subject};
use crate::domain::build::Timestamp;
use crate::domain::rules::Rulebook;
use crate::domain::signal::{
    ALERT_STATUS, Alert, Check, Event, ISSUE_STATUS, Measure, Metric, MetricName, PROJECT_STATUS, Signal, Tag, tag,
};
use crate::domain::status::{Change, Status};

/// Something of Sentry's that is durable now, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SentryNews {
    pub key: SentryKey,
    pub record: SentryRecord,
    pub change: Option<Change>,
    /// What just happened to it, in Sentry's word; counted.
    pub action: Option<&'static str>,
}

/// The words for all that is said of one integration's things.
#[derive(Clone, Debug)]
pub struct SentrySpeaker<'a> {
    integration: &'a IntegrationName,
    /// The operator's.
    tags: &'a [Tag],
}

impl<'a> SentrySpeaker<'a> {
    pub fn new(integration: &'a IntegrationName, rulebook: &'a Rulebook) -> Self {
        Self { integration, tags: rulebook.integration(integration).map_or(&[], |tags| tags) }
    }

    /// All that one piece of news is to Datadog.
    pub fn signals(&self, news: &SentryNews, now: Timestamp, into: &mut Vec<Signal>) {
        self.checks(&news.key.subject, &news.record, into);
        if let Some(event) = self.event(&news.key.subject, &news.record, news.change, now) {
            into.push(Signal::Event(event));
        }
        into.extend(self.count(&news.record, news.action).map(Signal::Metric));
    }

    /// The level, as every round says it, and first what is to be taken back.
    pub fn checks(&self, subject: &Subject, record: &SentryRecord, into: &mut Vec<Signal>) {
        let Some(standing) = record.standing() else { return };
        let (name, message) = match (subject, record) {
            (Subject::Issue(id), SentryRecord::Issue(issue)) => (ISSUE_STATUS, issue_message(*id, issue)),
            (_, SentryRecord::Project(project)) => (PROJECT_STATUS, project_message(project)),
            (Subject::Alert(rule), SentryRecord::Alert(alert)) => (ALERT_STATUS, alert_message(*rule, alert)),
            _ => return,
        };
        let Some(announced) = standing.announced() else { return };
        let check = |status, group: &Group, message| {
            let tags = self.check_tags(subject, group);
            Signal::Check(Check { name, status, host: self.host(), tags, message })
        };
        let moved = |group| check(Status::Ok, group, "it has another name or project in Sentry now".to_owned());
        into.extend(standing.left().iter().map(moved));
        into.push(check(announced.status, standing.group(), message));
    }

    /// What to say of a change of status; nothing of what starts out well. A project changes with its issues, which speak
    /// for themselves.
    pub fn event(
        &self,
        subject: &Subject,
        record: &SentryRecord,
        change: Option<Change>,
        now: Timestamp,
    ) -> Option<Event> {
        match record {
            SentryRecord::Issue(issue) => self.issue_event(subject, issue, change?, now),
            SentryRecord::Alert(alert) => self.alert_event(subject, alert, change?, now),
            SentryRecord::Notice(notice) => (!notice.told).then(|| self.notice_event(notice)),
            SentryRecord::Project(_) => None,
        }
    }

    fn issue_event(&self, subject: &Subject, issue: &IssueRecord, change: Change, at: Timestamp) -> Option<Event> {
        let about = issue.about();
        let name = issue.standing().group().name.clone().unwrap_or_default();
        let (said, alert) = match (change, issue.ended()) {
            (Change::First(Status::Ok), _) => return None,
            (_, Some(_)) => ("is no longer watched", Alert::Info),
            (Change::Recovered { .. }, _) if issue.state() == IssueState::Archived => ("was archived", Alert::Info),
            (Change::Recovered { .. } | Change::First(_), None) if issue.is_closed() => {
                ("was resolved", Alert::Success)
            }
            (Change::Recovered { .. }, _) => ("was resolved", Alert::Success),
            (Change::First(status), _) => ("is new", alert(status)),
            (Change::Failed { from: Status::Ok, to }, _) => ("is open again", alert(to)),
            (Change::Failed { to, .. }, _) => ("is worse", alert(to)),
            (Change::Eased { to, .. }, _) => ("is less bad", alert(to)),
        };
        let title = match &about.title {
            Some(title) => format!("{name} {said}: {title}"),
            None => format!("{name} {said}"),
        };
        let mut text = issue.ended().map_or_else(String::new, |why| format!("no longer watched, {}\n", why.reason()));
        text.push_str(&described(about.culprit.as_deref(), about.link.as_deref(), &title));
        let mut tags = self.check_tags(subject, issue.standing().group()).to_vec();
        tags.extend(about.level.map(|level| Tag::new(tag::LEVEL, level.as_str())));
        Some(self.event_of(title, text, at, format!("{ISSUE_STATUS} {} {subject}", self.integration), alert, tags))
    }

    fn alert_event(&self, subject: &Subject, record: &AlertRecord, change: Change, at: Timestamp) -> Option<Event> {
        let about = record.about();
        let name = record.standing().group().name.clone().unwrap_or_default();
        let (said, alert) = match change {
            Change::First(Status::Ok) => return None,
            Change::Recovered { .. } => ("recovered", Alert::Success),
            Change::Eased { to, .. } => ("is less bad", alert(to)),
            Change::First(to) | Change::Failed { to, .. } => {
                (if to == Status::Critical { "is critical" } else { "warns" }, alert(to))
            }
        };
        let title = format!("{name} {said}");
        let text = described(about.text.as_deref(), about.link.as_deref(), &title);
        let mut tags = self.check_tags(subject, record.standing().group()).to_vec();
        tags.extend(about.projects.iter().map(|slug| Tag::new(tag::PROJECT, slug.as_str())));
        Some(self.event_of(title, text, at, format!("{ALERT_STATUS} {} {subject}", self.integration), alert, tags))
    }

    fn notice_event(&self, NoticeRecord { notice, .. }: &NoticeRecord) -> Event {
        let what = notice.title.as_deref().or(notice.rule.as_deref()).unwrap_or("without a title");
        let title = match notice.kind {
            NoticeKind::EventAlert => match &notice.rule {
                Some(rule) => format!("{rule}: {what}"),
                None => format!("Alert: {what}"),
            },
            NoticeKind::Error => format!("Error: {what}"),
            NoticeKind::Comment => format!("Comment: {what}"),
            NoticeKind::Plugin => format!("Sentry: {what}"),
        };
        let text = described(notice.culprit.as_deref(), notice.link.as_deref(), &title);
        let alert = match notice.kind {
            NoticeKind::Comment => Alert::Info,
            _ => notice.level.map_or(Alert::Error, |level| alert(level.status())),
        };
        // With the issue's own events, where it is known.
        let about = notice.issue.map_or_else(|| format!("notice/{}", notice.id), |id| Subject::Issue(id).to_string());
        let key = format!("{ISSUE_STATUS} {} {about}", self.integration);
        self.event_of(title, text, notice.at, key, alert, self.notice_tags(notice))
    }

    fn event_of(
        &self,
        title: String,
        text: String,
        at: Timestamp,
        aggregation_key: String,
        alert: Alert,
        tags: Vec<Tag>,
    ) -> Event {
        Event { title, text, at, host: self.host(), aggregation_key, alert, tags: tags.into() }
    }

    /// What just happened, counted.
    fn count(&self, record: &SentryRecord, action: Option<&'static str>) -> Option<Metric> {
        let (name, tags) = match record {
            SentryRecord::Issue(issue) => {
                let IssueText { project, level, .. } = issue.about();
                let mut tags = self.common(project.as_deref());
                tags.push(Tag::new(tag::ACTION, action?));
                tags.extend(level.map(|level| Tag::new(tag::LEVEL, level.as_str())));
                (MetricName::SentryIssueChanged, tags)
            }
            SentryRecord::Alert(alert) => {
                let mut tags = self.common(None);
                tags.push(Tag::new(tag::ACTION, action?));
                tags.extend(alert.standing().group().name.as_deref().map(|name| Tag::new(tag::ALERT, name)));
                (MetricName::SentryAlertChanged, tags)
            }
            SentryRecord::Notice(record) => {
                action?;
                let name = match record.notice.kind {
                    NoticeKind::EventAlert | NoticeKind::Plugin => MetricName::SentryEventAlert,
                    NoticeKind::Error => MetricName::SentryError,
                    NoticeKind::Comment => MetricName::SentryComment,
                };
                (name, self.notice_tags(&record.notice))
            }
            SentryRecord::Project(_) => return None,
        };
        Some(Metric { name, measure: Measure::Count(1), tags: tags.into() })
    }

    /// How many issues of a project are open.
    pub fn gauges(&self, slug: &str, project: &ProjectRecord) -> [Metric; 2] {
        [(Status::Critical, project.critical), (Status::Warning, project.warning)].map(|(status, open)| {
            let mut tags = self.common(Some(slug));
            tags.push(Tag::new(tag::STATUS, status.as_str().to_ascii_lowercase()));
            #[expect(clippy::cast_precision_loss, reason = "at most some ten thousand")]
            let measure = Measure::Gauge(open as f64);
            Metric { name: MetricName::SentryIssuesOpen, measure, tags: tags.into() }
        })
    }

    fn notice_tags(&self, notice: &super::Notice) -> Vec<Tag> {
        let mut tags = self.common(notice.project.as_deref());
        let optional = [
            (tag::RULE, notice.rule.as_deref()),
            (tag::LEVEL, notice.level.map(super::Level::as_str)),
            (tag::POD_NAME, notice.pod_name.as_deref()),
            (tag::KUBE_NAMESPACE, notice.pod_namespace.as_deref()),
        ];
        tags.extend(optional.into_iter().filter_map(|(key, value)| Some(Tag::new(key, value?))));
        tags
    }

    /// The one tag set of a check: nothing that could differ from one report to the next.
    fn check_tags(&self, subject: &Subject, group: &Group) -> Arc<[Tag]> {
        let mut tags = self.common(group.project.as_deref());
        let name = group.name.as_deref().unwrap_or_default();
        match subject {
            Subject::Issue(_) => tags.push(Tag::new(tag::ISSUE, name)),
            Subject::Alert(rule) => {
                tags.extend([Tag::new(tag::ALERT, name), Tag::new(tag::ALERT_ID, rule.to_string())]);
            }
            Subject::Project(_) | Subject::Notice(..) => {}
        }
        tags.into()
    }

    fn common(&self, project: Option<&str>) -> Vec<Tag> {
        let mut tags = vec![Tag::new(tag::INTEGRATION, self.integration), Tag::no_cardinality()];
        tags.extend(project.map(|slug| Tag::new(tag::PROJECT, slug)));
        tags.extend(self.tags.iter().cloned());
        tags
    }

    /// Constant for each integration: otherwise each node's Agent would stamp its own host on the checks that pass it.
    fn host(&self) -> String {
        self.integration.as_str().to_owned()
    }
}

/// One line for people: why an issue has its status.
pub fn issue_message(id: u64, issue: &IssueRecord) -> String {
    let about = issue.about();
    let name = about.short_id.clone().unwrap_or_else(|| id.to_string());
    let title = about.title.as_deref().unwrap_or("without a title");
    if let Some(why) = issue.ended() {
        return format!("{name}: no longer watched, {}", why.reason());
    }
    let level = about.level.map(|level| format!(" ({})", level.as_str())).unwrap_or_default();
    let link = about.link.as_deref().map(|link| format!(" {link}")).unwrap_or_default();
    format!("{name} {}{level}: {title}{link}", issue.state().as_str())
}

pub fn project_message(project: &ProjectRecord) -> String {
    match (project.critical, project.warning) {
        (0, 0) => "no open issue".to_owned(),
        (critical, warning) => {
            format!("{} open, {critical} of them at error or fatal", plural(critical + warning, "issue"))
        }
    }
}

pub fn alert_message(rule: u64, alert: &AlertRecord) -> String {
    let about = alert.about();
    let name = about.name.clone().unwrap_or_else(|| rule.to_string());
    let text = about.text.as_deref().filter(|_| alert.state() != AlertState::Resolved);
    let text = text.map(|text| format!(": {text}")).unwrap_or_default();
    let link = about.link.as_deref().map(|link| format!(" {link}")).unwrap_or_default();
    format!("{name} {}{text}{link}", alert.state().as_str())
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Never empty, which Datadog would refuse.
fn described(what: Option<&str>, link: Option<&str>, otherwise: &str) -> String {
    let lines: Vec<&str> = what.into_iter().chain(link).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { otherwise.to_owned() } else { lines.join("\n") }
}

fn alert(status: Status) -> Alert {
    match status {
        Status::Ok => Alert::Success,
        Status::Warning => Alert::Warning,
        Status::Critical => Alert::Error,
    }
}
