//! `metric_alert`. Pure.

use serde::de::MapAccess;

use super::{HookError, IgnoredBecause, Reading, fill, required};
use crate::domain::build::Timestamp;
use crate::domain::sentry::{AlertReport, AlertState, AlertText, Occurrence};
use crate::machinery::lenient::{Fill, Filling, skip};
use crate::sentry::fields::{Slugs, link, text};
use crate::sentry::rest::{Incident, Rule};

pub(super) fn read(body: &[u8], at: Timestamp) -> Result<Reading, HookError> {
    let mut hook = Hook::default();
    fill(body, &mut hook)?;
    let state = match required(hook.action.as_deref(), "action")? {
        "critical" => AlertState::Critical,
        "warning" => AlertState::Warning,
        "open" => AlertState::Open,
        "resolved" => AlertState::Resolved,
        _ => return Ok(Reading::Ignored(IgnoredBecause::UnknownAction)),
    };
    let Shown { incident, rule, rules_projects } = hook.alert;
    let identifier = required(Some(incident.identifier).filter(|id| *id > 0), "data.metric_alert.identifier")?;
    let about = AlertText {
        name: rule.name.or(incident.title),
        projects: if incident.projects.is_empty() { rules_projects } else { incident.projects },
        text: hook.text.or(hook.title),
        link: hook.link,
    };
    let rule = required(rule.id, "data.metric_alert.alert_rule.id")?;
    Ok(Occurrence::Alert(AlertReport { rule, identifier, state, at, about }).into())
}

#[derive(Default)]
struct Hook {
    action: Option<String>,
    alert: Shown,
    title: Option<String>,
    text: Option<String>,
    link: Option<String>,
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
        let hook = &mut *self.0;
        match key {
            "metric_alert" => map.next_value_seed(Filling(&mut hook.alert))?,
            "description_title" => hook.title = text(map)?,
            "description_text" => hook.text = text(map)?,
            "web_url" => hook.link = link(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// As the REST API shows it, but for the rule, which has another name here.
#[derive(Default)]
struct Shown {
    incident: Incident,
    rule: Rule,
    rules_projects: Vec<String>,
}

impl<'de> Fill<'de> for Shown {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "alert_rule" => {
                map.next_value_seed(Filling(&mut OfRule { rule: &mut self.rule, projects: &mut self.rules_projects }))
            }
            key => self.incident.field(key, map),
        }
    }
}

struct OfRule<'s> {
    rule: &'s mut Rule,
    projects: &'s mut Vec<String>,
}

impl<'de> Fill<'de> for OfRule<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "projects" => map.next_value_seed(Filling(&mut Slugs(self.projects))),
            key => self.rule.field(key, map),
        }
    }
}
