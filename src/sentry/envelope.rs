//! An envelope, or a `store/` body, with tags spliced into its events. Pure.
//!
//! The body is never parsed into anything and written anew: whatever is not understood is passed on, byte for byte, and
//! counted by the reason. What goes out is slices of what came in, with the tags between. Only an item that may be given
//! tags is held until it is whole, at most [`LARGEST_ITEM`]; all else runs by in constant memory. See
//! <https://develop.sentry.dev/sdk/data-model/envelopes/>.
//!
//! For a body that is there as a whole, [`splice`] is all that is needed:
//! ```
//! # use std::sync::Arc;
//! # use recoverd::sentry::envelope::{Kind, Tags, splice};
//! let tags = Arc::new(Tags::new([("pod_name", "web-1")]));
//! let body = "{}\n{\"type\":\"event\",\"length\":2}\n{}\n";
//! let mut out = Vec::new();
//! let report = splice(Kind::Envelope, tags, body.into(), &mut out);
//! assert!(report.is_changed());
//! assert_eq!(out.concat(), b"{}\n{\"type\":\"event\",\"length\":29}\n{\"tags\":{\"pod_name\":\"web-1\"}}\n");
//! ```
//! Otherwise a [`Splicer`] takes it in pieces.

mod header;
mod json;
mod payload;
mod report;
mod splicer;
mod tags;

use std::sync::Arc;

use bytes::Bytes;

pub use header::HeaderDsn;
pub use report::{Category, Item, Level, Outcome, PassedBecause, Report};
pub use splicer::Splicer;
pub use tags::Tags;

/// The largest item that is looked into, in bytes, with its tags: what Sentry takes.
pub const LARGEST_ITEM: usize = 1 << 20;

/// What a body is, by the path that it is posted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/api/{project}/envelope/`
    Envelope,
    /// `/api/{project}/store/`: one event, without anything around it.
    Store,
}

/// All of a body at once.
pub fn splice(kind: Kind, tags: Arc<Tags>, body: Bytes, out: &mut Vec<Bytes>) -> Report {
    Splicer::new(kind, tags).finish(body, out)
}

#[cfg(test)]
mod tests;
