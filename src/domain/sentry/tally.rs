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
    /// This one is over too, and nobody was told.
    GiveUp(u64),
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

    /// Another open issue would displace one.
    pub fn is_full(&self) -> bool {
        self.critical + self.warning >= Self::MAX_ISSUES as u64
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

    /// What has to go, so that `latest` may stay; first the oldest that is over and was told.
    pub fn overflow(&self, latest: u64) -> Option<Room> {
        if self.issues.len() <= Self::MAX_ISSUES {
            return None;
        }
        let others = || self.issues.iter().filter(|(id, _)| **id != latest);
        // While nobody can be told, even what waits for that goes in the end: disk is not without bounds.
        let is_full = self.issues.len() > 2 * Self::MAX_ISSUES;
        let over = others().filter(|(_, mark)| mark.status == Status::Ok && (mark.is_told || is_full));
        if let Some((id, mark)) = over.min_by_key(|(_, mark)| (!mark.is_told, mark.at)) {
            return Some(if mark.is_told { Room::Forget(*id) } else { Room::GiveUp(*id) });
        }
        // Those that are over and were not told yet make room as soon as they are.
        let are_too_many = self.critical + self.warning > Self::MAX_ISSUES as u64;
        let open = others().filter(|(_, mark)| mark.status != Status::Ok).min_by_key(|(_, mark)| mark.at);
        open.filter(|_| are_too_many).map(|(id, _)| Room::Close(*id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sentry::record::SentryRecord;
    use crate::domain::sentry::{IssueReport, IssueState, IssueText, Level};

    fn issue(id: u64, state: IssueState, is_told: bool) -> IssueRecord {
        let at = Timestamp::from_millis(i64::try_from(id).unwrap());
        let about = IssueText { level: Some(Level::Error), ..IssueText::default() };
        let mut record = IssueRecord::new(&IssueReport { id, state, action: "created", at, about }, at);
        record.announce(id, at);
        let mut stored = SentryRecord::Issue(record);
        if is_told {
            let told = stored.standing().cloned();
            stored.confirm(told.as_ref());
        }
        let SentryRecord::Issue(record) = stored else { unreachable!() };
        record
    }

    fn full(state: impl Fn(u64) -> (IssueState, bool)) -> Tally {
        let mut tally = Tally::default();
        for id in 1..=Tally::MAX_ISSUES as u64 + 1 {
            let (state, is_told) = state(id);
            tally.put(id, &issue(id, state, is_told));
        }
        tally
    }

    #[test]
    fn the_oldest_that_is_over_goes_first_and_open_ones_only_when_all_are() {
        let latest = Tally::MAX_ISSUES as u64 + 1;
        let over = full(|id| (if id == 70 || id == 80 { IssueState::Resolved } else { IssueState::Open }, true));
        assert_eq!(over.overflow(latest), Some(Room::Forget(70)));
        let open = full(|_| (IssueState::Open, true));
        assert_eq!(open.overflow(latest), Some(Room::Close(1)));
        let untold = full(|id| if id == 70 { (IssueState::Resolved, false) } else { (IssueState::Open, true) });
        assert_eq!(untold.overflow(latest), None, "its OK is about to be told");
        let mut room = open;
        room.remove(9);
        assert_eq!(room.overflow(latest), None);
    }

    #[test]
    fn an_untold_end_is_given_up_only_when_no_told_one_can_go() {
        let latest = 2 * Tally::MAX_ISSUES as u64 + 1;
        let mut tally = Tally::default();
        for id in 1..=latest {
            tally.put(id, &issue(id, IssueState::Resolved, id == 70));
        }
        assert_eq!(tally.overflow(latest), Some(Room::Forget(70)));
        tally.put(70, &issue(70, IssueState::Resolved, false));
        assert_eq!(tally.overflow(latest), Some(Room::GiveUp(1)));
    }

    #[test]
    fn open_issues_are_counted_as_they_come_and_go() {
        let mut tally = Tally::default();
        for _ in 0..2 {
            tally.put(1, &issue(1, IssueState::Open, true));
        }
        tally.put(2, &issue(2, IssueState::Resolved, true));
        assert_eq!((tally.critical(), tally.warning()), (1, 0));
        tally.put(1, &issue(1, IssueState::Archived, true));
        assert_eq!((tally.critical(), tally.warning()), (0, 0));
        tally.remove(1);
        tally.remove(2);
        assert!(tally.is_empty());
    }
}
