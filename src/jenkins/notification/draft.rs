//! What has been read of a document so far, and what it amounts to. Pure.

use std::time::Duration;

use crate::domain::build::{BuildReport, Created, Outcome, Progress, Timestamp};
use crate::domain::job::JobPath;
use crate::jenkins::document::fields;
use crate::jenkins::document::json::{Collector, Meaning};
use crate::jenkins::document::value::{Value, capped, is_plausible};
use crate::jenkins::document::{Extent, IgnoredBecause, PayloadError, Reading, Sender};
use crate::jenkins::{branch, url};

/// A part of the document that has fields of its own. The same in both formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jenkins) enum Section {
    /// Around a document that a broker has wrapped (`CloudEvents` 1.0, JSON format).
    Envelope,
    Job,
    Build,
    Scm,
    /// Of another sender's document.
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jenkins) enum Slot {
    Name,
    Url,
    BuildUrl,
    FullUrl,
    FullUrlInCamelCase,
    Number,
    Phase,
    Status,
    Timestamp,
    Duration,
    Node,
    Branch,
    Commit,
    Foreign,
}

/// The fields that are needed. Of a field that comes twice the first one that says something stays, so that a cut can
/// take away what was said but never change it.
#[derive(Debug, Default)]
pub(in crate::jenkins) struct Draft<'a> {
    build: Presence,
    /// It spells its keys as the `CloudEvents` plugin does.
    camel_case: bool,
    /// Before any build came what only other senders have.
    foreign: bool,
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

impl<'a> Collector<'a> for Draft<'a> {
    type Section = Section;
    type Slot = Slot;

    /// JSON says `full_url`, XML and the `CloudEvents` plugin say `fullUrl`; the latter also says `scmState`. `node_name` comes
    /// from a derivative of the plugin that publishes over `ZeroMQ`.
    fn meaning_of(section: Section, key: &str) -> Meaning<Section, Slot> {
        match (section, key) {
            (Section::Envelope, "data") => Meaning::Section(Section::Job),
            (Section::Job, "name") => Meaning::Field(Slot::Name),
            (Section::Job, "url") => Meaning::Field(Slot::Url),
            (Section::Job, "build") => Meaning::Section(Section::Build),
            (Section::Job, "data") => Meaning::Section(Section::Foreign),
            (Section::Job, key) if fields::is_mark(key) => Meaning::Field(Slot::Foreign),
            (Section::Build, "url") => Meaning::Field(Slot::BuildUrl),
            (Section::Build, "full_url") => Meaning::Field(Slot::FullUrl),
            (Section::Build, "fullUrl") => Meaning::Field(Slot::FullUrlInCamelCase),
            (Section::Build, "number") => Meaning::Field(Slot::Number),
            (Section::Build, "phase") => Meaning::Field(Slot::Phase),
            (Section::Build, "status") => Meaning::Field(Slot::Status),
            (Section::Build, "timestamp") => Meaning::Field(Slot::Timestamp),
            (Section::Build, "duration") => Meaning::Field(Slot::Duration),
            (Section::Build, "node_name" | "nodeName") => Meaning::Field(Slot::Node),
            (Section::Build, "scm" | "scmState" | "scm_state") => Meaning::Section(Section::Scm),
            (Section::Scm, "branch") => Meaning::Field(Slot::Branch),
            (Section::Scm, "commit") => Meaning::Field(Slot::Commit),
            _ => Meaning::Unneeded,
        }
    }

    fn open(&mut self, section: Section, is_object: bool) {
        match section {
            Section::Build if self.build == Presence::Absent => {
                self.build = if is_object { Presence::Present } else { Presence::WrongKind };
            }
            Section::Foreign => self.foreign |= self.build == Presence::Absent,
            Section::Envelope | Section::Job | Section::Build | Section::Scm => {}
        }
    }

    fn fill(&mut self, slot: Slot, value: Value<'a>) {
        let place = match slot {
            Slot::Name => &mut self.name,
            Slot::Url => &mut self.url,
            Slot::BuildUrl => &mut self.build_url,
            Slot::FullUrl => &mut self.full_url,
            Slot::FullUrlInCamelCase => {
                self.camel_case = true;
                &mut self.full_url
            }
            Slot::Number => &mut self.number,
            Slot::Phase => &mut self.phase,
            Slot::Status => &mut self.status,
            Slot::Timestamp => &mut self.timestamp,
            Slot::Duration => &mut self.duration,
            Slot::Node => &mut self.node,
            Slot::Branch => &mut self.branch,
            Slot::Commit => &mut self.commit,
            Slot::Foreign => {
                self.foreign |= self.build == Presence::Absent;
                return;
            }
        };
        if *place == Value::Absent {
            *place = value;
        }
    }
}

