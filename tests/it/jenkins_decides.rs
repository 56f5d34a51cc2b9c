//! A simulated Jenkins plays jobs; its documents arrive in every order, more than once or not at all; and the status that
//! remains is the one that this Jenkins itself would show.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use proptest::collection::vec;
use proptest::prelude::*;
use recoverd::domain::announcement::{Because, Level};
use recoverd::domain::build::Timestamp;
use recoverd::domain::job::{ControllerName, JobKey, JobPath};
use recoverd::domain::rules::{ControllerRules, Mode, Policy, Rulebook};
use recoverd::domain::status::Status;
use recoverd::jenkins::document::{self, Extent, Reading};
use recoverd::machinery::clock::Clock;
use recoverd::machinery::health::Health;
use recoverd::store::{Entry, Store, StoreMetrics};
use serde_json::json;

const HOUR: i64 = 3_600_000;
const START: i64 = 1_780_000_000_000;

/// What a version of the Notification plugin tells of time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plugin {
    /// 1.15 and later: time and duration.
    Duration,
    /// 1.12 to 1.14: only the time.
    Time,
    /// Before 1.12.
    Neither,
}

/// One build, as the simulated Jenkins remembers it.
#[derive(Clone, Debug)]
struct Build {
    branch: &'static str,
    /// Which life of the job: it may be deleted and created anew.
    life: usize,
    number: u64,
    created: i64,
    duration: i64,
    finalizing: i64,
    at_completion: &'static str,
    at_the_end: &'static str,
}

/// Dice for one build: gap to the one before, duration, post-build time, two results, new life, branch, documents lost,
/// copies of each.
type Dice = (i64, i64, i64, usize, usize, u8, usize, [bool; 4], [usize; 4]);

const RESULTS: [&str; 5] = ["SUCCESS", "UNSTABLE", "FAILURE", "NOT_BUILT", "ABORTED"];

fn dice() -> impl Strategy<Value = Dice> {
    (
        1..(2 * HOUR),
        1..(5 * HOUR),
        0..(HOUR / 2),
        0..5_usize,
        0..5_usize,
        0..10_u8,
        0..BRANCHES.len(),
        any::<[bool; 4]>(),
        [1..3_usize, 1..3_usize, 1..3_usize, 1..3_usize],
    )
}

/// How branches' jobs are called on disk. A bare name shows only by its source control's branch that it is one.
const BRANCHES: [&str; 4] = ["main", "feature%2Flogin", "PR-7", "release%2F1.2"];

#[derive(Debug)]
struct Jenkins {
    plugin: Plugin,
    /// `acme/web` holds branches; otherwise it is one job.
    multibranch: bool,
    builds: Vec<Build>,
    /// With the place of its build among all.
    documents: Vec<(usize, String)>,
}

impl Jenkins {
    fn play(plugin: Plugin, multibranch: bool, recreates: bool, dice: &[Dice]) -> Self {
        let mut jenkins = Self { plugin, multibranch, builds: Vec::new(), documents: Vec::new() };
        let mut now = START;
        let mut life = 0;
        for (gap, duration, finalizing, result, worse, rebirth, branch, lost, copies) in dice {
            now += gap;
            if recreates && *rebirth == 0 {
                life += 1;
                // A build whose creation is vague within a day cannot be told from one a day before.
                now += 48 * HOUR;
            }
            let branch = if multibranch { BRANCHES[*branch] } else { "" };
            let before = jenkins.builds.iter().filter(|build| build.branch == branch && build.life == life).count();
            let build = Build {
                branch,
                life,
                number: before as u64 + 1,
                created: now,
                duration: *duration,
                finalizing: *finalizing,
                at_completion: RESULTS[*result],
                at_the_end: RESULTS[*result.max(worse)],
            };
            jenkins.send(&build, *lost, *copies);
            jenkins.builds.push(build);
        }
        jenkins
    }

