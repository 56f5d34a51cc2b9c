//! The fields of all senders but the Notification plugin, by their paths, and the sender that they give away. Pure.

use super::json::{Collector, Meaning};
use super::value::Value;
use super::{Extent, PayloadError, Sender};

/// Every field that any sender's document may be known by or read from. A section is what stands before a dot.
const WANTED: &[&str] = &[
    "type",
    "source",
    "time",
    "data.build.number",
    "data.number",
    "data.result",
    "data.timestamp",
    "data.duration",
    "data.builtOn",
    "data.fullName",
    "data.name",
    "data._multiBranch",
    "data._parentFullName",
    "data._projectName",
    "metaData.oldName",
    "metaData.newName",
    "fullJobName",
    "jobName",
    "ciUrl",
    "buildUrl",
    "jobUrl",
    "status",
    "startTime",
    "endTime",
    "updatedDate",
    "slaveInfo.slaveName",
    "scmInfo.branch",
    "scmInfo.commit",
    "buildStepId",
    "jenkinsQueueId",
    "createdDate",
    "configFile",
    "numExecutors",
    "displayName",
    "event",
    "buildName",
    "projectName",
    "job",
    "number",
    "result",
    "timestamp",
    "duration",
    "branch",
    "multibranch",
    "commit",
    "node",
    "url",
];

/// What only one sender has. What two of them have tells nothing.
const MARKS: &[(&str, Sender)] = &[
    ("data.build.", Sender::CloudEvents),
    ("data.number", Sender::GenericEvent),
    ("data.result", Sender::GenericEvent),
    ("data.fullName", Sender::GenericEvent),
    ("data._multiBranch", Sender::GenericEvent),
    ("metaData.", Sender::GenericEvent),
    ("fullJobName", Sender::StatisticsGatherer),
    ("jobName", Sender::StatisticsGatherer),
    ("ciUrl", Sender::StatisticsGatherer),
    ("startTime", Sender::StatisticsGatherer),
    ("endTime", Sender::StatisticsGatherer),
    ("slaveInfo.", Sender::StatisticsGatherer),
    ("displayName", Sender::CloudEvents),
    ("numExecutors", Sender::CloudEvents),
    ("event", Sender::OutboundWebhook),
    ("buildName", Sender::OutboundWebhook),
    ("projectName", Sender::OutboundWebhook),
    ("job", Sender::Step),
];

/// The outermost section.
pub(super) const ROOT: &str = "";

/// Whether a key of the outermost object is one that the Notification plugin does not write there.
pub(in crate::jenkins) fn is_mark(key: &str) -> bool {
    !matches!(key, "url" | "displayName" | "status" | "type" | "time") && WANTED.contains(&key)
}

/// The fields that were found. Of one that comes twice the first that says something stays.
#[derive(Debug, Default)]
pub(in crate::jenkins) struct Fields<'a> {
    sender: Option<Sender>,
    sections: Vec<&'static str>,
    found: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Collector<'a> for Fields<'a> {
    type Section = &'static str;
    type Slot = &'static str;

    fn meaning_of(section: &'static str, key: &str) -> Meaning<&'static str, &'static str> {
        if key.contains('.') {
            return Meaning::Unneeded;
        }
        for path in WANTED {
            let Some(rest) = path.strip_prefix(section).and_then(|rest| rest.strip_prefix(key)) else { continue };
            if rest.is_empty() {
                return Meaning::Field(path);
            }
            if rest.starts_with('.') {
                return path.get(..=section.len() + key.len()).map_or(Meaning::Unneeded, Meaning::Section);
            }
        }
        Meaning::Unneeded
    }

    fn open(&mut self, section: &'static str, is_object: bool) {
        self.mark(section);
        if is_object && !self.has_section(section) {
            self.sections.push(section);
        }
    }

    fn fill(&mut self, path: &'static str, value: Value<'a>) {
        self.mark(path);
        match self.found.iter_mut().find(|(known, _)| *known == path) {
            None => self.found.push((path, value)),
            Some((_, known @ Value::Absent)) => *known = value,
            Some(_) => {}
        }
    }
}

impl<'a> Fields<'a> {
    fn mark(&mut self, path: &str) {
        if self.sender.is_none() {
            self.sender = MARKS.iter().find(|(mark, _)| *mark == path).map(|(_, sender)| *sender);
        }
    }

    /// Whose document it is, by the first mark in it.
    pub(super) fn sender(&self) -> Option<Sender> {
        self.sender
    }

    /// Whether this object is there; its name ends in a dot.
    pub(in crate::jenkins) fn has_section(&self, section: &str) -> bool {
        self.sections.contains(&section)
    }

    pub(in crate::jenkins) fn get(&self, path: &str) -> &Value<'a> {
        debug_assert!(WANTED.contains(&path), "{path} is never read");
        self.found.iter().find(|(known, _)| *known == path).map_or(&Value::Absent, |(_, value)| value)
    }

    pub(in crate::jenkins) fn has(&self, path: &str) -> bool {
        *self.get(path) != Value::Absent
    }

    pub(in crate::jenkins) fn text(&self, path: &str) -> Option<&str> {
        self.get(path).as_text()
    }

    /// # Errors
    /// When the field is missing or of a kind that says nothing.
    pub(in crate::jenkins) fn required(&self, path: &'static str, extent: Extent) -> Result<&str, PayloadError> {
        self.get(path).required(path, extent)
    }

    /// # Errors
    /// When the field is missing or not the number of a build.
    pub(in crate::jenkins) fn build_number(&self, path: &'static str, extent: Extent) -> Result<u64, PayloadError> {
        self.get(path).required_build_number(path, extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_something_that_is_read() {
        for (mark, _) in MARKS {
            let read = WANTED.iter().any(|path| path == mark || (mark.ends_with('.') && path.starts_with(mark)));
            assert!(read, "{mark}");
        }
    }

    #[test]
    fn a_key_counts_in_its_own_section_alone() {
        let table = [
            (ROOT, "job", Meaning::Field("job")),
            (ROOT, "jo", Meaning::Unneeded),
            (ROOT, "data", Meaning::Section("data.")),
            (ROOT, "data.number", Meaning::Unneeded),
            ("data.", "number", Meaning::Field("data.number")),
            ("data.", "build", Meaning::Section("data.build.")),
            ("data.", "job", Meaning::Unneeded),
            ("metaData.", "oldName", Meaning::Field("metaData.oldName")),
            ("scmInfo.", "url", Meaning::Unneeded),
        ];
        for (section, key, expected) in table {
            assert_eq!(Fields::meaning_of(section, key), expected, "{section} {key}");
        }
    }
}
