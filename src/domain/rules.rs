//! What the operator decided about controllers and jobs: which count, what is a branch, what a result means. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::build::{Outcome, Progress};
use super::job::{ControllerName, JobKey, JobPath};
use super::sentry::IntegrationName;
use super::signal::{Tag, tag};
use super::status::{Status, Verdict};

/// Which of a project's branches decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The most recently created decisive build of any counted branch.
    #[default]
    Latest,
    /// The worst of the counted branches.
    Worst,
}

/// What the children of a parent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Children {
    Branches,
    Jobs,
}

/// A list of globs. `*` and `?` stay within one name, `**` crosses slashes.
#[derive(Clone, Debug, Default)]
pub struct Globs(GlobSet);

impl Globs {
    /// # Errors
    /// The first pattern that is not a glob, and why.
    pub fn parse(patterns: &[String]) -> Result<Self, GlobError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(glob(pattern)?);
        }
        set.build().map(Self).map_err(|error| GlobError { pattern: patterns.join(", "), why: error.kind().to_string() })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// A pattern that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a glob: {why}")]
pub struct GlobError {
    pattern: String,
    why: String,
}

fn glob(pattern: &str) -> Result<Glob, GlobError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| GlobError { pattern: pattern.to_owned(), why: error.kind().to_string() })
}

/// What holds for the jobs that a pattern names.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub mode: Mode,
    /// The branches that count; `None` for all.
    pub branches: Option<Globs>,
    /// Where a result means something else than usual.
    pub results: Vec<(Outcome, Verdict)>,
    pub tags: Vec<Tag>,
}

impl Policy {
    /// What holds where no rule says otherwise.
    pub fn usual() -> &'static Self {
        static USUAL: Policy = Policy { mode: Mode::Latest, branches: None, results: Vec::new(), tags: Vec::new() };
        &USUAL
    }

    /// UNSTABLE warns, FAILURE is critical; an aborted, skipped or unknown result says nothing of the job.
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        let chosen = self.results.iter().find(|(of, _)| *of == outcome).map(|(_, verdict)| *verdict);
        chosen.unwrap_or(match outcome {
            Outcome::Success => Verdict::Ok,
            Outcome::Unstable => Verdict::Warning,
            Outcome::Failure => Verdict::Critical,
            Outcome::NotBuilt | Outcome::Aborted | Outcome::Unknown => Verdict::Hold,
        })
    }

    /// The status that a build gives its job; `None` while it runs, and when it leaves the job as it is.
    pub fn status_of(&self, progress: Progress) -> Option<Status> {
        self.verdict(progress.outcome()?).status()
    }

    /// Whether this branch, by its name on disk, has a say in its project's status.
    pub fn counts(&self, leaf: &str) -> bool {
        self.branches.as_ref().is_none_or(|globs| globs.matches(&branch_name(leaf)))
    }
}

/// A branch's name as people write it, from its job's name: `feature%2Fx` is `feature/x`.
pub fn branch_name(leaf: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(leaf).decode_utf8_lossy()
}

/// Everything configured for one Jenkins, as far as jobs go.
#[derive(Clone, Debug, Default)]
pub struct ControllerRules {
    /// Its address for people, with a slash at the end.
    pub url: Option<Arc<str>>,
    /// Tags for every check, metric and event.
    pub tags: Vec<Tag>,
    /// Projects whose children are branches.
    pub multibranch: Globs,
    /// Folders whose children are jobs, however much one looks like a branch.
    pub folders: Globs,
    /// The jobs that count; none for all.
    pub include: Globs,
    pub exclude: Globs,
    rules: Vec<(GlobMatcher, Policy)>,
}

impl ControllerRules {
    /// The first added rule that matches a job decides.
    ///
    /// # Errors
    /// When `jobs` is not a glob.
    pub fn add_rule(&mut self, jobs: &str, policy: Policy) -> Result<(), GlobError> {
        self.rules.push((glob(jobs)?.compile_matcher(), policy));
        Ok(())
    }

    pub fn policy(&self, job: &JobPath) -> &Policy {
        let rule = self.rules.iter().find(|(jobs, _)| jobs.is_match(job.as_str()));
        rule.map_or(Policy::usual(), |(_, policy)| policy)
    }

    /// What the operator says that `parent` holds.
    pub fn children(&self, parent: &JobPath) -> Option<Children> {
        let listed = |globs: &Globs, children| globs.matches(parent.as_str()).then_some(children);
        listed(&self.folders, Children::Jobs).or_else(|| listed(&self.multibranch, Children::Branches))
    }

