//! A Jenkins: items in items, their builds, who may see them, a queue and nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::{API_TOKEN, USER};
use crate::world::CREATED;

/// What an item is. Its Java name is what `_class` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    FreeStyle,
    Pipeline,
    Matrix,
    /// Its builds run elsewhere and are only reported.
    External,
    Folder,
    OrganizationFolder,
    MultiBranch,
    /// A plugin's own kind of folder, of which nobody has heard.
    ForeignFolder,
}

impl Class {
    pub fn java_name(self) -> &'static str {
        match self {
            Self::FreeStyle => "hudson.model.FreeStyleProject",
            Self::Pipeline => "org.jenkinsci.plugins.workflow.job.WorkflowJob",
            Self::Matrix => "hudson.matrix.MatrixProject",
            Self::External => "hudson.model.ExternalJob",
            Self::Folder => "com.cloudbees.hudson.plugins.folder.Folder",
            Self::OrganizationFolder => "jenkins.branch.OrganizationFolder",
            Self::MultiBranch => "org.jenkinsci.plugins.workflow.multibranch.WorkflowMultiBranchProject",
            Self::ForeignFolder => "org.example.jenkins.CatalogueFolder",
        }
    }

    pub fn run_name(self) -> &'static str {
        match self {
            Self::Pipeline => "org.jenkinsci.plugins.workflow.job.WorkflowRun",
            Self::Matrix => "hudson.matrix.MatrixBuild",
            Self::External => "hudson.model.ExternalRun",
            _ => "hudson.model.FreeStyleBuild",
        }
    }

    pub fn is_job(self) -> bool {
        matches!(self, Self::FreeStyle | Self::Pipeline | Self::Matrix | Self::External)
    }
}

#[derive(Clone, Debug)]
pub struct Item {
    pub class: Class,
    pub disabled: bool,
    /// Its branch is gone from source control, and its project has not tidied up yet.
    pub is_dead: bool,
    /// By name, in whose order Jenkins lists them.
    pub items: BTreeMap<String, Item>,
    /// It holds itself, again and again.
    pub holds_itself: bool,
    /// Oldest first.
    pub builds: Vec<Build>,
    pub next_number: u64,
}

#[derive(Clone, Debug)]
pub struct Build {
    pub number: u64,
    pub queue_id: u64,
    /// Milliseconds since the epoch.
    pub created: i64,
    pub duration: i64,
    /// `None` while it runs.
    pub result: Option<&'static str>,
    pub node: &'static str,
}

/// An item of the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Waiting {
    Blocked,
    Buildable,
    Stuck,
    Pending,
    /// Within its quiet period.
    Quiet,
}

#[derive(Debug)]
pub struct Jenkins {
    pub root_url: String,
    pub items: BTreeMap<String, Item>,
    pub queue: Vec<Waiting>,
    /// Agents by name, and whether each is online. There is a built-in node besides, without executors.
    pub agents: BTreeMap<String, bool>,
    /// Of each agent.
    pub executors: usize,
    /// Passwords or API tokens.
    pub users: BTreeMap<String, String>,
    /// Whoever comes without credentials may read.
    pub anonymous_may_read: bool,
    /// Users without Overall/Read.
    pub locked_out: BTreeSet<String>,
    /// Full names of items that [`USER`] may not read.
    pub hidden: BTreeSet<String>,
    /// Jenkins fails to write these items: it then leaves them out of their list.
    pub broken: BTreeSet<String>,
    /// Releases before 2.0 do not tell `fullName`.
    pub is_old: bool,
    /// Milliseconds since the epoch.
    pub now: i64,
    /// Its answers say that it is `now`, and not what the real time is.
    pub tells_its_time: bool,
    pub(super) queue_ids: u64,
}

impl Default for Jenkins {
    fn default() -> Self {
        Self {
            root_url: String::new(),
            items: BTreeMap::new(),
            queue: Vec::new(),
            agents: BTreeMap::from([("linux-1".to_owned(), true)]),
            executors: 2,
            users: BTreeMap::from([(USER.to_owned(), API_TOKEN.to_owned())]),
            anonymous_may_read: false,
            locked_out: BTreeSet::new(),
            hidden: BTreeSet::new(),
            broken: BTreeSet::new(),
            is_old: false,
            now: CREATED,
            tells_its_time: false,
            queue_ids: 0,
        }
    }
}

/// Names are full ones, `acme/web/feature%2Fx`: as Jenkins keeps them, a branch's encoded once.
impl Jenkins {
    /// Makes the item, and folders on the way to it.
    pub fn create(&mut self, class: Class, full: &str) {
        let (outer, name) = full.rsplit_once('/').unwrap_or(("", full));
        let item = Item {
            class,
            disabled: false,
            is_dead: false,
            items: BTreeMap::new(),
            holds_itself: false,
            builds: Vec::new(),
            next_number: 1,
        };
        let mut at = &mut self.items;
        for folder in outer.split('/').filter(|folder| !folder.is_empty()) {
            let folder = at.entry(folder.to_owned()).or_insert_with(|| Item { class: Class::Folder, ..item.clone() });
            at = &mut folder.items;
        }
        assert!(at.insert(name.to_owned(), item).is_none(), "{full} is there already");
    }

