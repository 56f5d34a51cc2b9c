//! What the shape of a job's name and its source control tell of branches. Pure.
//!
//! Nothing in most documents says whether a parent is a folder or a multibranch project; this is the inference that
//! stands in until the configuration or Jenkins itself says more.

use crate::domain::job::JobPath;
use crate::domain::projects::Source;
use crate::domain::rules::Children;

use super::url::decoded_once;

/// What the parent of `job` holds: as the sender told it, else by what the document shows.
pub(super) fn parent_holds(job: &JobPath, scm_branch: Option<&str>, told: Option<bool>) -> Option<(Source, Children)> {
    match told {
        Some(true) => Some((Source::Told, Children::Branches)),
        Some(false) => Some((Source::Told, Children::Jobs)),
        None => is_branch(job, scm_branch).then_some((Source::Inferred, Children::Branches)),
    }
}

/// Whether the leaf of `job` is, by all that the document shows, a branch of its parent.
fn is_branch(job: &JobPath, scm_branch: Option<&str>) -> bool {
    leaf(job).is_some_and(|leaf| {
        // Names typed by people cannot hold a `%` (`jenkins.model.Jenkins.checkGoodName`): an encoded slash is the
        // work of branch-api's `NameEncoder`.
        leaf.contains("%2F") || leaf.contains("%2f") || is_change_request(leaf)
            // The git plugin reports the branch that it built; a branch's job is named after it.
            || scm_branch.is_some_and(|branch| branch == decoded_once(leaf))
    })
}

/// The short name of a job that has a parent; unlike [`JobPath::split_leaf`], without making the parent.
fn leaf(job: &JobPath) -> Option<&str> {
    job.as_str().rsplit_once('/').map(|(_, leaf)| leaf)
}

/// `PR-12`, `PR-12-head`, `PR-12-merge`: github-branch-source, bitbucket-branch-source and gitea name pull requests so, the
/// suffix where both the head and the merge are built. `MR-12` and the like: gitlab-branch-source.
fn is_change_request(leaf: &str) -> bool {
    let Some(rest) = leaf.strip_prefix("PR-").or_else(|| leaf.strip_prefix("MR-")) else { return false };
    let number = rest.strip_suffix("-head").or_else(|| rest.strip_suffix("-merge")).unwrap_or(rest);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The branch as people call it: `origin/main` is `main` (git plugin, `GIT_BRANCH`).
///
/// Only the usual remote's name is known to be one: in `feature/x`, `feature` is part of the branch. And a branch that
/// is really called `origin/x` has a job of that name.
pub(super) fn without_remote<'a>(scm_branch: &'a str, job: &JobPath) -> &'a str {
    if leaf(job).is_some_and(|leaf| decoded_once(leaf) == scm_branch) {
        return scm_branch;
    }
    ["refs/heads/", "refs/remotes/origin/", "remotes/origin/", "origin/"]
        .into_iter()
        .find_map(|prefix| scm_branch.strip_prefix(prefix))
        .filter(|branch| !branch.is_empty())
        .unwrap_or(scm_branch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_shows_by_its_name_or_by_its_source_control() {
        let table = [
            ("acme/web/main", Some("origin/main"), true),
            ("acme/web/main", Some("main"), true),
            ("acme/web/main", Some("refs/heads/main"), true),
            ("acme/web/main", Some("refs/remotes/origin/main"), true),
            ("acme/web/main", Some("origin/develop"), false),
            ("acme/web/main", None, false),
            ("acme/web/feature%2Fx", None, true),
            ("acme/web/feature%2fx", None, true),
            ("acme/web/a%23b", Some("origin/a#b"), true),
            ("acme/web/origin%2Fx", Some("origin/x"), true),
            ("acme/web/x", Some("feature/x"), false),
            ("acme/web/PR-12", None, true),
            ("acme/web/PR-12-head", None, true),
            ("acme/web/PR-12-merge", None, true),
            ("acme/web/MR-7", None, true),
            ("acme/web/MR-7-merge", None, true),
            ("acme/web/PR-", None, false),
            ("acme/web/PR-head", None, false),
            ("acme/web/PR-1-2", None, false),
            ("acme/web/SPR-12", None, false),
            ("acme/web/pr-12", None, false),
            ("acme", Some("origin/main"), false),
            // At the top level there is nothing to be a branch of.
            ("main", Some("origin/main"), false),
            ("PR-12", None, false),
            ("feature%2Fx", Some("origin/feature/x"), false),
        ];
        for (path, scm_branch, expected) in table {
            let job = JobPath::parse(path).unwrap();
            let scm_branch = scm_branch.map(|branch| without_remote(branch, &job));
            assert_eq!(is_branch(&job, scm_branch), expected, "{path} {scm_branch:?}");
        }
    }

    #[test]
    fn only_the_remotes_name_is_taken_off() {
        let table = [
            ("acme/web", "origin/main", "main"),
            ("acme/web", "origin/feature/x", "feature/x"),
            ("acme/web", "refs/heads/main", "main"),
            ("acme/web", "refs/remotes/origin/main", "main"),
            ("acme/web", "feature/x", "feature/x"),
            ("acme/feature%2Fx", "feature/x", "feature/x"),
            ("acme/origin%2Fx", "origin/x", "origin/x"),
            ("acme/web", "origin/", "origin/"),
        ];
        for (path, scm_branch, expected) in table {
            assert_eq!(without_remote(scm_branch, &JobPath::parse(path).unwrap()), expected, "{path} {scm_branch}");
        }
    }
}
