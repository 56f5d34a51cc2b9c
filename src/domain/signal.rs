//! What goes to Datadog, before it has a wire form: checks, events and metrics, and every name that they bear. Pure.
//!
//! Text in here is as it came. The `datadog` room makes it safe for the wire.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::build::Timestamp;
use super::status::Status;

/// One tag, `key:value`, or a bare word when the value is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub key: Cow<'static, str>,
    /// Shared: every signal of a job bears its names again.
    pub value: Arc<str>,
}

impl Tag {
    pub fn new(key: &'static str, value: impl Into<Arc<str>>) -> Self {
        Self { key: Cow::Borrowed(key), value: value.into() }
    }

    /// Keeps the Agent from adding tags of the sender's own.
    pub fn no_cardinality() -> Self {
        static NONE: LazyLock<Arc<str>> = LazyLock::new(|| "none".into());
        Self::new(tag::CARDINALITY, NONE.clone())
    }

    /// Reads an operator's `key:value`.
    pub fn parse(raw: &str) -> Self {
        let (key, value) = raw.split_once(':').unwrap_or((raw, ""));
        Self { key: Cow::Owned(key.trim().to_owned()), value: value.trim().into() }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() { out.write_str(&self.key) } else { write!(out, "{}:{}", self.key, self.value) }
    }
}

/// The keys of tags that recoverd sets itself.
pub mod tag {
    pub const JOB: &str = "job";
    pub const CONTROLLER: &str = "controller";
    pub const JENKINS_URL: &str = "jenkins_url";
    pub const BRANCH: &str = "branch";
    pub const RESULT: &str = "result";
    pub const NODE: &str = "node";
    /// The configured name of a Sentry integration.
    pub const INTEGRATION: &str = "integration";
    /// A Sentry project's slug.
    pub const PROJECT: &str = "project";
    /// A Sentry issue's short id.
    pub const ISSUE: &str = "issue";
    /// A metric alert's name.
    pub const ALERT: &str = "alert";
    pub const ALERT_ID: &str = "alert_id";
    /// The issue alert that an event set off.
    pub const RULE: &str = "rule";
    pub const LEVEL: &str = "level";
    /// What happened to an issue or a metric alert.
    pub const ACTION: &str = "action";
    pub const STATUS: &str = "status";
    /// The pod that an event came from, at the names of Datadog's own integrations.
    pub const POD_NAME: &str = "pod_name";
    pub const KUBE_NAMESPACE: &str = "kube_namespace";
    /// Its value `none` keeps the Agent from adding the sender's own pod and image, which differ from pod to pod and
    /// would split a check. The Agent strips it.
    pub const CARDINALITY: &str = "dd.internal.card";

    /// Of an item that an SDK sends: an event, a transaction, …
    pub const CATEGORY: &str = "category";

    /// What is on the signals of jobs: nobody else may set these.
    pub const OF_JOBS: [&str; 7] = [JOB, CONTROLLER, JENKINS_URL, BRANCH, RESULT, NODE, CARDINALITY];
    /// What is on those of Sentry and the relay. An operator's own tags of that name are on all else.
    pub const OF_SENTRY: [&str; 12] =
        [INTEGRATION, PROJECT, ISSUE, ALERT, ALERT_ID, RULE, LEVEL, ACTION, STATUS, CATEGORY, POD_NAME, KUBE_NAMESPACE];
}

/// The service check of a Jenkins job; Datadog's own plugin calls it so.
pub const JOB_STATUS: &str = "jenkins.job.status";
/// The service check of a Sentry issue.
pub const ISSUE_STATUS: &str = "sentry.issue.status";
/// The service check of a Sentry project: its worst open issue.
pub const PROJECT_STATUS: &str = "sentry.project.status";
/// The service check of a Sentry metric alert.
pub const ALERT_STATUS: &str = "sentry.alert.status";

pub const CHECKS: [&str; 4] = [JOB_STATUS, ISSUE_STATUS, PROJECT_STATUS, ALERT_STATUS];

/// The metrics of builds and controllers, at the names and units of Datadog's Jenkins plugin, and those of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricName {
    /// Count of builds begun.
    JobStarted,
    /// Count of builds ended.
    JobCompleted,
    /// Seconds that a build took.
    JobDuration,
    /// Seconds that a build stood in the queue, until it was created. Told once, when both times are known for certain.
    JobWaiting,
    /// Seconds from the first bad build to the good one that ended the trouble.
    JobMttr,
    /// Seconds from the last good build to the bad one.
    JobMtbf,
    /// Seconds that a good build took, and before it those from the creation of the first bad build to its own, if there
    /// was trouble.
    JobLeadtime,
    /// Seconds between the ends of two good builds.
    JobCycletime,
    /// Seconds that a bad build took to tell so.
    JobFeedbacktime,
    /// Builds under way.
    JobCurrentlyBuilding,
    /// Jobs, branches among them.
    ProjectCount,
    /// What waits to be built, for whatever reason.
    QueueSize,
    /// Of that, what lacks only an executor.
    QueueBuildable,
    /// Of that, what is about to begin.
    QueuePending,
    /// Of that, what has waited for longer than Jenkins thinks right.
    QueueStuck,
    /// Of that, what waits for something else than an executor.
    QueueBlocked,
    /// Executors of all nodes.
    ExecutorCount,
    ExecutorFree,
    ExecutorInUse,
    /// Nodes, the built-in one among them.
    NodeCount,
    NodeOnline,
    NodeOffline,
    /// Count of what happened to Sentry's issues, by `action`.
    SentryIssueChanged,
    /// Count of what happened to Sentry's metric alerts, by `action`.
    SentryAlertChanged,
    /// Count of events that set off an issue alert.
    SentryEventAlert,
    /// Count of events of errors that Sentry told of.
    SentryError,
    /// Count of comments on issues.
    SentryComment,
    /// Open issues of a project, by `status`.
    SentryIssuesOpen,
    /// Count of what SDKs sent to Sentry through the relay.
    RelayEvents,
}

