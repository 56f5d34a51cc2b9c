//! Whatever a sender posts, as bytes: whose document it is shows by its shape, never by a content type. Pure.
//!
//! The first byte tells JSON from XML and from a form; older plugins get the content type wrong. The Notification
//! plugin's documents are read in one pass. Who else sent a JSON document is told by the first of its keys that only
//! that sender has, so that a body that was cut off is never taken for somebody else's.

pub(super) mod fields;
pub(super) mod json;
pub(super) mod value;

use std::borrow::Cow;
use std::fmt;

use super::notification::{self, Draft, Section};
use super::{generic_event, outbound_webhook, statistics_gatherer, step};
use crate::domain::build::BuildReport;
use crate::domain::removal::Removal;

use fields::Fields;

/// How much of a body there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// The rest was not read because the body is too large.
    CutOff,
}

/// A document that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub sender: Sender,
    pub reading: Reading,
}

/// Who sends documents of this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    Notification,
    CloudEvents,
    GenericEvent,
    StatisticsGatherer,
    OutboundWebhook,
    /// A step of a Pipeline or of a shell, in our own schema.
    Step,
}

impl Sender {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::CloudEvents => "cloudevents",
            Self::GenericEvent => "generic_event",
            Self::StatisticsGatherer => "statistics_gatherer",
            Self::OutboundWebhook => "outbound_webhook",
            Self::Step => "step",
        }
    }
}

/// What a document amounts to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Report(Box<BuildReport>),
    /// An item that Jenkins has no more at its path.
    Gone(Removal),
    Ignored(IgnoredBecause),
}

impl From<BuildReport> for Reading {
    fn from(report: BuildReport) -> Self {
        Self::Report(Box::new(report))
    }
}

/// Why a sound document tells nothing that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoredBecause {
    /// `NONE`: the plugin's word for "no phase".
    NoPhase,
    /// A phase that no known version of the plugin sends.
    UnknownPhase,
    /// A finished build without a result.
    NoResult,
    /// It is about a node, the queue, a step of a build, or an item that stays where it is.
    NotABuild,
    /// A kind of event that no known version of the plugin sends.
    UnknownEvent,
    /// A part of another build, which tells the result of all of them: an axis of a matrix, a Maven module.
    PartOfABuild,
    /// An old build was thrown away, which changes nothing of its job.
    BuildDeleted,
}

impl IgnoredBecause {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPhase => "no_phase",
            Self::UnknownPhase => "unknown_phase",
            Self::NoResult => "no_result",
            Self::NotABuild => "not_a_build",
            Self::UnknownEvent => "unknown_event",
            Self::PartOfABuild => "part_of_a_build",
            Self::BuildDeleted => "build_deleted",
        }
    }
}

/// Why a body is no document of a build. A message never repeats what the body says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the body is empty: send the Notification plugin's document in it")]
    Empty,
    #[error("the body begins with {first}: set the endpoint's format to JSON or XML and send it uncompressed")]
    Unrecognised { first: FirstByte },
    #[error("the body is not {format} at line {line}, column {column}: send the plugin's document unchanged")]
    Syntax { format: Format, line: usize, column: usize },
    #[error("the outermost XML element is not `job`: send the plugin's document unchanged")]
    ForeignRoot,
    #[error("the XML has a document type definition, which is refused: leave it out")]
    DocumentType,
    #[error("the XML is nested deeper than {limit} elements, which is refused")]
    TooDeep { limit: usize },
    #[error("the field `{field}` is missing: send the plugin's document unchanged")]
    Missing { field: &'static str },
    #[error("the field `{field}` is missing: a build needs `job` or `url`, and `number` and `result`")]
    MissingInStep { field: &'static str },
    #[error("the field `{field}` is not {expected}")]
    WrongKind { field: &'static str, expected: &'static str },
    #[error("the body was cut off at the size limit before `{field}`: put it before the log, or raise the limit")]
    CutOff { field: &'static str },
}

impl PayloadError {
    /// A field that is needed is not there.
    pub(super) fn absent(field: &'static str, extent: Extent) -> Self {
        match extent {
            Extent::Whole => Self::Missing { field },
            Extent::CutOff => Self::CutOff { field },
        }
    }

    /// As a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Unrecognised { .. } => "unrecognised",
            Self::Syntax { .. } => "syntax",
            Self::ForeignRoot => "foreign_root",
            Self::DocumentType => "document_type",
            Self::TooDeep { .. } => "too_deep",
            Self::Missing { .. } | Self::MissingInStep { .. } => "missing_field",
            Self::WrongKind { .. } => "wrong_kind",
            Self::CutOff { .. } => "cut_off",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Xml,
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Json => "JSON",
            Self::Xml => "XML",
        })
    }
}

