//! `recoverd issues list|show|forget`.

use anstream::println;
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::admin_api::{AdminApi, AdminArgs};
use super::table::{StatusArg, colour, harmless, utc};
use super::{Exit, block_on, table};
use crate::config::Settings;
use crate::http::admin::{IssueView, IssuesView};

#[derive(Debug, Subcommand)]
pub(super) enum Issues {
    /// Every issue, metric alert and project that Sentry told of, with its status, and why.
    #[command(after_help = "Example: recoverd issues list --status critical --json")]
    List(List),
    /// One of them. Exits with 1 if there is none, and its JSON is then null.
    #[command(
        after_help = "Examples: recoverd issues show sentry WEB-1F\n          recoverd issues show sentry alert/3"
    )]
    Show(One),
    /// Send one OK for an issue or a metric alert and forget it. It comes back when Sentry tells of it anew.
    #[command(after_help = "Example: recoverd issues forget sentry WEB-1F")]
    Forget(One),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only what this integration told of.
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    /// Only what is of this project.
    #[arg(long, value_name = "SLUG")]
    project: Option<String>,
    /// Only what has this status.
    #[arg(long)]
    status: Option<StatusArg>,
    /// One JSON document with all of it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The integration, by its name in the settings.
    integration: String,
    /// An issue's number or short id, `alert/` and the number of a metric alert's rule, or `project/` and a slug.
    id: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Issues {
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
        let mut issues = all(&self.admin.connect(settings)?).await?;
        let total = issues.len();
        issues.retain(|issue| self.integration.as_ref().is_none_or(|wanted| *wanted == issue.integration));
        issues.retain(|issue| self.project.is_none() || self.project == issue.project);
        issues.retain(|issue| self.status.is_none_or(|wanted| issue.status == wanted.into()));
        if self.json {
            println!("{}", serde_json::to_string_pretty(&IssuesView { issues, next: None })?);
        } else if total == 0 {
            println!(
                "nothing yet: issues and alerts appear with their first webhook, or with the first look at a Sentry"
            );
        } else if issues.is_empty() {
            println!("none of {total} matches; without --integration, --project and --status all are listed");
        } else {
            print(&issues);
        }
        Ok(Exit::Success)
    }
}

impl One {
    async fn show(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let Some(response) = self.admin.connect(settings)?.get(&self.path(), &[]).await? else {
            if self.json {
                println!("null");
            }
            return Ok(self.missing());
        };
        let issue: IssueView =
            response.json().await.context("the answer is no issue; is recoverd of another version?")?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&issue)?);
            return Ok(Exit::Success);
        }
        print(std::slice::from_ref(&issue));
        if let Some(at) = issue.at_ms {
            println!("\nso since  {}", utc(at));
        }
        if let Some(link) = &issue.link {
            println!("link      {}", harmless(link));
        }
        Ok(Exit::Success)
    }

    async fn forget(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let found = self.admin.connect(settings)?.delete(&self.path()).await?.is_some();
        if self.json {
            println!("{}", serde_json::json!({ "forgotten": found }));
        } else if found {
            println!("{}:{} gets one OK and is forgotten", harmless(&self.integration), harmless(&self.id));
        }
        Ok(if found { Exit::Success } else { self.missing() })
    }

    fn path(&self) -> Vec<&str> {
        ["issues", &*self.integration].into_iter().chain(self.id.split('/')).collect()
    }

    fn missing(&self) -> Exit {
        let (integration, id) = (harmless(&self.integration), harmless(&self.id));
        anstream::eprintln!("there is no open {id} of {integration}; `recoverd issues list` shows those there are");
        Exit::Failure
    }
}

async fn all(admin: &AdminApi) -> anyhow::Result<Vec<IssueView>> {
    let mut issues = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = admin.get(&["issues"], &query).await?.context("that address is no admin listener of recoverd")?;
        let page: IssuesView =
            page.json().await.context("the answer is no list of issues; is recoverd of another version?")?;
        issues.extend(page.issues);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(issues),
        }
    }
}

fn print(issues: &[IssueView]) {
    let row = |issue: &IssueView| {
        let project = issue.project.as_deref().unwrap_or("-");
        let why = issue.closed.as_ref().map(|reason| format!("no longer watched, {reason}"));
        let why = why.unwrap_or_else(|| issue.why.clone());
        let status = issue.status.as_str().to_owned();
        vec![harmless(&issue.integration), harmless(&issue.id), harmless(project), status, harmless(&why)]
    };
    let rows: Vec<Vec<String>> = issues.iter().map(row).collect();
    table::print(&["integration", "id", "project", "status", "why"], &rows, |column, cell| {
        if column == 3 { colour(cell.trim_end()) } else { anstyle::Style::new() }
    });
}