    fn send(
        &mut self,
        build: &Build,
        [no_queued, no_started, no_completed, no_finalized]: [bool; 4],
        copies: [usize; 4],
    ) {
        let ended = build.created + build.duration;
        // A result that changes after completion is told by FINALIZED alone.
        let no_finalized = no_finalized && !no_completed && build.at_the_end == build.at_completion;
        // Branches are compared by creation, which FINALIZED tells only vaguely.
        let exact_needed = self.multibranch;
        let no_started = no_started && !(exact_needed && (no_completed || self.plugin == Plugin::Time));
        let documents = [
            (no_queued, "QUEUED", build.created - 1_000, None),
            (no_started, "STARTED", build.created, None),
            (no_completed, "COMPLETED", ended, Some(build.at_completion)),
            (no_finalized, "FINALIZED", ended + build.finalizing, Some(build.at_the_end)),
        ];
        for ((lost, phase, time, status), copies) in documents.into_iter().zip(copies) {
            if !lost {
                let document = self.document(build, phase, time, status);
                self.documents.extend(std::iter::repeat_n((self.builds.len(), document), copies));
            }
        }
    }

    fn document(&self, build: &Build, phase: &str, time: i64, status: Option<&str>) -> String {
        let (name, url) = match build.branch {
            "" => ("web", "job/acme/job/web/".to_owned()),
            branch => (branch, format!("job/acme/job/web/job/{}/", branch.replace('%', "%25"))),
        };
        let mut document = json!({
            "name": name,
            "url": url,
            "build": { "number": build.number, "phase": phase, "url": format!("{url}{}/", build.number) },
        });
        let fields = &mut document["build"];
        if let Some(status) = status {
            fields["status"] = status.into();
            fields["scm"] = json!({ "branch": format!("origin/{}", build.branch.replace("%2F", "/")) });
        }
        if self.plugin != Plugin::Neither {
            fields["timestamp"] = time.into();
        }
        if self.plugin == Plugin::Duration {
            fields["duration"] = if status.is_some() { build.duration } else { 0 }.into();
        }
        document.to_string()
    }

    /// The last decisive build of a branch: aborted and skipped ones leave it as it is.
    fn decisive(&self, branch: &str) -> Option<&Build> {
        let decisive = |build: &&Build| build.branch == branch && status(build.at_the_end).is_some();
        self.builds.iter().filter(decisive).max_by_key(|build| (build.life, build.number))
    }

    fn branches(&self) -> &[&'static str] {
        if self.multibranch { &BRANCHES } else { &[""] }
    }

    fn shows(&self, mode: Mode) -> Option<Status> {
        let decisive = self.branches().iter().filter_map(|branch| self.decisive(branch));
        match mode {
            Mode::Latest => status(decisive.max_by_key(|build| build.created)?.at_the_end),
            Mode::Worst => decisive.filter_map(|build| status(build.at_the_end)).max(),
        }
    }
}

fn status(result: &str) -> Option<Status> {
    match result {
        "SUCCESS" => Some(Status::Ok),
        "UNSTABLE" => Some(Status::Warning),
        "FAILURE" => Some(Status::Critical),
        _ => None,
    }
}

fn key(job: &str) -> JobKey {
    JobKey { controller: ControllerName::parse("main").unwrap(), job: JobPath::parse(job).unwrap() }
}

fn rulebook(mode: Mode) -> Rulebook {
    let mut rules = ControllerRules::default();
    rules.add_rule("**", Policy { mode, ..Policy::default() }).unwrap();
    let mut rulebook = Rulebook::default();
    rulebook.add(key("x").controller, rules);
    rulebook
}

