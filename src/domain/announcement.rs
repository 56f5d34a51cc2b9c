//! From what is known of a job to what Datadog is told. Pure.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::build::{BuildReport, Outcome, Timestamp, Webhook};
use super::history::Novelty;
use super::job::{ControllerName, JobKey, JobPath};
use super::record::{JobRecord, Taken, Timings};
use super::rules::{ControllerRules, Policy, branch_name};
use super::signal::{Alert, Check, Event, JOB_STATUS, Measure, Metric, MetricName, Tag, tag};
use super::status::{Change, Status};

/// What a job's check says at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub status: Status,
    pub because: Because,
}

/// Why a job has its status.
#[derive(Clone, Debug, PartialEq)]
pub enum Because {
    /// The last decisive build. The branch is as on disk, and empty for a job without branches.
    Build { branch: String, number: u64, outcome: Outcome, node: Option<Arc<str>> },
    /// It is no longer watched.
    Closed { reason: String },
    /// The build that decided was corrected or ruled away, and there is no other.
    Undecided,
}

impl Level {
    /// `None` when there is nothing to say: no decisive build yet, or closed and told so.
    pub fn of(record: &JobRecord, policy: &Policy) -> Option<Self> {
        let due = record.announced().is_some_and(|announced| !announced.confirmed);
        if let Some(closed) = record.closed() {
            let because = Because::Closed { reason: closed.reason() };
            return due.then_some(Self { status: Status::Ok, because });
        }
        let Some(current) = record.current(policy) else {
            return due.then_some(Self { status: Status::Ok, because: Because::Undecided });
        };
        let outcome = current.build.progress.outcome()?;
        let branch = current.branch.to_owned();
        let because =
            Because::Build { branch, number: current.build.number, outcome, node: current.build.node.clone() };
        Some(Self { status: current.status, because })
    }

    /// One line for people: why the job has its status.
    pub fn message(&self, job: &JobPath) -> String {
        match &self.because {
            Because::Closed { reason } => format!("{job}: no longer watched, {reason}"),
            Because::Undecided => format!("{job}: no build decides any more"),
            Because::Build { branch, number, outcome, .. } if branch.is_empty() => {
                format!("{job} #{number}: {}", outcome.as_str())
            }
            Because::Build { branch, number, outcome, .. } => {
                format!("{job} #{number} on {}: {}", branch_name(branch), outcome.as_str())
            }
        }
    }
}

/// The words that hold for all that is said of one job.
#[derive(Clone, Debug)]
pub struct Speaker<'a> {
    key: &'a JobKey,
    rules: Option<&'a ControllerRules>,
    /// The one tag set of a job. Whatever else is known of a build stays off its check, or a failure and its recovery
    /// would be two groups.
    tags: Arc<[Tag]>,
}

impl<'a> Speaker<'a> {
    /// `rules` is `None` for a controller that is not configured any more.
    pub fn new(key: &'a JobKey, rules: Option<&'a ControllerRules>) -> Self {
        let mut tags =
            vec![Tag::new(tag::JOB, &key.job), Tag::new(tag::CONTROLLER, &key.controller), Tag::no_cardinality()];
        if let Some(rules) = rules {
            tags.extend(rules.url.clone().map(|url| Tag::new(tag::JENKINS_URL, url)));
            tags.extend(rules.tags.iter().cloned());
            tags.extend(rules.policy(&key.job).tags.iter().cloned());
        }
        Self { key, rules, tags: tags.into() }
    }

    pub fn check(&self, level: &Level) -> Check {
        Check {
            name: JOB_STATUS,
            status: level.status,
            host: host(&self.key.controller),
            tags: self.tags.clone(),
            message: level.message(&self.key.job),
        }
    }

    /// What to say of a change of status; nothing of a job that starts out well. `report` is the one that led to it, if
    /// that is known: its own link serves where the controller's address is not configured.
    pub fn event(&self, change: Change, level: &Level, report: Option<&BuildReport>, at: Timestamp) -> Option<Event> {
        let job = &self.key.job;
        let (title, alert) = match change {
            Change::First(Status::Ok) => return None,
            _ if matches!(level.because, Because::Closed { .. }) => {
                (format!("{job} is no longer watched"), Alert::Info)
            }
            _ if level.because == Because::Undecided => (format!("{job} is no longer decided"), Alert::Info),
            Change::First(status) | Change::Failed { to: status, .. } => (failed(job, status), alert(status)),
            Change::Eased { to, .. } => (format!("{job} is less bad, but {}", bad(to)), alert(to)),
            Change::Recovered { .. } => (format!("{job} recovered"), Alert::Success),
        };
        let mut text = level.message(job);
        let mut tags = self.tags.to_vec();
        if let Because::Build { branch, number, outcome, node } = &level.because {
            let told = || report.filter(|report| report.number == *number).and_then(|report| report.link.clone());
            if let Some(link) = self.build_link(branch, *number).or_else(told) {
                text.push('\n');
                text.push_str(&link);
            }
            if !branch.is_empty() {
                tags.push(Tag::new(tag::BRANCH, branch_name(branch)));
            }
            tags.push(Tag::new(tag::RESULT, outcome.as_str()));
            tags.extend(node.as_deref().map(|node| Tag::new(tag::NODE, node)));
        }
        let aggregation_key = format!("{JOB_STATUS} {}", self.key);
        Some(Event { title, text, at, host: host(&self.key.controller), aggregation_key, alert, tags: tags.into() })
    }

