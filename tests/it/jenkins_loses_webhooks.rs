//! A Jenkins is worked with while its webhooks get lost, doubled and shuffled; after three looks at the latest each status
//! is the one that it shows itself, and so is what Datadog heard last.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use recoverd::domain::rules::{ControllerRules, Mode, Policy};
use serde_json::Value;

use crate::jenkins_server::{Class, Jenkins, Phase};
use crate::stage::Stage;

const RESULTS: [&str; 5] = ["SUCCESS", "UNSTABLE", "FAILURE", "NOT_BUILT", "ABORTED"];

/// What somebody does. A number picks one of the jobs there are.
#[derive(Clone, Debug)]
enum Step {
    Build(usize, usize, Post),
    /// It ends some steps later.
    Begin(usize, usize, Post),
    CreateJob,
    CreateBranch,
    Delete(usize),
    Rename(usize),
    /// Disables or enables it; of a branch, that it is gone from source control or back.
    Switch(usize),
    ResetNumbers(usize),
    /// Somebody deletes the newest build.
    DropBuild(usize),
    /// Deleted and made anew under its name.
    MakeAnew(usize),
    Look,
}

/// What becomes of the four documents of a build: how many copies arrive of each, and how many steps later.
type Post = [(usize, usize); 4];

fn step() -> impl Strategy<Value = Step> {
    let job = || any::<prop::sample::Index>().prop_map(|index| index.index(1_000));
    // Half of all documents get lost.
    let post = || {
        proptest::array::uniform4((0..3_usize, 0..6_usize)).prop_map(|post| post.map(|(copies, later)| (copies, later)))
    };
    prop_oneof![
        8 => (job(), 0..5_usize, post()).prop_map(|(job, result, post)| Step::Build(job, result, post)),
        2 => (job(), 0..5_usize, post()).prop_map(|(job, result, post)| Step::Begin(job, result, post)),
        1 => Just(Step::CreateJob),
        1 => Just(Step::CreateBranch),
        1 => job().prop_map(Step::Delete),
        1 => job().prop_map(Step::Rename),
        2 => job().prop_map(Step::Switch),
        1 => job().prop_map(Step::ResetNumbers),
        1 => job().prop_map(Step::DropBuild),
        1 => job().prop_map(Step::MakeAnew),
        4 => Just(Step::Look),
    ]
}

struct Play {
    stage: Stage,
    /// Documents on their way, each with the steps until it arrives.
    on_their_way: Vec<(usize, Value)>,
    /// Builds that run: job, number, result, steps until the end.
    running: Vec<(String, u64, &'static str, Post)>,
    names: usize,
}

/// Jobs that stay, so that the others are never most of what is known.
const STABLE: usize = 8;
const PROJECTS: [&str; 2] = ["acme/web", "acme/api"];

impl Play {
    async fn begin(mode: Mode) -> Self {
        let mut rules = ControllerRules::default();
        rules.add_rule("**", Policy { mode, ..Policy::default() }).unwrap();
        let stage = Stage::with(rules).await;
        {
            let mut jenkins = stage.jenkins();
            for job in 0..STABLE {
                jenkins.create(Class::FreeStyle, &format!("stable/job-{job}"));
                jenkins.build(&format!("stable/job-{job}"), "SUCCESS");
            }
            jenkins.create(Class::FreeStyle, "nightly");
            // It looks like a branch of its folder.
            jenkins.create(Class::Pipeline, "deploy/main");
            jenkins.create(Class::FreeStyle, "deploy/team/tool");
            jenkins.create_project("acme/web", &["main", "feature/x", "PR-7"]);
            jenkins.create_project("acme/api", &["main"]);
        }
        Self { stage, on_their_way: Vec::new(), running: Vec::new(), names: 0 }
    }

    /// One of the jobs that are not left alone.
    fn pick(&self, index: usize) -> Option<String> {
        let mut jobs = self.stage.jenkins().jobs();
        jobs.retain(|job| !job.starts_with("stable/"));
        jobs.get(index % jobs.len().max(1)).cloned()
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("new-{}", self.names)
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Build(job, result, post) => {
                let Some(job) = self.pick(*job) else { return };
                let number = self.start(&job, *post);
                self.end(&job, number, RESULTS[*result], *post);
            }
            Step::Begin(job, result, post) => {
                let Some(job) = self.pick(*job) else { return };
                let number = self.start(&job, *post);
                self.running.push((job, number, RESULTS[*result], *post));
            }
            Step::CreateJob => {
                let name = self.name();
                self.stage.jenkins().create(Class::FreeStyle, &format!("deploy/{name}"));
            }
            Step::CreateBranch => {
                let name = self.name();
                self.stage.jenkins().create(Class::Pipeline, &format!("acme/web/{name}"));
            }
            Step::Delete(job) => {
                let Some(job) = self.pick(*job) else { return };
                self.stage.jenkins().delete(&job);
            }
            Step::Rename(job) => {
                let Some(job) = self.pick(*job).filter(|job| !is_branch(job)) else { return };
                let name = self.name();
                self.stage.jenkins().rename(&job, &format!("moved/{name}"));
            }
            Step::Switch(job) => {
                let Some(job) = self.pick(*job) else { return };
                let mut jenkins = self.stage.jenkins();
                let item = jenkins.item_mut(&job);
                let switch = if is_branch(&job) { &mut item.is_dead } else { &mut item.disabled };
                *switch = !*switch;
            }
            Step::ResetNumbers(job) => {
                let Some(job) = self.pick(*job) else { return };
                self.stage.jenkins().reset_numbers(&job);
            }
            Step::DropBuild(job) => {
                let Some(job) = self.pick(*job) else { return };
                let mut jenkins = self.stage.jenkins();
                let builds = &mut jenkins.item_mut(&job).builds;
                if let Some(newest) = builds.iter().rposition(|build| build.result.is_some()) {
                    builds.remove(newest);
                }
            }
            Step::MakeAnew(job) => {
                let Some(job) = self.pick(*job) else { return };
                let mut jenkins = self.stage.jenkins();
                let old = jenkins.delete(&job);
                jenkins.create(old.class, &job);
            }
            Step::Look => assert!(self.stage.look().await, "{:?}", self.stage.trouble()),
        }
    }

