//! Which job a Jenkins URL speaks of. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::domain::job::JobPath;

/// The job that a URL of it, or of something below it, names; `None` when it names none.
///
/// Jenkins writes `job/acme/job/web/job/feature%252Fx/`, relative to its root (`hudson.model.AbstractItem.getUrl`). Each
/// name is percent-encoded once, and a branch's name was encoded before that, so one decoding gives the name as Jenkins
/// keeps it. What surrounds this is skipped: scheme, host and context path before the first `job/`, views
/// (`view/all/`), and what follows the last job: a build's number, a matrix axis (`AXIS=a,B=b/`, of which only the
/// parent notifies), a query.
pub(super) fn job_path(url: &str) -> Option<JobPath> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = match path.split_once("://") {
        Some((_, host_and_path)) => host_and_path.split_once('/')?.1,
        None => path,
    };
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut names = Vec::with_capacity(4);
    while let Some(segment) = segments.next() {
        match segment {
            // The name after `job` is a name, even if it is `job` or `view`.
            "job" => names.extend(segments.next().map(decoded_once)),
            "view" => _ = segments.next(),
            _ if names.is_empty() => {}
            _ => break,
        }
    }
    JobPath::from_segments(names.iter().map(AsRef::as_ref)).ok()
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
}
