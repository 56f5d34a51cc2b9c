//! Why the API server tells nothing, in words for people. Pure.

use std::error::Error;
use std::fmt::Display;

use kube::runtime::watcher;

/// In characters: a gateway on the way may answer with a whole page.
const LONGEST: usize = 400;

/// What has gone wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// As a metric's label.
    pub(super) reason: &'static str,
    /// `None` for what happens every day: the watch begins again, and nobody need know.
    pub(super) why: Option<String>,
    pub(super) place: Place,
}

/// Where the watch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where it was, or it begins with a list by itself.
    Known,
    /// Where it was, which may be what the API server refuses.
    Doubtful,
    /// What was told there is lost: only a list brings it back.
    Lost,
}

impl Trouble {
    pub(super) fn of(error: &watcher::Error) -> Self {
        use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
        let ((reason, why), place) = match error {
            WatchError(status) if status.code == 410 => (by_code(status.code, &status.message), Place::Known),
            WatchError(status) => (by_code(status.code, &status.message), Place::Doubtful),
            WatchFailed(kube::Error::SerdeError(error)) => (malformed(error), Place::Lost),
            // Nearly any JSON is a status to kube, one that says nothing.
            WatchFailed(kube::Error::Api(status)) if status.code == 0 => (malformed(&"it is no event"), Place::Lost),
            WatchFailed(error @ kube::Error::Api(_)) => (asked(error), Place::Lost),
            WatchFailed(_) => (("broken_off", None), Place::Known),
            NoResourceVersion => (malformed(&"there is no resourceVersion"), Place::Known),
            InitialListFailed(error) | WatchStartFailed(error) => (asked(error), Place::Doubtful),
        };
        Self { reason, why: why.map(|why| why.chars().take(LONGEST).collect()), place }
    }
}

fn asked(error: &kube::Error) -> (&'static str, Option<String>) {
    match error {
        kube::Error::Api(status) => by_code(status.code, &status.message),
        kube::Error::Auth(error) => ("unauthorized", Some(format!("cannot use the service account: {error}"))),
        kube::Error::SerdeError(error) => malformed(error),
        kube::Error::FromUtf8(error) => malformed(error),
        error => ("unreachable", Some(format!("cannot reach the API server: {}", root(error)))),
    }
}

fn by_code(code: u16, message: &str) -> (&'static str, Option<String>) {
    match code {
        401 => ("unauthorized", Some(format!("the API server does not know the service account (401): {message}"))),
        403 => (
            "forbidden",
            Some(format!(
                "the service account may not see pods (403): bind it to a ClusterRole with get, list and watch on pods, as \
                 in deploy/k8s/relay-daemonset: {message}"
            )),
        ),
        410 => ("gone", None),
        code => ("status", Some(format!("the API server answers {code}: {message}"))),
    }
}

fn malformed(error: &dyn Display) -> (&'static str, Option<String>) {
    ("malformed", Some(format!("the API server's answer is not understood: {error}")))
}

/// What it comes from, which alone says something: those above it say that a request failed.
fn root(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_whole_page_of_a_gateway_is_cut() {
        let page = Box::new(Status { code: 502, message: "<html>é".repeat(10_000), ..Status::default() });
        let why = Trouble::of(&watcher::Error::WatchStartFailed(kube::Error::Api(page))).why.unwrap();
        assert!(why.starts_with("the API server answers 502: <html>"), "{why}");
        assert_eq!(why.chars().count(), LONGEST);
    }

    #[test]
    fn what_was_lost_is_listed_and_what_is_refused_for_long_is_too() {
        let status = |code| Box::new(Status { code, ..Status::default() });
        let unreadable = || kube::Error::SerdeError(serde_json::from_str::<()>("x").unwrap_err());
        let table = [
            (watcher::Error::WatchFailed(unreadable()), Place::Lost),
            (watcher::Error::WatchFailed(kube::Error::Api(status(0))), Place::Lost),
            (watcher::Error::WatchFailed(kube::Error::Api(status(500))), Place::Lost),
            (watcher::Error::WatchError(status(500)), Place::Doubtful),
            (watcher::Error::WatchStartFailed(kube::Error::Api(status(504))), Place::Doubtful),
            (watcher::Error::InitialListFailed(unreadable()), Place::Doubtful),
            (watcher::Error::WatchError(status(410)), Place::Known),
            (watcher::Error::WatchFailed(kube::Error::LinesCodecMaxLineLengthExceeded), Place::Known),
        ];
        for (error, place) in table {
            assert_eq!(Trouble::of(&error).place, place, "{error:?}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let status = |code| Box::new(Status { code, message: "pods is forbidden".into(), ..Status::default() });
        let table = [
            (401, "unauthorized", Some("does not know the service account")),
            (403, "forbidden", Some("ClusterRole with get, list and watch on pods")),
            (410, "gone", None),
            (500, "status", Some("answers 500: pods is forbidden")),
        ];
        for (code, reason, says) in table {
            for error in [
                watcher::Error::InitialListFailed(kube::Error::Api(status(code))),
                watcher::Error::WatchError(status(code)),
            ] {
                let trouble = Trouble::of(&error);
                assert_eq!(trouble.reason, reason, "{error}");
                assert_eq!(trouble.why.is_some(), says.is_some(), "{error}");
                assert!(trouble.why.unwrap_or_default().contains(says.unwrap_or_default()), "{error}");
            }
        }
    }
}
