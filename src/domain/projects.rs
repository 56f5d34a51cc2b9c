//! Which parents hold branches and which hold jobs, and therefore which job a path belongs to. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::job::{ControllerName, JobKey, JobPath};
use super::rules::{Children, Rulebook};

/// Where a belief about a parent comes from; the later one in this order is the more trustworthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A build's document looked like a branch's.
    Inferred,
    /// Jenkins itself said so: the class of the parent over REST, or a sender that knows it.
    Told,
}

/// What is known of the parents of all controllers. The configuration overrides it.
#[derive(Clone, Debug, Default)]
pub struct Projects {
    known: HashMap<JobKey, (Source, Children)>,
}

/// A path's job, and its part that is a branch: empty for a job without branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub key: JobKey,
    pub branch: String,
}

impl Projects {
    /// Returns whether that was news. A less trustworthy source never overrides another.
    pub fn learn(&mut self, parent: JobKey, source: Source, children: Children) -> bool {
        match self.known.get(&parent) {
            Some((known_from, known)) if *known_from > source || (*known_from == source && *known == children) => false,
            _ => {
                self.known.insert(parent, (source, children));
                true
            }
        }
    }

    /// What is known of `top` itself and of all parents below it.
    pub fn below(&self, top: &JobKey) -> Vec<(JobKey, Source, Children)> {
        let is_below = |key: &JobKey| {
            let rest = key.job.as_str().strip_prefix(top.job.as_str()).filter(|_| key.controller == top.controller);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let known = self.known.iter().filter(|(key, _)| is_below(key));
        known.map(|(key, (source, children))| (key.clone(), *source, *children)).collect()
    }

    /// Whether what `parent` holds are its branches.
    pub fn holds_branches(&self, rulebook: &Rulebook, parent: &JobKey) -> bool {
        let configured = rulebook.of(&parent.controller).and_then(|rules| rules.children(&parent.job));
        let known = || self.known.get(parent).map(|(_, children)| *children);
        configured.or_else(known) == Some(Children::Branches)
    }

    /// Where the builds of `path` belong.
    pub fn place(&self, rulebook: &Rulebook, controller: &ControllerName, path: &JobPath) -> Place {
        if let Some((parent, leaf)) = path.split_leaf() {
            let key = JobKey { controller: controller.clone(), job: parent };
            if self.holds_branches(rulebook, &key) {
                return Place { key, branch: leaf.to_owned() };
            }
        }
        Place { key: JobKey { controller: controller.clone(), job: path.clone() }, branch: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rules::{ControllerRules, Globs};

    fn key(job: &str) -> JobKey {
        JobKey { controller: ControllerName::parse("main").unwrap(), job: JobPath::parse(job).unwrap() }
    }

    fn rulebook(multibranch: &[&str]) -> Rulebook {
        let patterns: Vec<String> = multibranch.iter().map(ToString::to_string).collect();
        let mut rulebook = Rulebook::default();
        let mut rules = ControllerRules::default();
        rules.multibranch = Globs::parse(&patterns).unwrap();
        rulebook.add(key("x").controller, rules);
        rulebook
    }

    fn place(projects: &Projects, rulebook: &Rulebook, path: &str) -> (String, String) {
        let place = projects.place(rulebook, &key("x").controller, &JobPath::parse(path).unwrap());
        (place.key.job.as_str().to_owned(), place.branch)
    }

    #[test]
    fn once_one_child_is_a_branch_its_siblings_are() {
        let (mut projects, rulebook) = (Projects::default(), rulebook(&[]));
        assert_eq!(place(&projects, &rulebook, "acme/web/main"), ("acme/web/main".into(), String::new()));
        assert!(projects.learn(key("acme/web"), Source::Inferred, Children::Branches));
        assert!(!projects.learn(key("acme/web"), Source::Inferred, Children::Branches));
        assert_eq!(place(&projects, &rulebook, "acme/web/main"), ("acme/web".into(), "main".into()));
        assert_eq!(place(&projects, &rulebook, "acme/api"), ("acme/api".into(), String::new()));
    }

    #[test]
    fn the_configuration_needs_no_evidence() {
        assert_eq!(place(&Projects::default(), &rulebook(&["acme/*"]), "acme/web/x"), ("acme/web".into(), "x".into()));
    }

    #[test]
    fn a_folder_of_the_configuration_holds_jobs_whatever_they_look_like() {
        let mut projects = Projects::default();
        projects.learn(key("deploy"), Source::Inferred, Children::Branches);
        let mut rules = ControllerRules::default();
        rules.folders = Globs::parse(&["deploy".to_owned()]).unwrap();
        let mut rulebook = Rulebook::default();
        rulebook.add(key("x").controller, rules);
        assert_eq!(place(&projects, &rulebook, "deploy/main"), ("deploy/main".into(), String::new()));
    }

    #[test]
    fn what_is_below_begins_with_the_whole_name() {
        let mut projects = Projects::default();
        for parent in ["acme", "acme/web", "acme/web/x", "acmes", "team/acme"] {
            projects.learn(key(parent), Source::Inferred, Children::Branches);
        }
        let mut below: Vec<String> =
            projects.below(&key("acme")).into_iter().map(|(key, ..)| key.job.to_string()).collect();
        below.sort();
        assert_eq!(below, ["acme", "acme/web", "acme/web/x"]);
    }

    #[test]
    fn a_job_at_the_top_is_never_a_branch() {
        assert_eq!(place(&Projects::default(), &rulebook(&["**"]), "main"), ("main".into(), String::new()));
    }
}