    /// What a build adds to the metrics, each build's start and end once.
    pub fn metrics(&self, branch: &str, report: &BuildReport, taken: &Taken) -> Vec<Metric> {
        let mut measures: Vec<(MetricName, Measure)> = Vec::new();
        match taken.novelty {
            Novelty::Started => measures.push((MetricName::JobStarted, Measure::Count(1))),
            Novelty::Finished => {
                // Nobody will tell the start of a build that only Jenkins itself has told of, when it was over.
                if taken.is_sudden && taken.build.webhook != Webhook::Came {
                    measures.push((MetricName::JobStarted, Measure::Count(1)));
                }
                measures.push((MetricName::JobCompleted, Measure::Count(1)));
            }
            Novelty::Corrected | Novelty::Duplicate | Novelty::Stale => {}
        }
        let Timings { recovered_after, failed_after, lead, cycle, feedback } = taken.timings;
        let ended = taken.novelty == Novelty::Finished;
        let gauges = [
            (MetricName::JobDuration, taken.build.duration.filter(|_| ended)),
            (MetricName::JobWaiting, taken.waited),
            (MetricName::JobMttr, recovered_after),
            (MetricName::JobMtbf, failed_after),
            (MetricName::JobLeadtime, lead),
            (MetricName::JobCycletime, cycle),
            (MetricName::JobFeedbacktime, feedback),
        ];
        let seconds = |time: Duration| Measure::Gauge(time.as_secs_f64());
        measures.extend(gauges.into_iter().filter_map(|(name, time)| Some((name, seconds(time?)))));
        if measures.is_empty() {
            return Vec::new();
        }
        let mut tags = self.tags.to_vec();
        let branch = if branch.is_empty() { report.scm_branch.as_deref() } else { Some(branch) };
        tags.extend(branch.map(|branch| Tag::new(tag::BRANCH, branch_name(branch))));
        tags.extend(taken.build.node.as_deref().map(|node| Tag::new(tag::NODE, node)));
        tags.extend(taken.build.progress.outcome().map(|outcome| Tag::new(tag::RESULT, outcome.as_str())));
        let tags: Arc<[Tag]> = tags.into();
        measures.into_iter().map(|(name, measure)| Metric { name, measure, tags: tags.clone() }).collect()
    }

    /// The address of a build's page, from the configured root alone: a payload's own link is not trusted to be one.
    fn build_link(&self, branch: &str, number: u64) -> Option<String> {
        let mut link = self.rules?.url.as_deref()?.to_owned();
        let names = self.key.job.as_str().split('/').chain(Some(branch).filter(|branch| !branch.is_empty()));
        for name in names {
            link.push_str("job/");
            link.extend(percent_encoding::utf8_percent_encode(name, NOT_IN_A_SEGMENT));
            link.push('/');
        }
        link.extend([&*number.to_string(), "/"]);
        Some(link)
    }
}

/// All but what may stand as it is in a segment of a path (RFC 3986, `pchar`). Of that `!'()*,;` is encoded all the same:
/// it may follow a link in running text, and whoever makes the text clickable would end the link before it.
const NOT_IN_A_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Constant for each controller: otherwise each node's Agent would stamp its own host on the checks that pass it.
fn host(controller: &ControllerName) -> String {
    controller.as_str().to_owned()
}

fn failed(job: &JobPath, status: Status) -> String {
    format!("{job} {}", bad(status))
}

fn bad(status: Status) -> &'static str {
    match status {
        Status::Ok => "is well",
        Status::Warning => "is unstable",
        Status::Critical => "failed",
    }
}

fn alert(status: Status) -> Alert {
    match status {
        Status::Ok => Alert::Success,
        Status::Warning => Alert::Warning,
        Status::Critical => Alert::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builds_link_encodes_what_would_not_stay_in_its_segment_and_no_more() {
        let mut rules = ControllerRules::default();
        rules.url = Some("https://ci.example.org/".into());
        let table = [
            ("acme/web", "PR-7", "job/acme/job/web/job/PR-7/"),
            ("a.b_c~d", "", "job/a.b_c~d/"),
            ("acme/web", "feature%2Fx", "job/acme/job/web/job/feature%252Fx/"),
            ("50% done?/#1", "", "job/50%25%20done%3F/job/%231/"),
            ("a@b:c+d=e&f$", "", "job/a@b:c+d=e&f$/"),
            ("(x), 'y'*;!", "", "job/%28x%29%2C%20%27y%27%2A%3B%21/"),
            ("Größe", "", "job/Gr%C3%B6%C3%9Fe/"),
        ];
        for (job, branch, expected) in table {
            let key = JobKey { controller: ControllerName::parse("main").unwrap(), job: JobPath::parse(job).unwrap() };
            let link = Speaker::new(&key, Some(&rules)).build_link(branch, 7).unwrap();
            assert_eq!(link, format!("https://ci.example.org/{expected}7/"), "{job} {branch}");
        }
    }
}