impl MetricName {
    pub const ALL: [Self; 29] = [
        Self::JobStarted,
        Self::JobCompleted,
        Self::JobDuration,
        Self::JobWaiting,
        Self::JobMttr,
        Self::JobMtbf,
        Self::JobLeadtime,
        Self::JobCycletime,
        Self::JobFeedbacktime,
        Self::JobCurrentlyBuilding,
        Self::ProjectCount,
        Self::QueueSize,
        Self::QueueBuildable,
        Self::QueuePending,
        Self::QueueStuck,
        Self::QueueBlocked,
        Self::ExecutorCount,
        Self::ExecutorFree,
        Self::ExecutorInUse,
        Self::NodeCount,
        Self::NodeOnline,
        Self::NodeOffline,
        Self::SentryIssueChanged,
        Self::SentryAlertChanged,
        Self::SentryEventAlert,
        Self::SentryError,
        Self::SentryComment,
        Self::SentryIssuesOpen,
        Self::RelayEvents,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobStarted => "jenkins.job.started",
            Self::JobCompleted => "jenkins.job.completed",
            Self::JobDuration => "jenkins.job.duration",
            Self::JobWaiting => "jenkins.job.waiting",
            Self::JobMttr => "jenkins.job.mttr",
            Self::JobMtbf => "jenkins.job.mtbf",
            Self::JobLeadtime => "jenkins.job.leadtime",
            Self::JobCycletime => "jenkins.job.cycletime",
            Self::JobFeedbacktime => "jenkins.job.feedbacktime",
            Self::JobCurrentlyBuilding => "jenkins.job.currently_building",
            Self::ProjectCount => "jenkins.project.count",
            Self::QueueSize => "jenkins.queue.size",
            Self::QueueBuildable => "jenkins.queue.buildable",
            Self::QueuePending => "jenkins.queue.pending",
            Self::QueueStuck => "jenkins.queue.stuck",
            Self::QueueBlocked => "jenkins.queue.blocked",
            Self::ExecutorCount => "jenkins.executor.count",
            Self::ExecutorFree => "jenkins.executor.free",
            Self::ExecutorInUse => "jenkins.executor.in_use",
            Self::NodeCount => "jenkins.node.count",
            Self::NodeOnline => "jenkins.node.online",
            Self::NodeOffline => "jenkins.node.offline",
            Self::SentryIssueChanged => "sentry.issue.changed",
            Self::SentryAlertChanged => "sentry.alert.changed",
            Self::SentryEventAlert => "sentry.event_alert.triggered",
            Self::SentryError => "sentry.error.created",
            Self::SentryComment => "sentry.comment.created",
            Self::SentryIssuesOpen => "sentry.issues.open",
            Self::RelayEvents => "sentry.relay.events",
        }
    }
}

/// How a metric adds up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// So many more.
    Count(u32),
    /// The value now, in the unit that the name is documented with.
    Gauge(f64),
}

/// A service check: the level of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// Constant for each source, or every Agent would stamp its own.
    pub host: String,
    pub tags: Arc<[Tag]>,
    /// For people; shortened before any tag is.
    pub message: String,
}

/// How an event is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    Error,
    Warning,
    Success,
    Info,
}

/// Something that happened once.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub title: String,
    pub text: String,
    pub at: Timestamp,
    pub host: String,
    /// Events of one key stand together in Datadog.
    pub aggregation_key: String,
    pub alert: Alert,
    pub tags: Arc<[Tag]>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: MetricName,
    pub measure: Measure,
    /// All samples of one build share them.
    pub tags: Arc<[Tag]>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    Check(Check),
    Event(Event),
    Metric(Metric),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_tag_is_split_at_its_first_colon() {
        let table = [("team:web", "team:web"), ("a:b:c", "a:b:c"), ("bare", "bare"), (" team : web ", "team:web")];
        for (raw, expected) in table {
            assert_eq!(Tag::parse(raw).to_string(), expected, "{raw}");
        }
        assert_eq!(Tag::parse("a:b:c").key, "a");
    }
}
