//! Which job a Jenkins URL speaks of. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::domain::job::JobPath;

/// What a URL of a job, or of something below one, speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) job: JobPath,
    /// The number of the build that it leads to.
    pub(super) build: Option<u64>,
    /// It leads to a part of the job that is built by itself: an axis of a matrix (`AXIS=a,B=b/7/`), a Maven module.
    pub(super) is_part: bool,
}

/// The job that a URL of it, or of something below it, names; `None` when it names none.
pub(super) fn job_path(url: &str) -> Option<JobPath> {
    target(url).map(|target| target.job)
}

/// What a URL speaks of; `None` when it names no job.
///
/// Jenkins writes `job/acme/job/web/job/feature%252Fx/`, relative to its root (`hudson.model.AbstractItem.getUrl`). Each
/// name is percent-encoded once, and a branch's name was encoded before that, so one decoding gives the name as Jenkins
/// keeps it. What surrounds this is skipped: scheme, host and context path before the first `job/`, views
/// (`view/all/`), and what follows the last job: a build's number, a matrix axis, a query.
pub(super) fn target(url: &str) -> Option<Target> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = match path.split_once("://") {
        Some((_, host_and_path)) => host_and_path.split_once('/')?.1,
        None => path,
    };
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut names = Vec::with_capacity(4);
    let mut below = None;
    while let Some(segment) = segments.next() {
        match segment {
            // The name after `job` is a name, even if it is `job` or `view`.
            "job" => names.extend(segments.next().map(decoded_once)),
            "view" => _ = segments.next(),
            _ if names.is_empty() => {}
            other => {
                below = Some(other);
                break;
            }
        }
    }
    let job = JobPath::from_segments(names.iter().map(AsRef::as_ref)).ok()?;
    let build = below.and_then(|segment| segment.parse::<u32>().ok()).map(u64::from).filter(|number| *number > 0);
    Some(Target { job, is_part: below.is_some() && build.is_none(), build })
}

/// A malformed escape stays as it is; bytes that are not UTF-8 become U+FFFD. `+` is a plus, as in any path.
pub(super) fn decoded_once(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return segment.into();
    }
    percent_decode_str(segment).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_from_any_url_of_it() {
        let table = [
            // As the plugin writes it, and as others do.
            ("job/acme/job/web/", Some("acme/web")),
            ("job/acme/job/web", Some("acme/web")),
            ("/job/acme/job/web/", Some("acme/web")),
            ("job//acme//job//web//", Some("acme/web")),
            ("https://ci.example.org/job/acme/job/web/", Some("acme/web")),
            ("https://user:pass@ci.example.org:8443/jenkins/ci/job/acme/", Some("acme")),
            ("http://job/job/acme/", Some("acme")),
            ("jenkins/job/acme/job/web/?delay=0#top", Some("acme/web")),
            // Below a job.
            ("job/acme/job/web/12/", Some("acme/web")),
            ("job/acme/job/web/12/console", Some("acme/web")),
            ("job/matrix/AXIS=a,B=b/7/", Some("matrix")),
            ("job/acme/7/job/web/", Some("acme")),
            // Views.
            ("view/all/job/acme/", Some("acme")),
            ("view/all/view/job/job/acme/view/x/job/web/", Some("acme/web")),
            // Names that look like something else.
            ("job/job/job/x/", Some("job/x")),
            ("job/view/job/7/9/", Some("view/7")),
            // Decoded once, never twice.
            ("job/api%20build/", Some("api build")),
            ("job/acme/job/feature%252Fx/", Some("acme/feature%2Fx")),
            ("job/acme/job/feature%2Fx/", Some("acme/feature%2Fx")),
            ("job/acme/job/a%25252Fb/", Some("acme/a%252Fb")),
            ("job/%C3%BCber/", Some("über")),
            ("job/über/", Some("über")),
            ("job/a+b/", Some("a+b")),
            ("job/100%/job/%zz/job/%e/", Some("100%/%zz/%e")),
            ("job/%FF/", Some("\u{FFFD}")),
            // No job at all.
            ("", None),
            ("/", None),
            ("job/", None),
            ("job", None),
            ("view/job/", None),
            ("https://ci.example.org", None),
            ("https://job", None),
            ("acme/web", None),
            ("?job/acme", None),
        ];
        for (url, expected) in table {
            assert_eq!(job_path(url).as_ref().map(JobPath::as_str), expected, "{url:?}");
        }
    }

    #[test]
    fn a_url_tells_a_build_from_a_part_that_is_built_by_itself() {
        let table = [
            ("job/acme/job/web/", None, false),
            ("job/acme/job/web/12/", Some(12), false),
            ("https://ci.example.org/job/acme/12/console", Some(12), false),
            ("job/matrix/AXIS=a,B=b/", None, true),
            ("job/matrix/AXIS=a,B=b/7/", None, true),
            ("job/maven/org.example$core/7/", None, true),
            ("job/acme/0/", None, true),
            ("job/acme/99999999999/", None, true),
        ];
        for (url, build, is_part) in table {
            let target = target(url).unwrap();
            assert_eq!((target.build, target.is_part), (build, is_part), "{url}");
        }
    }
}
