//! Whom Jenkins takes us for, as `whoAmI/api/json` tells every user (`hudson.security.WhoAmI`). Pure.

use serde::Deserialize;

use super::Fault;
use super::answer::{Answer, syntax};
use crate::domain::build::Timestamp;

pub(super) const TREE: &str = "name,anonymous";

/// Who answered, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Jenkins' version. `None` when nothing says that this is Jenkins.
    pub version: Option<String>,
    /// The user's id, as Jenkins calls it.
    pub user: String,
    /// Nobody in particular.
    pub is_anonymous: bool,
    /// The controller's own time, to the second.
    pub clock: Option<Timestamp>,
}

#[derive(Deserialize)]
struct WhoAmI {
    name: Option<String>,
    anonymous: Option<bool>,
}

/// # Errors
/// When it does not say who we are.
pub(super) fn read(answer: &Answer) -> Result<Introduction, Fault> {
    let who: WhoAmI = serde_json::from_slice(&answer.body).map_err(|error| syntax(&error))?;
    let (Some(user), Some(is_anonymous)) = (who.name, who.anonymous) else {
        return Err(Fault::Foreign { what: "`name` and `anonymous`" });
    };
    Ok(Introduction { version: answer.version.clone(), user, is_anonymous, clock: answer.date })
}
