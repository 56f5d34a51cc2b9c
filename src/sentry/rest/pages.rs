//! A list, page by page, with one question under way at a time. It ends for every answer, one that goes in a circle too.

use std::collections::HashSet;

use tokio::time::Instant;

use super::shown::List;
use super::{Fault, RemoteApi, RestError};
use crate::domain::build::Timestamp;

/// The most that Sentry gives at once (`sentry.api.paginator.MAX_LIMIT`).
const WIDTH: &str = "100";
/// A hundred thousand open issues are nobody's to look at; the rest is not asked for.
const MAX_PAGES: usize = 1_000;

/// See [`RemoteApi::unresolved`].
#[derive(Debug)]
pub struct Pages<'a, T> {
    api: &'a RemoteApi,
    list: &'static str,
    query: Vec<(&'static str, &'static str)>,
    read: fn(&[u8]) -> Result<List<T>, Fault>,
    deadline: Instant,
    next: Next,
    asked: HashSet<String>,
}

#[derive(Debug)]
enum Next {
    First,
    Cursor(String),
    /// All pages were shown, or as many as are taken.
    Nothing {
        is_whole: bool,
    },
}

/// Some items of a list.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Items that lack what makes them known.
    pub unreadable: usize,
    /// See [`super::Dated::asked`].
    pub asked: Option<Timestamp>,
    /// Sentry's own time when it answered, to the second.
    pub clock: Option<Timestamp>,
}

impl<'a, T> Pages<'a, T> {
    pub(super) fn new(
        api: &'a RemoteApi,
        list: &'static str,
        query: &[(&'static str, &'static str)],
        read: fn(&[u8]) -> Result<List<T>, Fault>,
    ) -> Self {
        let deadline = api.deadline();
        Self { api, list, query: query.to_vec(), read, deadline, next: Next::First, asked: HashSet::new() }
    }

    /// Some more items. `None` when there are no more.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    ///
    /// # Cancel safety
    /// A call that is dropped loses its page: the list is then to be dropped as well.
    pub async fn next(&mut self) -> Result<Option<Page<T>>, RestError> {
        let mut query = self.query.clone();
        query.push(("limit", WIDTH));
        match &self.next {
            Next::First => {}
            Next::Cursor(cursor) => query.push(("cursor", cursor)),
            Next::Nothing { .. } => return Ok(None),
        }
        let answer = self.api.ask(&[self.list], &query, self.deadline).await?;
        let List { items, unreadable } = (self.read)(&answer.body).map_err(|fault| answer.refuse(fault))?;
        self.next = match &answer.next {
            None => Next::Nothing { is_whole: true },
            Some(_) if self.asked.len() + 1 >= MAX_PAGES => Next::Nothing { is_whole: false },
            Some(cursor) if !self.asked.insert(cursor.clone()) => return Err(answer.refuse(Fault::Circle)),
            Some(cursor) => Next::Cursor(cursor.clone()),
        };
        Ok(Some(Page { items, unreadable, asked: answer.asked, clock: answer.date }))
    }

    /// Whether all that there is was shown, once [`Self::next`] has said that there is no more.
    pub fn is_whole(&self) -> bool {
        matches!(self.next, Next::Nothing { is_whole: true })
    }
}
