//! `recoverd jobs list|show|forget`.

use std::time::Duration;

use anstream::println;
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::admin_api::{AdminApi, AdminArgs};
use super::table::{StatusArg, colour, harmless, utc};
use super::{Exit, block_on, table};
use crate::config::Settings;
use crate::domain::status::Status;
use crate::http::admin::{BuildView, JobView, JobsView};

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// Every job with its status, and why.
    #[command(after_help = "Example: recoverd jobs list --status critical --json")]
    List(List),
    /// One job with its branches and builds. Exits with 1 if there is none, and its JSON is then null.
    #[command(after_help = "Example: recoverd jobs show main acme/web")]
    Show(One),
    /// Send one OK for a job and forget it. It comes back with its next build.
    #[command(after_help = "Example: recoverd jobs forget main acme/old")]
    Forget(One),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only the jobs of this Jenkins.
    #[arg(long, value_name = "NAME")]
    controller: Option<String>,
    /// Only the jobs with this status.
    #[arg(long)]
    status: Option<StatusArg>,
    /// Only the jobs whose webhooks do not come although others' do, and what is probably wrong.
    #[arg(long)]
    silent: bool,
    /// One JSON document with all jobs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The Jenkins, by its name in the settings.
    controller: String,
    /// The job's full name, as `jobs list` shows it.
    job: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Jobs {
    pub(super) fn run(self, settings: &Settings) -> anyhow::Result<Exit> {
        block_on(async {
            match self {
                Self::List(list) => list.run(settings).await,
                Self::Show(one) => one.show(settings).await,
                Self::Forget(one) => one.forget(settings).await,
            }
        })?
    }
}

impl List {
    async fn run(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let mut jobs = all(&self.admin.connect(settings)?).await?;
        let total = jobs.len();
        jobs.retain(|job| self.controller.as_ref().is_none_or(|wanted| *wanted == job.controller));
        jobs.retain(|job| self.status.is_none_or(|wanted| job.status == Some(wanted.into())));
        jobs.retain(|job| !self.silent || job.silent.is_some());
        if self.json {
            println!("{}", serde_json::to_string_pretty(&JobsView { jobs, next: None })?);
        } else if total == 0 {
            println!("no jobs yet: they appear with their first webhook, or with the first look at a Jenkins");
        } else if jobs.is_empty() && self.silent {
            println!("none of {total} jobs is silent");
        } else if jobs.is_empty() {
            println!("none of {total} jobs matches; without --controller and --status all are listed");
        } else if self.silent {
            print_silent(&jobs);
        } else {
            print_jobs(&jobs);
        }
        Ok(Exit::Success)
    }
}

impl One {
    async fn show(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let path = ["jobs", &self.controller, &self.job];
        let Some(response) = self.admin.connect(settings)?.get(&path_of(&path), &[]).await? else {
            if self.json {
                println!("null");
            }
            return Ok(self.missing());
        };
        let job: JobView = response.json().await.context("the answer is not a job; is recoverd of another version?")?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&job)?);
            return Ok(Exit::Success);
        }
        print_jobs(std::slice::from_ref(&job));
        for branch in &job.branches {
            let left_out = if branch.counts { "" } else { " (has no say)" };
            let name =
                if branch.name.is_empty() { "builds".to_owned() } else { format!("branch {}", harmless(&branch.name)) };
            println!("\n{name}{left_out}");
            let rows: Vec<Vec<String>> = branch.builds.iter().map(build_row).collect();
            table::print(&["  #", "result", "created", "seconds"], &rows, |_, _| anstyle::Style::new());
        }
        Ok(Exit::Success)
    }

    async fn forget(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let path = ["jobs", &self.controller, &self.job];
        let found = self.admin.connect(settings)?.delete(&path_of(&path)).await?.is_some();
        if self.json {
            println!("{}", serde_json::json!({ "forgotten": found }));
        } else if found {
            println!("{}:{} gets one OK and is forgotten", harmless(&self.controller), harmless(&self.job));
        }
        Ok(if found { Exit::Success } else { self.missing() })
    }

    fn missing(&self) -> Exit {
        let (controller, job) = (harmless(&self.controller), harmless(&self.job));
        anstream::eprintln!("there is no job {job} on {controller}; `recoverd jobs list` shows those there are");
        Exit::Failure
    }
}

/// A job's path is one argument of several segments.
fn path_of<'a>(path: &[&'a str]) -> Vec<&'a str> {
    path.iter().flat_map(|part| part.split('/')).collect()
}

async fn all(admin: &AdminApi) -> anyhow::Result<Vec<JobView>> {
    let mut jobs = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = admin.get(&["jobs"], &query).await?.context("that address is no admin listener of recoverd")?;
        let page: JobsView =
            page.json().await.context("the answer is no list of jobs; is recoverd of another version?")?;
        jobs.extend(page.jobs);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(jobs),
        }
    }
}

pub(super) fn print_jobs(jobs: &[JobView]) {
    let row = |job: &JobView| {
        let status = job.status.map_or("-", Status::as_str).to_owned();
        let why = job.closed.as_ref().map(|reason| format!("no longer watched, {reason}"));
        let why = why.or_else(|| job.why.clone()).unwrap_or_else(|| "no build has decided yet".to_owned());
        vec![harmless(&job.controller), harmless(&job.job), status, harmless(&why)]
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    table::print(&["controller", "job", "status", "why"], &rows, |column, cell| {
        if column == 2 { colour(cell.trim_end()) } else { anstyle::Style::new() }
    });
}

fn print_silent(jobs: &[JobView]) {
    let row = |job: &JobView| {
        let silent = job.silent.as_ref()?;
        let branch = silent.branch.as_ref().map(|branch| format!(" on {}", harmless(branch))).unwrap_or_default();
        let build = format!("#{}{branch}", silent.number);
        Some(vec![harmless(&job.controller), harmless(&job.job), build, utc(silent.since_ms), silent.advice.clone()])
    };
    let rows: Vec<Vec<String>> = jobs.iter().filter_map(row).collect();
    let columns = ["controller", "job", "build", "ended", "what is probably wrong"];
    table::print(&columns, &rows, |_, _| anstyle::Style::new());
}

fn build_row(build: &BuildView) -> Vec<String> {
    let created = i64::try_from(build.created_slack_ms).unwrap_or(i64::MAX);
    let vague = if created > 0 { "<= " } else { "" };
    let seconds = build
        .duration_ms
        .map_or_else(|| "-".to_owned(), |ms| format!("{:.1}", Duration::from_millis(ms).as_secs_f64()));
    vec![
        format!("  {}", build.number),
        build.result.clone().unwrap_or_else(|| "running".to_owned()),
        format!("{vague}{}", utc(build.created_ms)),
        seconds,
    ]
}