    /// A multibranch project with these branches, named as people do: `feature/x`.
    pub fn create_project(&mut self, full: &str, branches: &[&str]) {
        self.create(Class::MultiBranch, full);
        for branch in branches {
            self.create(Class::Pipeline, &format!("{full}/{}", branch.replace('/', "%2F")));
        }
    }

    pub fn delete(&mut self, full: &str) -> Item {
        self.holder(full).remove(name(full)).unwrap_or_else(|| panic!("{full} is not there"))
    }

    /// Renames or moves; folders on the way are made. Builds go with it.
    pub fn rename(&mut self, from: &str, to: &str) {
        let item = self.delete(from);
        self.create(item.class, to);
        *self.item_mut(to) = item;
    }

    pub fn disable(&mut self, full: &str, disabled: bool) {
        self.item_mut(full).disabled = disabled;
    }

    /// The branch is gone from source control.
    pub fn kill_branch(&mut self, full: &str) {
        self.item_mut(full).is_dead = true;
    }

    /// The folder holds itself from now on.
    pub fn make_bottomless(&mut self, full: &str) {
        self.item_mut(full).holds_itself = true;
    }

    /// Takes the tree apart without descending into it, which a stack would not bear for a very deep one.
    pub fn flatten(&mut self) {
        let mut left: Vec<Item> = std::mem::take(&mut self.items).into_values().collect();
        while let Some(mut item) = left.pop() {
            left.extend(std::mem::take(&mut item.items).into_values());
        }
    }

    /// A build begins; it is queued for a second before. Returns its number.
    pub fn begin(&mut self, full: &str) -> u64 {
        self.now += 60_000;
        self.queue_ids += 1;
        let (created, queue_id) = (self.now, self.queue_ids);
        let item = self.item_mut(full);
        assert!(item.class.is_job(), "{full} is no job");
        let number = item.next_number;
        item.next_number += 1;
        item.builds.push(Build { number, queue_id, created, duration: 0, result: None, node: "linux-1" });
        number
    }

    /// A running build ends, half a minute later.
    pub fn finish(&mut self, full: &str, number: u64, result: &'static str) {
        self.now += 30_000;
        let now = self.now;
        let build = self.build_mut(full, number);
        assert!(build.result.is_none(), "{full} #{number} has ended already");
        build.result = Some(result);
        build.duration = now - build.created;
    }

    /// A build, from begin to end. Returns its number.
    pub fn build(&mut self, full: &str, result: &'static str) -> u64 {
        let number = self.begin(full);
        self.finish(full, number, result);
        number
    }

    /// All builds are deleted, and numbers begin at 1 again.
    pub fn reset_numbers(&mut self, full: &str) {
        let item = self.item_mut(full);
        item.builds.clear();
        item.next_number = 1;
    }

    pub fn item(&self, full: &str) -> &Item {
        self.find(full).unwrap_or_else(|| panic!("{full} is not there"))
    }

    pub fn last_build(&self, full: &str) -> Option<&Build> {
        self.item(full).builds.last()
    }

    /// The completed build of the highest number.
    pub fn last_completed(&self, full: &str) -> Option<&Build> {
        self.item(full).builds.iter().filter(|build| build.result.is_some()).max_by_key(|build| build.number)
    }

    /// The last build that says something of the job: neither aborted nor skipped.
    pub fn last_decisive(&self, full: &str) -> Option<&Build> {
        let decides = |build: &&Build| matches!(build.result, Some("SUCCESS" | "UNSTABLE" | "FAILURE"));
        self.item(full).builds.iter().filter(decides).max_by_key(|build| build.number)
    }

    /// Full names of all jobs, branches among them.
    pub fn jobs(&self) -> Vec<String> {
        fn below(items: &BTreeMap<String, Item>, outer: &str, found: &mut Vec<String>) {
            for (name, item) in items {
                let full = format!("{outer}{name}");
                if item.class.is_job() {
                    found.push(full);
                } else {
                    below(&item.items, &format!("{full}/"), found);
                }
            }
        }
        let mut found = Vec::new();
        below(&self.items, "", &mut found);
        found
    }

    pub fn item_mut(&mut self, full: &str) -> &mut Item {
        self.holder(full).get_mut(name(full)).unwrap_or_else(|| panic!("{full} is not there"))
    }

    pub fn build_mut(&mut self, full: &str, number: u64) -> &mut Build {
        let builds = self.item_mut(full).builds.iter_mut();
        builds.rev().find(|build| build.number == number).unwrap_or_else(|| panic!("{full} has no #{number}"))
    }

    pub(super) fn find(&self, full: &str) -> Option<&Item> {
        let mut names = full.split('/');
        let mut item = self.items.get(names.next()?)?;
        for name in names {
            // The one that holds itself is found in itself.
            item = if item.holds_itself { item } else { item.items.get(name)? };
        }
        Some(item)
    }

    fn holder(&mut self, full: &str) -> &mut BTreeMap<String, Item> {
        let outer = full.rsplit_once('/').map_or("", |(outer, _)| outer);
        let mut at = &mut self.items;
        for folder in outer.split('/').filter(|folder| !folder.is_empty()) {
            at = &mut at.get_mut(folder).unwrap_or_else(|| panic!("{full}: there is no {folder}")).items;
        }
        at
    }
}

fn name(full: &str) -> &str {
    full.rsplit('/').next().unwrap()
}
