//! What an envelope had in it, and what became of it. Pure.

use std::collections::BTreeMap;

/// What was found in a body and done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many items there were of each sort. There are no more entries than sorts, however many items.
    pub items: BTreeMap<Item, u64>,
    /// The `event_id` of the envelope's header, or of a `store/` body: what Sentry answers with. Up to 36 characters, hex and
    /// dashes.
    pub event_id: Option<Box<str>>,
    /// How many bytes longer the body has become: none if no byte was changed.
    pub added: u64,
}

impl Report {
    /// Whether any byte differs from what was received.
    pub fn is_changed(&self) -> bool {
        self.added > 0
    }

    pub(super) fn count(&mut self, category: Category, level: Option<Level>, outcome: Outcome) {
        *self.items.entry(Item { category, level, outcome }).or_default() += 1;
    }
}

/// A sort of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    pub category: Category,
    /// Of an event; of what was not looked into, and of other kinds, none.
    pub level: Option<Level>,
    pub outcome: Outcome,
}

/// What an item is, by the `type` in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    Event,
    Transaction,
    Feedback,
    Log,
    Attachment,
    Session,
    Sessions,
    CheckIn,
    ClientReport,
    UserReport,
    Profile,
    ProfileChunk,
    Replay,
    Span,
    Metric,
    TraceMetric,
    /// Of a type that is not known here, or whose header was not understood.
    Other,
}

impl Category {
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            "event" => Self::Event,
            "transaction" => Self::Transaction,
            "feedback" => Self::Feedback,
            "log" => Self::Log,
            "attachment" => Self::Attachment,
            "session" => Self::Session,
            "sessions" => Self::Sessions,
            "check_in" => Self::CheckIn,
            "client_report" => Self::ClientReport,
            "user_report" => Self::UserReport,
            "profile" => Self::Profile,
            "profile_chunk" => Self::ProfileChunk,
            "replay_event" | "replay_recording" | "replay_video" => Self::Replay,
            "span" => Self::Span,
            "statsd" | "metric_buckets" => Self::Metric,
            "trace_metric" => Self::TraceMetric,
            _ => Self::Other,
        }
    }

    /// Whether tags can be put on it.
    pub(super) fn takes_tags(self) -> bool {
        matches!(self, Self::Event | Self::Transaction | Self::Feedback | Self::Log)
    }

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Transaction => "transaction",
            Self::Feedback => "feedback",
            Self::Log => "log",
            Self::Attachment => "attachment",
            Self::Session => "session",
            Self::Sessions => "sessions",
            Self::CheckIn => "check_in",
            Self::ClientReport => "client_report",
            Self::UserReport => "user_report",
            Self::Profile => "profile",
            Self::ProfileChunk => "profile_chunk",
            Self::Replay => "replay",
            Self::Span => "span",
            Self::Metric => "metric",
            Self::TraceMetric => "trace_metric",
            Self::Other => "other",
        }
    }
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

impl Level {
    /// Sentry takes an event that says nothing, or nothing it knows, for an error.
    pub(super) fn of(text: &[u8]) -> Self {
        match text {
            b"debug" => Self::Debug,
            b"info" | b"log" => Self::Info,
            b"warning" => Self::Warning,
            b"fatal" | b"critical" => Self::Fatal,
            _ => Self::Error,
        }
    }

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// At least one tag was put on it.
    Enriched,
    /// Nothing to add: the app itself has set every tag.
    AlreadyTagged,
    /// Every byte is as it was received.
    Passed(PassedBecause),
}

impl Outcome {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enriched => "enriched",
            Self::AlreadyTagged => "already_tagged",
            Self::Passed(reason) => reason.as_str(),
        }
    }
}

/// Why an item is passed on as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PassedBecause {
    /// It is of a kind that takes no tags.
    OtherKind,
    /// There are no tags: whose item it is is not known, or tags are switched off.
    NoTags,
    /// It is larger than what Sentry takes.
    TooLarge,
    /// With the tags it would be larger than what Sentry takes.
    WouldBeTooLarge,
    /// It comes after as many items of its envelope as are looked into.
    TooMany,
    /// It is not a JSON object in UTF-8, with a log not one that has a list of objects.
    Malformed,
    /// A key that matters comes twice: which of them counts depends on the reader.
    DuplicateKey,
    /// Its tags, or attributes, are of no form that is known.
    OddTags,
    /// There is no memory left to hold it in until it is whole. What comes after it is not looked at.
    NoRoom,
    /// The envelope ends within it.
    Truncated,
    /// Its length leads to no end of an item. What comes after it is not looked at.
    WrongLength,
    /// A header is not understood. What comes after it is not looked at.
    OddHeader,
}

impl PassedBecause {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherKind => "other_kind",
            Self::NoTags => "no_tags",
            Self::TooLarge => "too_large",
            Self::WouldBeTooLarge => "would_be_too_large",
            Self::TooMany => "too_many",
            Self::Malformed => "malformed",
            Self::DuplicateKey => "duplicate_key",
            Self::OddTags => "odd_tags",
            Self::NoRoom => "no_room",
            Self::Truncated => "truncated",
            Self::WrongLength => "wrong_length",
            Self::OddHeader => "odd_header",
        }
    }
}
