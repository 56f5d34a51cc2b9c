//! What has been read of a document so far, and what it amounts to. Pure.

use std::borrow::Cow;
use std::time::Duration;

use crate::domain::build::{BuildReport, Created, Outcome, Progress, Timestamp};
use crate::domain::job::JobPath;
use crate::jenkins::{branch, url};

use super::{Extent, IgnoredBecause, PayloadError, Reading};

/// A part of the document that has fields of its own. The same in both formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Job,
    Build,
    Scm,
}

/// What a key means in its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Field(Slot),
    Section(Section),
    Unneeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Name,
    Url,
    BuildUrl,
    FullUrl,
    Number,
    Phase,
    Status,
    Timestamp,
    Duration,
    Node,
    Branch,
    Commit,
}

impl Section {
    /// JSON says `full_url`, XML and the `CloudEvents` plugin say `fullUrl`; the latter also says `scmState`. `node_name` comes
    /// from a derivative of the plugin that publishes over `ZeroMQ`.
    pub(super) fn meaning_of(self, key: &str) -> Meaning {
        match (self, key) {
            (Self::Job, "name") => Meaning::Field(Slot::Name),
            (Self::Job, "url") => Meaning::Field(Slot::Url),
            (Self::Job, "build") => Meaning::Section(Self::Build),
            (Self::Build, "url") => Meaning::Field(Slot::BuildUrl),
            (Self::Build, "full_url" | "fullUrl") => Meaning::Field(Slot::FullUrl),
            (Self::Build, "number") => Meaning::Field(Slot::Number),
            (Self::Build, "phase") => Meaning::Field(Slot::Phase),
            (Self::Build, "status") => Meaning::Field(Slot::Status),
            (Self::Build, "timestamp") => Meaning::Field(Slot::Timestamp),
            (Self::Build, "duration") => Meaning::Field(Slot::Duration),
            (Self::Build, "node_name" | "nodeName") => Meaning::Field(Slot::Node),
            (Self::Build, "scm" | "scmState" | "scm_state") => Meaning::Section(Self::Scm),
            (Self::Scm, "branch") => Meaning::Field(Slot::Branch),
            (Self::Scm, "commit") => Meaning::Field(Slot::Commit),
            _ => Meaning::Unneeded,
        }
    }
}

/// One value, as its text.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Value<'a> {
    /// Missing, null or blank.
    #[default]
    Absent,
    /// Not blank. A number is its digits: some senders quote them, and XML knows no kinds.
    Text(Cow<'a, str>),
    /// An object, a list, a truth value.
    Other,
}

impl<'a> Value<'a> {
    pub(super) fn text(text: Cow<'a, str>) -> Self {
        let trimmed = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        if trimmed.is_empty() { Self::Absent } else { Self::Text(trimmed) }
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Other => None,
        }
    }

    fn as_integer(&self) -> Option<i64> {
        let text = self.as_text()?;
        text.strip_suffix(".0").unwrap_or(text).parse().ok()
    }
}

/// The fields that are needed. Of a field that comes twice the first one that says something stays, so that a cut can
/// take away what was said but never change it.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    build: Presence,
    name: Value<'a>,
    url: Value<'a>,
    build_url: Value<'a>,
    full_url: Value<'a>,
    number: Value<'a>,
    phase: Value<'a>,
    status: Value<'a>,
    timestamp: Value<'a>,
    duration: Value<'a>,
    node: Value<'a>,
    branch: Value<'a>,
    commit: Value<'a>,
}

#[derive(Debug, Default, PartialEq)]
enum Presence {
    #[default]
    Absent,
    Present,
    WrongKind,
}

enum Phase {
    Queued,
    Started,
    Completed,
    Finalized,
}

impl<'a> Draft<'a> {
    pub(super) fn fill(&mut self, slot: Slot, value: Value<'a>) {
        let place = match slot {
            Slot::Name => &mut self.name,
            Slot::Url => &mut self.url,
            Slot::BuildUrl => &mut self.build_url,
            Slot::FullUrl => &mut self.full_url,
            Slot::Number => &mut self.number,
            Slot::Phase => &mut self.phase,
            Slot::Status => &mut self.status,
            Slot::Timestamp => &mut self.timestamp,
            Slot::Duration => &mut self.duration,
            Slot::Node => &mut self.node,
            Slot::Branch => &mut self.branch,
            Slot::Commit => &mut self.commit,
        };
        if *place == Value::Absent {
            *place = value;
        }
    }