    pub fn includes(&self, job: &JobPath) -> bool {
        (self.include.is_empty() || self.include.matches(job.as_str())) && !self.exclude.matches(job.as_str())
    }
}

/// The rules of all controllers and integrations.
#[derive(Clone, Debug, Default)]
pub struct Rulebook {
    controllers: BTreeMap<ControllerName, ControllerRules>,
    integrations: BTreeMap<IntegrationName, Arc<[Tag]>>,
}

impl Rulebook {
    pub fn add(&mut self, controller: ControllerName, rules: ControllerRules) {
        self.controllers.insert(controller, rules);
    }

    /// `tags` are the operator's. One that would stand beside our own of that name is left out.
    pub fn add_integration(&mut self, integration: IntegrationName, tags: impl IntoIterator<Item = Tag>) {
        let is_free = |tag: &Tag| !tag::OF_SENTRY.contains(&&*tag.key);
        self.integrations.insert(integration, tags.into_iter().filter(is_free).collect());
    }

    /// The operator's tags; `None` for an integration that is not configured (any more).
    pub fn integration(&self, integration: &IntegrationName) -> Option<&Arc<[Tag]>> {
        self.integrations.get(integration)
    }

    /// `None` for a controller that is not configured (any more).
    pub fn of(&self, controller: &ControllerName) -> Option<&ControllerRules> {
        self.controllers.get(controller)
    }

    /// What holds for this job.
    pub fn policy(&self, key: &JobKey) -> &Policy {
        self.of(&key.controller).map_or(Policy::usual(), |rules| rules.policy(&key.job))
    }

    /// Whether anything should be said of this job at all.
    pub fn covers(&self, key: &JobKey) -> bool {
        self.of(&key.controller).is_some_and(|rules| rules.includes(&key.job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::parse(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    fn path(raw: &str) -> JobPath {
        JobPath::parse(raw).unwrap()
    }

    #[test]
    fn a_star_stays_within_one_name_and_two_cross_slashes() {
        let table = [
            ("acme/*", "acme/web", true),
            ("acme/*", "acme/team/web", false),
            ("acme/**", "acme/team/web", true),
            ("**/nightly", "acme/team/nightly", true),
            ("release/*", "release/1.2", true),
            ("main", "main", true),
            ("main", "domain", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(globs(&[pattern]).matches(text), expected, "{pattern} {text}");
        }
        assert!(Globs::parse(&["a[".to_owned()]).unwrap_err().to_string().contains("\"a[\""));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let mut rules = ControllerRules::default();
        let worst = Policy { mode: Mode::Worst, ..Policy::default() };
        rules.add_rule("acme/web", worst).unwrap();
        rules.add_rule("acme/*", Policy::default()).unwrap();
        assert_eq!(rules.policy(&path("acme/web")).mode, Mode::Worst);
        assert_eq!(rules.policy(&path("acme/api")).mode, Mode::Latest);
        assert_eq!(rules.policy(&path("other")).mode, Mode::Latest);
    }

    #[test]
    fn excluded_wins_over_included() {
        let rules =
            ControllerRules { include: globs(&["acme/**"]), exclude: globs(&["acme/tmp"]), ..Default::default() };
        for (job, expected) in [("acme/web", true), ("acme/tmp", false), ("other", false)] {
            assert_eq!(rules.includes(&path(job)), expected, "{job}");
        }
        assert!(ControllerRules::default().includes(&path("anything")));
    }

    #[test]
    fn branches_are_matched_by_the_name_that_people_write() {
        let policy = Policy { branches: Some(globs(&["main", "release/*"])), ..Policy::default() };
        for (leaf, expected) in [("main", true), ("release%2F1.2", true), ("PR-7", false), ("feature%2Fx", false)] {
            assert_eq!(policy.counts(leaf), expected, "{leaf}");
        }
    }

    #[test]
    fn a_result_can_be_made_to_mean_something_else() {
        let policy = Policy { results: vec![(Outcome::Unstable, Verdict::Ok)], ..Policy::default() };
        assert_eq!(policy.verdict(Outcome::Unstable), Verdict::Ok);
        assert_eq!(policy.verdict(Outcome::Failure), Verdict::Critical);
        assert_eq!(policy.verdict(Outcome::Aborted), Verdict::Hold);
    }
}