impl Draft<'_> {
    /// The document is another sender's, who is told by what came first: that is the same when the rest is cut off.
    pub(in crate::jenkins) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whose JSON it is.
    pub(in crate::jenkins) fn sender(&self) -> Sender {
        if self.camel_case { Sender::CloudEvents } else { Sender::Notification }
    }

    /// # Errors
    /// When a field is missing or wrong without which there is no telling which build it is and how far it came.
    pub(in crate::jenkins) fn conclude(self, extent: Extent) -> Result<Reading, PayloadError> {
        match self.build {
            Presence::Absent => return Err(PayloadError::absent("build", extent)),
            Presence::WrongKind => return Err(PayloadError::WrongKind { field: "build", expected: "an object" }),
            Presence::Present => {}
        }
        let phase = match self.phase.required("build.phase", extent)? {
            word if word.eq_ignore_ascii_case("QUEUED") => Phase::Queued,
            word if word.eq_ignore_ascii_case("STARTED") => Phase::Started,
            // Before plugin 1.6 there was one word for the end.
            word if word.eq_ignore_ascii_case("COMPLETED") || word.eq_ignore_ascii_case("FINISHED") => Phase::Completed,
            word if word.eq_ignore_ascii_case("FINALIZED") => Phase::Finalized,
            word if word.eq_ignore_ascii_case("NONE") => return Ok(Reading::Ignored(IgnoredBecause::NoPhase)),
            _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownPhase)),
        };
        let number = self.number.required_build_number("build.number", extent)?;
        let job = self.job(extent)?;
        let progress = match (&phase, &self.status) {
            // A running build may carry the result so far, or any word.
            (Phase::Queued | Phase::Started, _) => Progress::Running,
            (_, Value::Absent) if extent == Extent::Whole => {
                return Ok(Reading::Ignored(IgnoredBecause::NoResult));
            }
            (Phase::Completed, status) => Progress::Completed(outcome(status, extent)?),
            (Phase::Finalized, status) => Progress::Finalized(outcome(status, extent)?),
        };
        let duration = self.duration.as_duration();
        let created = self.timestamp.as_integer().and_then(|sent| created(&phase, sent, duration));
        let scm_branch = self.branch.as_text().map(|name| branch::without_remote(name, &job));
        Ok(BuildReport {
            parent_holds: branch::parent_holds(&job, scm_branch, None),
            number,
            progress,
            created,
            queued: created.filter(|_| matches!(phase, Phase::Queued)).map(Created::earliest),
            duration,
            scm_branch: scm_branch.map(capped),
            commit: self.commit.as_kept_text(),
            node: self.node.as_kept_text(),
            link: self.full_url.as_link(),
            job,
        }
        .into())
    }

    /// The name alone is the last resort, for every multibranch project has a `main`; and none at all when the body was
    /// cut off, for a URL may have followed.
    fn job(&self, extent: Extent) -> Result<JobPath, PayloadError> {
        let urls = [&self.url, &self.build_url, &self.full_url];
        if let Some(job) = urls.into_iter().filter_map(Value::as_text).find_map(url::job_path) {
            return Ok(job);
        }
        if matches!(self.url, Value::Other | Value::Truth(_)) {
            return Err(PayloadError::WrongKind { field: "url", expected: "a text" });
        }
        match (self.name.as_text(), extent) {
            (Some(name), Extent::Whole) => JobPath::parse(name).map_err(|_| PayloadError::absent("url", extent)),
            _ => Err(PayloadError::absent("url", extent)),
        }
    }
}

fn outcome(status: &Value<'_>, extent: Extent) -> Result<Outcome, PayloadError> {
    status.required("build.status", extent).map(Outcome::read)
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
    (is_plausible(sent) && is_plausible(created.latest)).then_some(created)
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
            (Phase::Completed, i64::MIN, Some(Duration::from_hours(365 * 24)), None),
            (Phase::Completed, 60_000, minute, None),
        ];
        for (phase, sent, duration, expected) in table {
            assert_eq!(created(&phase, sent, duration), expected, "{sent} {duration:?}");
        }
    }
}
