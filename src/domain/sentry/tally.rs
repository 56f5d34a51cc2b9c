//! A project's issues at a glance: how many are open, how bad, and which is to go when there are too many. Pure.

use std::collections::BTreeMap;

use super::record::IssueRecord;
use crate::domain::build::Timestamp;
use crate::domain::status::Status;

/// The issues of one project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    issues: BTreeMap<u64, Mark>,
    critical: u64,
    warning: u64,
    over: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at: Timestamp,
    status: Status,
    /// Nothing is left to say of it.
    is_told: bool,
}

/// What makes room for another issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This one is over, and may be forgotten.
    Forget(u64),
    /// All are open; this one has been quiet for longest.
    Close(u64),
}

impl Tally {
    /// Issues of one project that are watched one by one.
    pub const MAX_ISSUES: usize = 10_000;

    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// Open issues at error or fatal.
    pub fn critical(&self) -> u64 {
        self.critical
    }

    /// Open issues below that.
    pub fn warning(&self) -> u64 {
        self.warning
    }

    pub fn put(&mut self, id: u64, record: &IssueRecord) {
        self.remove(id);
        let mark = Mark { at: record.at(), status: record.status(), is_told: record.standing().is_told() };
        *self.count(mark.status) += 1;
        self.issues.insert(id, mark);
    }

    pub fn remove(&mut self, id: u64) {
        if let Some(mark) = self.issues.remove(&id) {
            *self.count(mark.status) -= 1;
        }
    }

    fn count(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Critical => &mut self.critical,
            Status::Warning => &mut self.warning,
            Status::Ok => &mut self.over,
        }
    }

    /// What has to go, so that `latest` may stay; the oldest that is over first.
    pub fn overflow(&self, latest: u64) -> Option<Room> {
        if self.issues.len() <= Self::MAX_ISSUES {
            return None;
        }
        let others = || self.issues.iter().filter(|(id, _)| **id != latest);
        // While nobody can be told, even what waits for that goes in the end: disk is not without bounds.
        let is_full = self.issues.len() > 2 * Self::MAX_ISSUES;
        let oldest_over = others().filter(|(_, mark)| mark.status == Status::Ok && (mark.is_told || is_full));
        if let Some((id, _)) = oldest_over.min_by_key(|(_, mark)| mark.at) {
            return Some(Room::Forget(*id));
        }
        // Those that are over and were not told yet make room as soon as they are.
        let are_too_many = self.critical + self.warning > Self::MAX_ISSUES as u64;
        let open = others().filter(|(_, mark)| mark.status != Status::Ok).min_by_key(|(_, mark)| mark.at);
        open.filter(|_| are_too_many).map(|(id, _)| Room::Close(*id))
    }
}
