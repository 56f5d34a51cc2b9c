//! What is stored of a controller against what a look at it has shown. Pure.
//!
//! Whatever is missing may be hidden as well: Jenkins shows a user who may not see a job the same as one for whom there is
//! none. So a finding counts when two whole looks in a row agree on it, and a look that misses most of what is known is
//! not believed at all.

use std::collections::{HashMap, HashSet};

use super::index::{Index, Place};
use crate::domain::amendment::{Amendment, What};
use crate::domain::build::Timestamp;
use crate::domain::job::{JobKey, JobPath};
use crate::domain::record::{Closed, JobRecord};
use crate::domain::rules::Policy;
use crate::domain::survey::Survey;
use crate::store::Entry;

/// One look's comparison, record by record.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    index: &'a mut Index,
    survey: &'a Survey,
    /// Jobs that are watched.
    pub(super) known: u64,
    /// Those of them that the look has not shown.
    pub(super) missing: u64,
    /// Jobs that are built although they are not shown, and one of them.
    pub(super) unlisted: u64,
    pub(super) unlisted_example: Option<JobKey>,
    found: HashSet<u64>,
    /// What the look before has found as well.
    confirmed: Vec<Amendment>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(index: &'a mut Index, survey: &'a Survey) -> Self {
        Self {
            index,
            survey,
            known: 0,
            missing: 0,
            unlisted: 0,
            unlisted_example: None,
            found: HashSet::new(),
            confirmed: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, entry: &Entry, policy: &Policy) {
        let Entry { key, record } = entry;
        match record.closed() {
            None => self.add_open(key, record, policy),
            Some(Closed::Filtered) => {}
            Some(why) => self.add_closed(key, record, why),
        }
    }

    fn add_open(&mut self, key: &JobKey, record: &JobRecord, policy: &Policy) {
        if self.is_beyond_sight(&key.job) {
            return;
        }
        let leaves: Vec<&str> = record.branches().map(|(leaf, _)| leaf).collect();
        let is_shown = |path: &JobPath| self.index.place(path) != Place::Empty;
        let is_missing = !is_shown(&key.job) && !leaves.iter().any(|leaf| is_shown(&key.job.branch(leaf)));
        if is_missing && record.is_unlisted() {
            self.unlisted += 1;
            self.unlisted_example.get_or_insert_with(|| key.clone());
            return;
        }
        self.known += 1;
        match self.index.place(&key.job) {
            _ if is_missing => {
                self.missing += 1;
                self.find(key, What::Close(Closed::Deleted), record);
            }
            Place::Disabled => self.find(key, What::Close(Closed::Disabled), record),
            // A folder took the name of a job that is gone.
            Place::Folder if !record.has_branches() => self.find(key, What::Close(Closed::Deleted), record),
            _ => leaves.into_iter().for_each(|leaf| self.add_branch(key, leaf, record, policy)),
        }
    }

    fn add_branch(&mut self, key: &JobKey, leaf: &str, record: &JobRecord, policy: &Policy) {
        let path = key.job.branch(leaf);
        match self.index.place(&path) {
            _ if self.is_beyond_sight(&path) => {}
            Place::Job { last, .. } if record.branch(leaf).is_some_and(|history| history.reaches_beyond(last)) => {
                // Or it is the record that lacks the last build: then joining it anew mends that.
                self.index.doubt(&path);
                self.find(key, What::Withdraw { leaf: leaf.to_owned(), last }, record);
            }
            Place::Job { decisive: Some(theirs), .. } if record.decisive(leaf, policy).unwrap_or(0) != theirs => {
                // A build that Jenkins does not have came to be known since it was asked. It is asked again.
                self.index.doubt(&path);
            }
            Place::Job { .. } | Place::Obscure => {}
            Place::Empty | Place::Disabled | Place::Project | Place::Folder => {
                self.find(key, What::Drop { leaf: leaf.to_owned() }, record);
            }
        }
    }

    /// Of what has ended. If it is shown all the same, that was a mistake, or it is there again: then it is joined anew.
    fn add_closed(&mut self, key: &JobKey, record: &JobRecord, why: &Closed) {
        let paths = std::iter::once("").chain(record.branches().map(|(leaf, _)| leaf)).map(|leaf| key.job.branch(leaf));
        for path in paths.collect::<Vec<_>>() {
            if matches!(self.index.place(&path), Place::Job { .. } | Place::Obscure | Place::Project) {
                if *why != Closed::Forgotten {
                    self.index.doubt(&path);
                }
                return;
            }
        }
        let may_come_back = matches!(why, Closed::Disabled | Closed::Forgotten);
        if may_come_back && self.index.place(&key.job) == Place::Empty && !self.is_beyond_sight(&key.job) {
            self.find(key, What::Close(Closed::Deleted), record);
        }
    }

    fn find(&mut self, key: &JobKey, what: What, record: &JobRecord) {
        let amendment = Amendment::new(key.clone(), what, record);
        let number = self.index.number(&amendment);
        self.found.insert(number);
        if self.index.confirms(number) {
            self.confirmed.push(amendment);
        }
    }

    /// Whether it lies where the look did not reach.
    fn is_beyond_sight(&self, path: &JobPath) -> bool {
        self.survey.gaps.len() >= Survey::MAX_GAPS
            || self.survey.gaps.iter().any(|gap| gap.folder.as_ref().is_none_or(|folder| path.is_within(folder)))
    }

    /// Whether it is likely that somebody has removed all that is missing. Most of a controller's jobs go missing when a
    /// user may no longer see them.
    pub(super) fn is_plausible(&self) -> bool {
        self.known == 0 || (self.survey.jobs > 0 && self.missing * 2 <= self.known)
    }

    /// Ends the look. What it found counts for the next one only if it is believed.
    pub(super) fn end(self, is_believed: bool) -> Vec<Amendment> {
        let found = if is_believed { self.found } else { HashSet::new() };
        self.index.end(found, !self.survey.is_complete());
        if is_believed { self.confirmed } else { Vec::new() }
    }
}

/// Finds jobs that are not gone but have another name: the last build of a newcomer is that of what went missing.
#[derive(Debug, Default)]
pub(super) struct Renames {
    /// Branch, number and creation of the last build, to which amendment it is.
    lost: HashMap<(String, u64, Timestamp), usize>,
    found: HashMap<usize, JobPath>,
}

impl Renames {
    /// `record` is that of the amendment at `index`.
    pub(super) fn lose(&mut self, index: usize, record: &JobRecord) {
        self.lost.extend(last_build(record).map(|last| (last, index)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }

    pub(super) fn look_for(&mut self, entry: &Entry, index: &Index) {
        let Entry { key, record } = entry;
        let Some(lost) = last_build(record).and_then(|last| self.lost.get(&last)) else { return };
        if record.closed().is_none() && index.place(&key.job) != Place::Empty && index.is_newcomer(&key.job) {
            self.found.insert(*lost, key.job.clone());
        }
    }

    pub(super) fn name(self, amendments: &mut [Amendment]) {
        for (index, to) in self.found {
            if let Some(amendment) = amendments.get_mut(index) {
                amendment.what = What::Close(Closed::Renamed(to));
            }
        }
    }
}

/// The build of all branches that ended last, if it is known for certain when it was created.
fn last_build(record: &JobRecord) -> Option<(String, u64, Timestamp)> {
    let last = record.branches().filter_map(|(leaf, history)| Some((leaf, history.last_ended()?)));
    let (leaf, build) = last.max_by_key(|(_, build)| build.created.latest)?;
    build.created.is_exact().then(|| (leaf.to_owned(), build.number, build.created.latest))
}