    fn start(&mut self, job: &str, post: Post) -> u64 {
        let mut jenkins = self.stage.server.jenkins();
        let number = jenkins.begin(job);
        send(&mut self.on_their_way, &jenkins, job, number, [(Phase::Queued, post[0]), (Phase::Started, post[1])]);
        number
    }

    /// Its job may be gone by now, or another one.
    fn end(&mut self, job: &str, number: u64, result: &'static str, post: Post) {
        let mut jenkins = self.stage.server.jenkins();
        let runs = |jenkins: &Jenkins| {
            jenkins.jobs().iter().any(|known| known == job)
                && jenkins.item(job).builds.iter().any(|build| build.number == number && build.result.is_none())
        };
        if runs(&jenkins) {
            jenkins.finish(job, number, result);
            let phases = [(Phase::Completed, post[2]), (Phase::Finalized, post[3])];
            send(&mut self.on_their_way, &jenkins, job, number, phases);
        }
    }

    /// Time passes: documents arrive, a build ends.
    async fn pass(&mut self) {
        if self.running.len() > 2 {
            let (job, number, result, post) = self.running.remove(0);
            self.end(&job, number, result, post);
        }
        let mut arrived = Vec::new();
        self.on_their_way.retain_mut(|(steps, document)| {
            let is_there = *steps == 0;
            *steps = steps.saturating_sub(1);
            if is_there {
                arrived.push(document.take());
            }
            !is_there
        });
        for document in arrived.into_iter().rev() {
            self.stage.post(&document).await;
        }
    }

    async fn finish(&mut self) {
        for (job, number, result, post) in std::mem::take(&mut self.running) {
            self.end(&job, number, result, post);
        }
        while !self.on_their_way.is_empty() {
            self.pass().await;
        }
    }
}

fn is_branch(job: &str) -> bool {
    PROJECTS.iter().any(|project| job.starts_with(&format!("{project}/")))
}

fn send(
    on_their_way: &mut Vec<(usize, Value)>,
    jenkins: &Jenkins,
    job: &str,
    number: u64,
    phases: [(Phase, (usize, usize)); 2],
) {
    for (phase, (copies, later)) in phases {
        let copies = (0..copies).map(|copy| (later * (copy + 1), jenkins.document(job, number, phase)));
        on_their_way.extend(copies);
    }
}

/// The status of each job that has one, as Jenkins shows it: 0 to 2.
fn shown(jenkins: &Jenkins, mode: Mode) -> BTreeMap<String, u8> {
    let mut decisive: BTreeMap<String, Vec<(i64, u8)>> = BTreeMap::new();
    for job in jenkins.jobs() {
        let item = jenkins.item(&job);
        let Some(build) = jenkins.last_decisive(&job).filter(|_| !item.disabled && !item.is_dead) else { continue };
        let key = if is_branch(&job) { job.rsplit_once('/').unwrap().0.to_owned() } else { job };
        let status = RESULTS.iter().position(|result| build.result == Some(result)).unwrap();
        decisive.entry(key).or_default().push((build.created, u8::try_from(status).unwrap()));
    }
    let decide = |builds: Vec<(i64, u8)>| match mode {
        Mode::Latest => builds.into_iter().max().unwrap().1,
        Mode::Worst => builds.into_iter().map(|(_, status)| status).max().unwrap(),
    };
    decisive.into_iter().map(|(job, builds)| (job, decide(builds))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// For all that is done to jobs, branches and builds, and all ways in which webhooks get lost, doubled and shuffled:
    /// each status ends as Jenkins shows it, and Datadog was told so last.
    #[test]
    fn each_status_ends_as_jenkins_shows_it(worst in any::<bool>(), steps in vec(step(), 1..40)) {
        let mode = if worst { Mode::Worst } else { Mode::Latest };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut play = Play::begin(mode).await;
            for step in &steps {
                play.step(step).await;
                play.pass().await;
            }
            play.finish().await;
            // What is wrong is found by the first look, believed by the second, and what was given up for it is joined
            // anew by the third.
            for _ in 0..3 {
                assert!(play.stage.look().await, "{:?}", play.stage.trouble());
            }
            let expected = shown(&play.stage.jenkins(), mode);
            let found = play.stage.statuses().into_iter().map(|(job, (status, _))| (job, status as u8)).collect();
            prop_assert_eq!(&expected, &found);
            prop_assert_eq!(play.stage.trouble(), None);
            let heard = play.stage.heard().await;
            for (job, checks) in &heard.checks {
                let last = checks.last().copied();
                prop_assert_eq!(last, Some(expected.get(job).copied().unwrap_or(0)), "{}: {}", job, heard.messages[job]);
            }
            for job in expected.keys() {
                prop_assert!(heard.checks.contains_key(job), "{} was never told", job);
            }
            Ok(())
        })?;
    }
}
