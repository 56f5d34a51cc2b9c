//! What the looks at one controller have shown: which items need not be joined anew, and which are there. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use crate::domain::amendment::Amendment;
use crate::domain::job::JobPath;
use crate::domain::survey::{Item, Kind};

/// Some fifty bytes for each item of a controller.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// With a key of its own in each process: nobody can make up names that collide.
    hasher: RandomState,
    shown: HashMap<u64, Shown>,
    /// The looks begun so far.
    look: u32,
    /// The last look that overlooked nothing.
    whole: u32,
    /// What that one found to be otherwise than is stored.
    found: HashSet<u64>,
}

/// One item, as it was shown last.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// Zero when it is to be joined anew.
    fingerprint: u64,
    place: Place,
    look: u32,
    since: u32,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing that this look has shown.
    Empty,
    /// A job.
    Job {
        /// The number of its last ended build, if there is one.
        last: Option<u64>,
        /// That of the build which decides, where that is not the last one, and is known; 0 if none does.
        decisive: Option<u64>,
    },
    /// A job whose last build cannot be read.
    Obscure,
    /// A job or project that is built no more.
    Disabled,
    Project,
    Folder,
}

impl Index {
    pub(super) fn begin(&mut self) {
        self.look = self.look.wrapping_add(1);
    }

    /// Returns whether the item has to be joined: it is new, or says something else than before.
    pub(super) fn show(&mut self, item: &Item) -> bool {
        let fingerprint = item.fingerprint().max(1);
        let place = match item.kind {
            Kind::Job | Kind::Project if item.disabled => Place::Disabled,
            Kind::Job if item.hides_last => Place::Obscure,
            Kind::Job => Place::Job { last: item.last.as_ref().map(|last| last.number), decisive: None },
            Kind::Project => Place::Project,
            Kind::Folder => Place::Folder,
        };
        let look = self.look;
        let new = Shown { fingerprint, place, look, since: look };
        let shown = self.shown.entry(self.hasher.hash_one(&item.path)).or_insert(Shown { fingerprint: 0, ..new });
        let has_changed = shown.fingerprint != fingerprint;
        let place = if has_changed { place } else { shown.place };
        *shown = Shown { since: shown.since, place, ..new };
        has_changed
    }

    /// Which build decides a job whose last one does not; `None` when Jenkins has none.
    pub(super) fn decide(&mut self, path: &JobPath, number: Option<u64>) {
        if let Some(Shown { place: Place::Job { decisive, .. }, .. }) = self.shown.get_mut(&self.hasher.hash_one(path))
        {
            *decisive = Some(number.unwrap_or(0));
        }
    }

    /// Its next showing counts as new.
    pub(super) fn doubt(&mut self, path: &JobPath) {
        if let Some(shown) = self.shown.get_mut(&self.hasher.hash_one(path)) {
            shown.fingerprint = 0;
        }
    }

    /// Everything is to be joined anew.
    pub(super) fn doubt_all(&mut self) {
        self.shown.values_mut().for_each(|shown| shown.fingerprint = 0);
    }

    /// What this look has shown at a path.
    pub(super) fn place(&self, path: &JobPath) -> Place {
        let shown = self.shown.get(&self.hasher.hash_one(path));
        shown.filter(|shown| shown.look == self.look).map_or(Place::Empty, |shown| shown.place)
    }

    /// Whether it came to be about when what is missing now for the second time went missing.
    pub(super) fn is_newcomer(&self, path: &JobPath) -> bool {
        let shown = self.shown.get(&self.hasher.hash_one(path));
        shown.is_some_and(|shown| shown.since.saturating_add(1) >= self.whole)
    }

    /// Whether the whole look before this one found the same.
    pub(super) fn confirms(&self, finding: u64) -> bool {
        self.found.contains(&finding)
    }

    /// A number for what was found, to know it again.
    pub(super) fn number(&self, finding: &Amendment) -> u64 {
        self.hasher.hash_one(finding)
    }

    /// This look is over, and overlooked nothing but perhaps some `gaps`.
    pub(super) fn end(&mut self, found: HashSet<u64>, has_gaps: bool) {
        self.found = found;
        self.whole = self.look;
        if !has_gaps {
            let look = self.look;
            self.shown.retain(|_, shown| shown.look == look);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: Kind) -> Item {
        Item { path: JobPath::parse(path).unwrap(), kind, disabled: false, last: None, hides_last: false }
    }

    #[test]
    fn an_item_is_joined_once_until_it_says_something_else_or_is_doubted() {
        let mut index = Index::default();
        let job = item("acme/web", Kind::Job);
        let disabled = Item { disabled: true, ..job.clone() };
        index.begin();
        assert!(index.show(&job));
        index.begin();
        assert!(!index.show(&job));
        assert!(index.show(&disabled));
        assert!(!index.show(&disabled));
        index.doubt(&job.path);
        assert!(index.show(&disabled));
        index.doubt_all();
        assert!(index.show(&disabled));
    }

    #[test]
    fn a_place_is_what_the_present_look_has_shown() {
        let mut index = Index::default();
        let shown = [
            (item("job", Kind::Job), Place::Job { last: None, decisive: None }),
            (Item { hides_last: true, ..item("odd", Kind::Job) }, Place::Obscure),
            (Item { disabled: true, ..item("off", Kind::Project) }, Place::Disabled),
            (item("project", Kind::Project), Place::Project),
            (Item { disabled: true, ..item("folder", Kind::Folder) }, Place::Folder),
        ];
        index.begin();
        for (item, expected) in &shown {
            index.show(item);
            assert_eq!(index.place(&item.path), *expected, "{}", item.path);
        }
        index.end(HashSet::new(), false);
        index.begin();
        for (item, _) in &shown {
            assert_eq!(index.place(&item.path), Place::Empty, "{}", item.path);
        }
        index.end(HashSet::new(), false);
        assert!(index.shown.is_empty(), "what is gone takes no room");
    }
}
