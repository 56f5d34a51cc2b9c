//! `issue` and `comment`. Pure.

use serde::de::MapAccess;

use super::{HookError, IgnoredBecause, Reading, fill, project, required};
use crate::domain::build::Timestamp;
use crate::domain::sentry::{IssueReport, IssueState, IssueText, Level, Notice, NoticeKind, Occurrence};
use crate::machinery::lenient::{Fill, Filling, skip};
use crate::sentry::fields::{link, number, text};
use crate::sentry::rest::Issue;

pub(super) fn read(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut hook = Hook::default();
    fill(body, &mut hook)?;
    let (state, action) = match required(hook.action.as_deref(), "action")? {
        "created" => (IssueState::Open, "created"),
        "unresolved" => (IssueState::Open, "unresolved"),
        "resolved" => (IssueState::Resolved, "resolved"),
        // Its name until 2023.
        "archived" | "ignored" => (IssueState::Archived, "archived"),
        "assigned" => return Ok(Reading::Ignored(IgnoredBecause::Assigned)),
        _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownAction)),
    };
    let Shown { issue, permalink, web_url } = hook.issue;
    let id = required(Some(issue.id).filter(|id| *id > 0), "data.issue.id")?;
    let about = IssueText {
        project: project(issue.project.slug, issue.project.id),
        short_id: issue.short_id,
        level: issue.level.as_deref().and_then(Level::read),
        title: issue.title,
        culprit: issue.culprit,
        link: permalink.or(web_url),
    };
    Ok(Occurrence::Issue(IssueReport { id, state, action, at, about }).into())
}

pub(super) fn read_comment(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut hook = Hook::default();
    fill(body, &mut hook)?;
    match required(hook.action.as_deref(), "action")? {
        "created" => {}
        "updated" | "deleted" => return Ok(Reading::Ignored(IgnoredBecause::CommentEdited)),
        _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownAction)),
    }
    let comment = hook.comment;
    let id = required(comment.id, "data.comment_id")?;
    Ok(Occurrence::Notice(Notice {
        kind: NoticeKind::Comment,
        id: id.to_string(),
        at,
        issue: comment.issue,
        project: comment.project,
        level: None,
        title: comment.text,
        culprit: None,
        link: None,
        rule: None,
        pod_name: None,
        pod_namespace: None,
    })
    .into())
}

#[derive(Default)]
struct Hook {
    action: Option<String>,
    issue: Shown,
    comment: Comment,
}

impl<'de> Fill<'de> for Hook {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "action" => self.action = text(map)?,
            "data" => map.next_value_seed(Filling(&mut Data(self)))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct Data<'h>(&'h mut Hook);

impl<'de> Fill<'de> for Data<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Hook { issue, comment, .. } = &mut *self.0;
        match key {
            "issue" => map.next_value_seed(Filling(issue))?,
            "comment" => comment.text = text(map)?,
            "comment_id" => comment.id = number(map)?,
            "issue_id" => comment.issue = number(map)?,
            "project_slug" => comment.project = text(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// As the REST API shows it, with one link more.
#[derive(Default)]
struct Shown {
    issue: Issue,
    permalink: Option<String>,
    web_url: Option<String>,
}

impl<'de> Fill<'de> for Shown {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "permalink" => self.permalink = link(map)?,
            "web_url" => self.web_url = link(map)?,
            key => self.issue.field(key, map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Comment {
    text: Option<String>,
    id: Option<u64>,
    issue: Option<u64>,
    project: Option<String>,
}
