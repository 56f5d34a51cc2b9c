//! Why the API server tells nothing, in words for people. Pure.

use std::error::Error;
use std::fmt::Display;

use kube::runtime::watcher;

/// What has gone wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// As a metric's label.
    pub(super) reason: &'static str,
    /// `None` for what happens every day: the watch begins again, and nobody need know.
    pub(super) why: Option<String>,
    /// Where the watch left off may not be known any more.
    pub(super) is_stuck: bool,
}

impl Trouble {
    pub(super) fn of(error: &watcher::Error) -> Self {
        let (reason, why) = match error {
            watcher::Error::WatchError(status) if status.code == 410 => ("gone", None),
            watcher::Error::WatchError(status) => by_code(status.code, &status.message),
            watcher::Error::WatchFailed(kube::Error::SerdeError(error)) => malformed(error),
            watcher::Error::WatchFailed(_) => ("broken_off", None),
            watcher::Error::NoResourceVersion => malformed(&"there is no resourceVersion"),
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => asked(error),
        };
        Self { reason, why, is_stuck: matches!(error, watcher::Error::WatchStartFailed(_)) }
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
