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
            // It would list by itself, though as it did before, and that may have been from memory.
            WatchError(status) | WatchStartFailed(kube::Error::Api(status)) if status.code == 410 => {
                (by_code(status.code, &status.message), Place::Lost)
            }
            WatchError(status) => (by_code(status.code, &status.message), Place::Doubtful),
            WatchFailed(kube::Error::SerdeError(error)) => (malformed(error), Place::Lost),
            // Nearly any JSON is a status to kube, one that says nothing.
            WatchFailed(kube::Error::Api(status)) if status.code == 0 => (malformed(&"it is no event"), Place::Lost),
            WatchFailed(error @ kube::Error::Api(_)) => (asked(error), Place::Lost),
            WatchFailed(_) => (("broken_off", None), Place::Known),
            NoResourceVersion => (malformed(&"there is no resourceVersion"), Place::Known),
            InitialListFailed(error) | WatchStartFailed(error) => (asked(error), Place::Doubtful),
        };
        Self { reason, why, place }
    }
}

/// What is wrong, with the words of whoever said so, and behind the last colon what to do.
fn asked(error: &kube::Error) -> (&'static str, Option<String>) {
    match error {
        kube::Error::Api(status) => by_code(status.code, &status.message),
        kube::Error::Auth(error) => {
            let error = told(error);
            ("unauthorized", Some(format!("cannot use the service account ({error}): see that its token is mounted")))
        }
        kube::Error::SerdeError(error) => malformed(error),
        kube::Error::FromUtf8(error) => malformed(error),
        error => {
            let why = told(&root(error));
            let why = format!(
                "cannot reach the API server ({why}): check `kubernetes.api_server`, and what lies between (NetworkPolicy, \
                 firewall, the cluster's authority)"
            );
            ("unreachable", Some(why))
        }
    }
}

fn by_code(code: u16, message: &str) -> (&'static str, Option<String>) {
    let message = told(&message);
    match code {
        401 => (
            "unauthorized",
            Some(format!(
                "the API server does not know the service account (401, {message}): see that its token is mounted, and that \
                 `kubernetes.api_server` is the cluster that gave it"
            )),
        ),
        403 => (
            "forbidden",
            Some(format!(
                "the service account may not see pods (403, {message}): bind it to a ClusterRole with get, list and watch on \
                 pods, as in deploy/k8s/relay-daemonset"
            )),
        ),
        410 => ("gone", None),
        code => (
            "status",
            Some(format!("the API server answers with an error ({code}, {message}): see what its own log says")),
        ),
    }
}

fn malformed(error: &dyn Display) -> (&'static str, Option<String>) {
    let error = told(error);
    let why = format!(
        "the API server's answer is not understood ({error}): see whether `kubernetes.api_server` leads to one"
    );
    ("malformed", Some(why))
}

/// Cut, so that what to do still follows.
fn told(words: &dyn Display) -> String {
    words.to_string().chars().take(LONGEST).collect()
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
        assert!(why.starts_with("the API server answers with an error (502, <html>"), "{why}");
        assert!(why.ends_with("): see what its own log says"), "{why}");
        assert!(why.chars().count() < LONGEST + 100, "{why}");
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
            (watcher::Error::WatchError(status(410)), Place::Lost),
            (watcher::Error::WatchStartFailed(kube::Error::Api(status(410))), Place::Lost),
            (watcher::Error::WatchFailed(kube::Error::LinesCodecMaxLineLengthExceeded), Place::Known),
        ];
        for (error, place) in table {
            assert_eq!(Trouble::of(&error).place, place, "{error:?}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        // As a real one has it, with colons of its own.
        const MESSAGE: &str =
            "pods is forbidden: User \"system:serviceaccount:recoverd:relay\" cannot list resource \"pods\"";
        let status = |code| Box::new(Status { code, message: MESSAGE.into(), ..Status::default() });
        let table = [
            (401, "unauthorized", Some(("does not know the service account (401, ", "see that its token is mounted"))),
            (
                403,
                "forbidden",
                Some(("may not see pods (403, ", "bind it to a ClusterRole with get, list and watch on pods")),
            ),
            (410, "gone", None),
            (500, "status", Some(("answers with an error (500, ", "see what its own log says"))),
        ];
        for (code, reason, says) in table {
            for error in [
                watcher::Error::InitialListFailed(kube::Error::Api(status(code))),
                watcher::Error::WatchError(status(code)),
            ] {
                let trouble = Trouble::of(&error);
                assert_eq!(trouble.reason, reason, "{error}");
                assert_eq!(trouble.why.is_some(), says.is_some(), "{error}");
                let (Some(why), Some((wrong, remedy))) = (trouble.why, says) else { continue };
                let (found, to_do) = why.rsplit_once(": ").unwrap();
                assert!(found.contains(wrong) && found.ends_with(&format!("{MESSAGE})")), "{why}");
                assert!(to_do.starts_with(remedy), "{why}");
            }
        }
    }

    #[test]
    fn one_that_cannot_be_asked_or_understood_has_a_remedy_too() {
        let table = [
            kube::Error::LinesCodecMaxLineLengthExceeded,
            kube::Error::Auth(kube::client::AuthError::UnrefreshableTokenResponse),
            kube::Error::SerdeError(serde_json::from_str::<()>("x: y; z").unwrap_err()),
        ];
        for (error, remedy) in
            table.into_iter().zip(["check `kubernetes", "see that its token", "see whether `kubernetes"])
        {
            let why = Trouble::of(&watcher::Error::InitialListFailed(error)).why.unwrap();
            assert!(why.rsplit_once(": ").unwrap().1.starts_with(remedy), "{why}");
        }
    }
}