/// Delivers the documents, and returns what is stored in the end: every open job with what its check says.
fn deliver(directory: &Path, mode: Mode, documents: &[String]) -> Vec<(String, Level)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let rulebook = Arc::new(rulebook(mode));
        let metrics = StoreMetrics::register(&mut Registry::default());
        let clock = Clock::manual(Timestamp::from_millis(START + 10_000 * HOUR));
        let health = Health::default().required("store");
        let (store, _news) = Store::open(directory, rulebook.clone(), clock.clone(), health, metrics).unwrap();
        let takes = documents.iter().map(|document| {
            let Reading::Report(report) = document::read(document.as_bytes(), Extent::Whole).unwrap().reading else {
                panic!("not a build: {document}");
            };
            store.take(key("x").controller, report)
        });
        // All at once, so that they share commits; the writer takes them in this order.
        for taken in futures_util::future::join_all(takes).await {
            taken.unwrap();
        }
        let entries = store.page(None, 100).unwrap();
        for entry in &entries {
            // What Datadog was told last is what is so.
            let told = entry.record.announced().map(|announced| announced.status);
            let current = entry.record.current(rulebook.policy(&entry.key)).map(|current| current.status);
            assert_eq!(told, current.or(told.map(|_| Status::Ok)), "{}", entry.key);
        }
        let decided = |entry: &&Entry| entry.record.current(rulebook.policy(&entry.key)).is_some();
        let open = entries.iter().filter(decided);
        let level = |key: &JobKey, record| Some((key.job.to_string(), Level::of(record, rulebook.policy(key))?));
        open.filter_map(|entry| level(&entry.key, &entry.record)).collect()
    })
}

fn plugin() -> impl Strategy<Value = Plugin> {
    prop_oneof![Just(Plugin::Duration), Just(Plugin::Time), Just(Plugin::Neither)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// For all histories of one job, all losses that leave each build one result, and all orders of arrival: the status
    /// is that of the last decisive build, and names it.
    #[test]
    fn one_job_ends_as_jenkins_shows_it(
        plugin in plugin(),
        (dice, order) in vec(dice(), 1..20).prop_flat_map(|dice| (Just(dice), any::<u64>())),
    ) {
        // Without any time, numbers decide: a new life shows only when it outgrows the old one.
        let jenkins = Jenkins::play(plugin, false, plugin != Plugin::Neither, &dice);
        let directory = tempfile::tempdir().unwrap();
        let stored = deliver(directory.path(), Mode::Latest, &shuffled(&jenkins.documents, order));
        let expected = jenkins.decisive("").map(|build| (build.number, build.at_the_end));
        let found = stored.first().map(|(job, level)| {
            assert_eq!(job, "acme/web");
            match &level.because {
                Because::Build { number, outcome, .. } => (*number, outcome.as_str()),
                other => panic!("{other:?}"),
            }
        });
        prop_assert_eq!(found, expected);
    }

    /// For all histories of a project's branches, and all orders of arrival: one job stands for all of them, with the
    /// status of the latest build or of the worst branch, and no branch is left behind as a job.
    #[test]
    fn a_project_ends_as_its_branches_do(
        plugin in prop_oneof![Just(Plugin::Duration), Just(Plugin::Time)],
        worst in any::<bool>(),
        dice in vec(dice(), 1..25),
        order in any::<u64>(),
    ) {
        let jenkins = Jenkins::play(plugin, true, true, &dice);
        let mode = if worst { Mode::Worst } else { Mode::Latest };
        let directory = tempfile::tempdir().unwrap();
        let stored = deliver(directory.path(), mode, &shuffled(&jenkins.documents, order));
        let found: Vec<(&str, Status)> = stored.iter().map(|(job, level)| (job.as_str(), level.status)).collect();
        let expected: Vec<(&str, Status)> = jenkins.shows(mode).map(|status| ("acme/web", status)).into_iter().collect();
        prop_assert_eq!(found, expected);
    }
}

/// So many newer builds may be told before a document: a history remembers ten builds, and of one that it has forgotten it
/// cannot know that its result was corrected.
const REACH: u64 = 8;

/// Any order of the documents, by a number that proptest can shrink; of many builds' documents, any in which none comes
/// later than its build is remembered.
fn shuffled(documents: &[(usize, String)], mut seed: u64) -> Vec<String> {
    let all_remembered = documents.iter().all(|(build, _)| *build as u64 <= REACH);
    if seed == 0 {
        return documents.iter().map(|(_, document)| document.clone()).collect();
    }
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut placed: Vec<(u64, u64, &String)> = documents
        .iter()
        .map(|(build, document)| (if all_remembered { 0 } else { *build as u64 + next() % REACH }, next(), document))
        .collect();
    placed.sort();
    placed.into_iter().map(|(.., document)| document.clone()).collect()
}
