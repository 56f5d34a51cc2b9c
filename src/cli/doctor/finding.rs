//! What one check came to. Pure.

use serde::Serialize;

use crate::cli::table::harmless;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It works, and somebody should know this.
    Warning,
    Failed,
    /// There is nothing to check.
    Skipped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do about it. Empty where `found` says so itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, found, "")
    }

    pub(super) fn skipped(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, check, found, "")
    }

    pub(super) fn warning(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, found, remedy)
    }

    pub(super) fn failed(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Verdict::Failed, check, found, remedy)
    }

    /// Out of a message of this house, which says what is wrong, and behind its last `: ` or `; ` what to do.
    pub(super) fn complaint(verdict: Verdict, check: impl Into<String>, message: &str) -> Self {
        let cut = [": ", "; "].into_iter().filter_map(|mark| message.rfind(mark)).max();
        let (found, remedy) = match cut {
            Some(cut) => (message.get(..cut), message.get(cut + 2..)),
            None => (Some(message), None),
        };
        Self::new(verdict, check, found.unwrap_or(message), remedy.unwrap_or_default())
    }

    fn new(verdict: Verdict, check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), verdict, found: found.into(), remedy: remedy.into() }
    }

    /// A line of a table, and one more for the remedy.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        let mut rows = vec![vec![verdict.to_owned(), harmless(&self.check), harmless(&self.found)]];
        if !self.remedy.is_empty() {
            rows.push(vec![String::new(), String::new(), format!("-> {}", harmless(&self.remedy))]);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_into_what_is_wrong_and_what_to_do() {
        let table = [
            ("no socket at /x: mount its directory", "no socket at /x", "mount its directory"),
            ("https://ci/: 401, a: set `user`", "https://ci/: 401, a", "set `user`"),
            ("r.toml:3: `x`: too short; make it longer", "r.toml:3: `x`: too short", "make it longer"),
            ("without any", "without any", ""),
        ];
        for (message, found, remedy) in table {
            assert_eq!(
                Finding::complaint(Verdict::Failed, "x", message),
                Finding::failed("x", found, remedy),
                "{message}"
            );
        }
    }
}