    /// A section begins, as the object that it should be or as something else.
    pub(super) fn open(&mut self, section: Section, is_object: bool) {
        if section == Section::Build && self.build == Presence::Absent {
            self.build = if is_object { Presence::Present } else { Presence::WrongKind };
        }
    }

    /// # Errors
    /// When a field is missing or wrong without which there is no telling which build it is and how far it came.
    pub(super) fn conclude(self, extent: Extent) -> Result<Reading, PayloadError> {
        let missing = |field| match extent {
            Extent::Whole => PayloadError::Missing { field },
            Extent::CutOff => PayloadError::CutOff { field },
        };
        match self.build {
            Presence::Absent => return Err(missing("build")),
            Presence::WrongKind => return Err(PayloadError::WrongKind { field: "build", expected: "an object" }),
            Presence::Present => {}
        }
        let phase = match required(&self.phase, "build.phase", missing)? {
            word if word.eq_ignore_ascii_case("QUEUED") => Phase::Queued,
            word if word.eq_ignore_ascii_case("STARTED") => Phase::Started,
            // Before plugin 1.6 there was one word for the end.
            word if word.eq_ignore_ascii_case("COMPLETED") || word.eq_ignore_ascii_case("FINISHED") => Phase::Completed,
            word if word.eq_ignore_ascii_case("FINALIZED") => Phase::Finalized,
            word if word.eq_ignore_ascii_case("NONE") => return Ok(Reading::Ignored(IgnoredBecause::NoPhase)),
            _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownPhase)),
        };
        let number = self.number(missing)?;
        let job = self.job(extent, missing)?;
        let progress = match (&phase, &self.status) {
            // A running build may carry the result so far, or any word.
            (Phase::Queued | Phase::Started, _) => Progress::Running,
            (_, Value::Absent) if extent == Extent::Whole => {
                return Ok(Reading::Ignored(IgnoredBecause::NoResult));
            }
            (Phase::Completed, status) => Progress::Completed(outcome(status, missing)?),
            (Phase::Finalized, status) => Progress::Finalized(outcome(status, missing)?),
        };
        let duration = self.duration.as_integer().and_then(plausible_duration);
        let created = self.timestamp.as_integer().and_then(|sent| created(&phase, sent, duration));
        let scm_branch = self.branch.as_text().map(|name| branch::without_remote(name, &job));
        Ok(Reading::Report(BuildReport {
            is_branch: branch::is_branch(&job, scm_branch),
            number,
            progress,
            created,
            queued: created.filter(|_| matches!(phase, Phase::Queued)).map(Created::earliest),
            duration,
            scm_branch: scm_branch.map(capped),
            commit: self.commit.as_text().map(capped),
            node: self.node.as_text().map(capped),
            link: self.full_url.as_text().filter(|link| is_link(link)).map(str::to_owned),
            job,
        }))
    }

    /// Jenkins counts builds in a Java `int`, from 1.
    fn number(&self, missing: impl Fn(&'static str) -> PayloadError) -> Result<u64, PayloadError> {
        required(&self.number, "build.number", missing)?;
        self.number
            .as_integer()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0)
            .map_or(Err(PayloadError::WrongKind { field: "build.number", expected: "a build's number" }), |number| {
                Ok(number.into())
            })
    }

    /// The name alone is the last resort, for every multibranch project has a `main`; and none at all when the body was
    /// cut off, for a URL may have followed.
    fn job(&self, extent: Extent, missing: impl Fn(&'static str) -> PayloadError) -> Result<JobPath, PayloadError> {
        let urls = [&self.url, &self.build_url, &self.full_url];
        if let Some(job) = urls.into_iter().filter_map(Value::as_text).find_map(url::job_path) {
            return Ok(job);
        }
        if self.url == Value::Other {
            return Err(PayloadError::WrongKind { field: "url", expected: "a text" });
        }
        match (self.name.as_text(), extent) {
            (Some(name), Extent::Whole) => JobPath::parse(name).map_err(|_| missing("url")),
            _ => Err(missing("url")),
        }
    }
}

fn required<'v>(
    value: &'v Value<'_>,
    field: &'static str,
    missing: impl Fn(&'static str) -> PayloadError,
) -> Result<&'v str, PayloadError> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Absent => Err(missing(field)),
        Value::Other => Err(PayloadError::WrongKind { field, expected: "a text or a number" }),
    }
}

fn outcome(status: &Value<'_>, missing: impl Fn(&'static str) -> PayloadError) -> Result<Outcome, PayloadError> {
    required(status, "build.status", missing).map(Outcome::read)
}