/// The byte that a body begins with, shown as a character only where that is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstByte(u8);

impl fmt::Display for FirstByte {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            graphic if graphic.is_ascii_graphic() => write!(out, "`{}`", char::from(graphic)),
            other => write!(out, "the byte {other:#04x}"),
        }
    }
}

/// Reads one document of any sender.
///
/// A document that was cut off never tells of another build than the whole would have: it gives the same number and
/// progress, and the same job as long as the document's own names and URLs agree, or an error.
///
/// # Errors
/// When the body is no sender's document, or was cut off before it said what it is about.
pub fn read(body: &[u8], extent: Extent) -> Result<Document, PayloadError> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii_start();
    // Bytes that are not UTF-8 come from a build's log, which must not cost the event.
    let text = std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    match body.first() {
        None => Err(PayloadError::Empty),
        Some(b'{') => read_json(&text, extent),
        Some(b'<') => read_xml(&text, extent),
        Some(_) if step::is_form(&text) => {
            Ok(Document { sender: Sender::Step, reading: step::read_form(&text, extent)? })
        }
        Some(first) => Err(PayloadError::Unrecognised { first: FirstByte(*first) }),
    }
}

fn read_xml(text: &str, extent: Extent) -> Result<Document, PayloadError> {
    let mut draft = Draft::default();
    let ended = notification::read_xml(text, extent, &mut draft)?;
    Ok(Document { sender: Sender::Notification, reading: draft.conclude(reach(ended, extent))? })
}

fn read_json(text: &str, extent: Extent) -> Result<Document, PayloadError> {
    let mut draft = Draft::default();
    match json::read(text, extent, Section::Job, &mut draft) {
        Ok(_) if draft.is_foreign() => read_foreign(text, extent),
        Ok(ended) => Ok(Document { sender: draft.sender(), reading: draft.conclude(reach(ended, extent))? }),
        // Written by hand, a document may end in a comma.
        Err(error) if draft.is_foreign() => match without_last_comma(text) {
            Some(text) => read_foreign(&text, extent).map_err(|_| error),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn read_foreign(text: &str, extent: Extent) -> Result<Document, PayloadError> {
    let mut fields = Fields::default();
    let ended = json::read(text, extent, fields::ROOT, &mut fields)?;
    let extent = reach(ended, extent);
    let sender = match (fields.sender(), extent) {
        (Some(sender), _) => sender,
        (None, Extent::Whole) if fields.has("type") => Sender::GenericEvent,
        (None, Extent::Whole) => Sender::Step,
        (None, Extent::CutOff) => return Err(PayloadError::CutOff { field: "job" }),
    };
    let reading = match sender {
        Sender::Notification | Sender::CloudEvents => unwrapped(text, &fields, extent)?,
        Sender::GenericEvent => generic_event::conclude(&fields, extent)?,
        Sender::StatisticsGatherer => statistics_gatherer::conclude(&fields, extent)?,
        Sender::OutboundWebhook => outbound_webhook::conclude(&fields, extent)?,
        Sender::Step => step::conclude(&fields, extent)?,
    };
    Ok(Document { sender, reading })
}

/// A build's document in the envelope of a broker, or an event of the `CloudEvents` plugin that is of no build.
fn unwrapped(text: &str, fields: &Fields<'_>, extent: Extent) -> Result<Reading, PayloadError> {
    if !fields.has_section("data.build.") {
        return Ok(Reading::Ignored(IgnoredBecause::NotABuild));
    }
    let mut draft = Draft::default();
    json::read(text, extent, Section::Envelope, &mut draft)?;
    draft.conclude(extent)
}

/// What came to its end is whole, whatever its sender said.
fn reach(ended: bool, extent: Extent) -> Extent {
    if ended { Extent::Whole } else { extent }
}

fn without_last_comma(text: &str) -> Option<String> {
    let inside = text.trim_ascii_end().strip_suffix('}')?.trim_ascii_end().strip_suffix(',')?;
    Some(format!("{inside}}}"))
}

#[cfg(test)]
mod tests;