/// When the build was created, from the time that the plugin sent: since 1.12 and for each phase another
/// (`Phase.handle` of the plugin).
fn created(phase: &Phase, sent: i64, duration: Option<Duration>) -> Option<Created> {
    let sent = Timestamp::from_millis(sent);
    let created = match (phase, duration) {
        (Phase::Started, _) => Created::exactly(sent),
        // What it sends is when the build entered the queue: it is created when it leaves it.
        (Phase::Queued, _) => Created::at_most(Created::LONGEST_BUILD, sent.plus(Created::LONGEST_BUILD)),
        (Phase::Completed, Some(duration)) => Created::exactly(sent.minus(duration)),
        (Phase::Finalized, Some(duration)) => Created::at_most(Created::AFTER_COMPLETION, sent.minus(duration)),
        (Phase::Completed | Phase::Finalized, None) => Created::at_most(Created::LONGEST_BUILD, sent),
    };
    let plausible = |moment: Timestamp| moment.as_millis() > 0 && moment <= LATEST;
    (plausible(sent) && plausible(created.latest)).then_some(created)
}

/// The year 2200: what is later is no time, but perhaps nanoseconds.
const LATEST: Timestamp = Timestamp::from_millis(7_258_118_400_000);

/// No build runs for a year.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Zero means that the build is still running, or that the plugin is older than 1.15.
fn plausible_duration(millis: i64) -> Option<Duration> {
    let duration = Duration::from_millis(u64::try_from(millis).ok()?);
    (!duration.is_zero() && duration <= LONGEST).then_some(duration)
}

const LONGEST_TEXT: usize = 1024;
const LONGEST_LINK: usize = 2048;

fn capped(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or(text).to_owned()
}

/// A cut link leads elsewhere, so a long one is none.
fn is_link(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && text.len() <= LONGEST_LINK
        && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: i64 = 1_750_000_090_000;

    #[test]
    fn each_phase_tells_the_time_of_creation_in_its_own_way() {
        let minute = Some(Duration::from_mins(1));
        let exactly = |millis| Some(Created::exactly(Timestamp::from_millis(millis)));
        let at_most = |slack, millis| Some(Created::at_most(slack, Timestamp::from_millis(millis)));
        let table = [
            (Phase::Started, SENT, None, exactly(SENT)),
            (Phase::Started, SENT, minute, exactly(SENT)),
            (Phase::Queued, SENT, None, at_most(Created::LONGEST_BUILD, SENT + 86_400_000)),
            (Phase::Completed, SENT, minute, exactly(SENT - 60_000)),
            (Phase::Completed, SENT, None, at_most(Created::LONGEST_BUILD, SENT)),
            (Phase::Finalized, SENT, minute, at_most(Created::AFTER_COMPLETION, SENT - 60_000)),
            (Phase::Finalized, SENT, None, at_most(Created::LONGEST_BUILD, SENT)),
            // Absurd times are none.
            (Phase::Started, 0, None, None),
            (Phase::Started, -SENT, None, None),
            (Phase::Started, i64::MIN, None, None),
            (Phase::Started, i64::MAX, None, None),
            (Phase::Started, SENT * 1_000_000, None, None),
            (Phase::Completed, i64::MIN, Some(LONGEST), None),
            (Phase::Completed, 60_000, minute, None),
        ];
        for (phase, sent, duration, expected) in table {
            assert_eq!(created(&phase, sent, duration), expected, "{sent} {duration:?}");
        }
    }

    #[test]
    fn a_duration_is_more_than_nothing_and_less_than_a_year() {
        let table = [
            (1, Some(Duration::from_millis(1))),
            (90_000, Some(Duration::from_secs(90))),
            (0, None),
            (-1, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ];
        for (millis, expected) in table {
            assert_eq!(plausible_duration(millis), expected, "{millis}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_a_long_link_is_none() {
        assert_eq!(capped(&"é".repeat(10_000)).len(), LONGEST_TEXT);
        assert_eq!(capped(&format!("x{}", "é".repeat(10_000))).len(), LONGEST_TEXT - 1);
        let table = [
            ("https://jenkins.example.org/job/a/1/".to_owned(), true),
            ("http://jenkins.example.org/".to_owned(), true),
            ("javascript:alert(1)".to_owned(), false),
            ("job/a/1/".to_owned(), false),
            ("https://jenkins.example.org/\n".to_owned() + "x", false),
            (format!("https://{}", "x".repeat(LONGEST_LINK)), false),
        ];
        for (link, expected) in table {
            assert_eq!(is_link(&link), expected, "{link:?}");
        }
    }
}
