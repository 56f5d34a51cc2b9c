//! A controller's API: who we are to it, what it lets us see, and what time it has.

use std::time::Duration;

use super::asking::PATIENCE;
use super::finding::{Finding, Verdict};
use crate::config::Controller;
use crate::domain::build::{Created, Timestamp};
use crate::jenkins::rest::{Introduction, RemoteApi, RestSettings};
use crate::machinery::clock::Clock;

/// What clocks that are kept by NTP never differ by; `Date` has whole seconds, and the answer was on its way.
const NOTEWORTHY_SKEW: Duration = Duration::from_secs(30);

pub(super) async fn examine(controller: &Controller) -> Vec<Finding> {
    let name = format!("jenkins {}", controller.name);
    let Some(api) = &controller.api else {
        return vec![Finding::skipped(
            name,
            "it has no `api_token`: it is asked nothing, and a build without a webhook is not noticed",
        )];
    };
    let url = api.url.to_string();
    let failed = |error: &dyn std::fmt::Display| Finding::complaint(Verdict::Failed, name.as_str(), &error.to_string());
    let api = match RemoteApi::new(RestSettings { patience: PATIENCE, ..api.clone() }) {
        Ok(api) => api,
        Err(error) => return vec![failed(&error)],
    };
    let introduction = match api.introduce().await {
        Ok(introduction) => introduction,
        Err(error) => return vec![failed(&error)],
    };
    let mut findings = vec![credentials(&name, &url, &introduction)];
    if findings.iter().all(|finding| finding.verdict != Verdict::Failed) {
        findings.push(permissions(&name, &api).await);
    }
    findings.extend(introduction.clock.map(|theirs| clock(&name, theirs, Clock::system().now())));
    findings
}

fn credentials(name: &str, url: &str, introduction: &Introduction) -> Finding {
    let Introduction { version, user, is_anonymous, .. } = introduction;
    match version {
        _ if *is_anonymous => Finding::failed(
            name,
            format!("{url} takes us for anonymous in spite of the API token"),
            "let the proxy before Jenkins pass `Authorization` on",
        ),
        Some(version) => Finding::ok(name, format!("Jenkins {version} at {url} knows us as {user}")),
        None => Finding::warning(
            name,
            format!("{url} knows us as {user}, but does not say that it is Jenkins"),
            "check `url`, and that a proxy passes the header X-Jenkins on",
        ),
    }
}

async fn permissions(name: &str, api: &RemoteApi) -> Finding {
    let check = format!("{name} permissions");
    match api.tour().next().await {
        Err(error) => return Finding::complaint(Verdict::Failed, check, &error.to_string()),
        Ok(None) => {
            return Finding::warning(
                check,
                "this user sees no job",
                "grant it Job/Read on all that is to be watched, on folders too",
            );
        }
        Ok(Some(_)) => {}
    }
    match api.load().await {
        Ok(_) => Finding::ok(check, "this user sees jobs, the queue and the nodes"),
        Err(error) => Finding::complaint(
            Verdict::Warning,
            check,
            &format!("this user sees jobs, but not the queue or the nodes: {error}"),
        ),
    }
}

fn clock(name: &str, theirs: Timestamp, ours: Timestamp) -> Finding {
    let check = format!("{name} clock");
    let (skew, how) = if theirs > ours { (theirs.since(ours), "ahead of") } else { (ours.since(theirs), "behind") };
    let found = format!("Jenkins' clock is {} {how} ours", about(skew));
    let remedy = "keep both by NTP: builds are ordered by the time at which Jenkins says they were created";
    if skew > Created::CLOCK_SKEW {
        Finding::failed(check, found, remedy)
    } else if skew > NOTEWORTHY_SKEW {
        Finding::warning(check, found, remedy)
    } else {
        Finding::ok(check, "Jenkins' clock agrees with ours")
    }
}

/// In the unit that people would take.
pub(super) fn about(span: Duration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1_800) / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_by_as_much_as_builds_may() {
        let ours = Timestamp::from_millis(1_780_000_000_000);
        let table = [
            (0, Verdict::Ok, "Jenkins' clock agrees with ours"),
            (-30, Verdict::Ok, "Jenkins' clock agrees with ours"),
            (31, Verdict::Warning, "Jenkins' clock is 31 s ahead of ours"),
            (-600, Verdict::Warning, "Jenkins' clock is 10 min behind ours"),
            (601, Verdict::Failed, "Jenkins' clock is 10 min ahead of ours"),
            (86_399, Verdict::Failed, "Jenkins' clock is 24 h ahead of ours"),
        ];
        for (seconds, verdict, found) in table {
            let theirs = Timestamp::from_millis(ours.as_millis() + seconds * 1_000);
            let finding = clock("jenkins main", theirs, ours);
            assert_eq!((finding.verdict, finding.found.as_str()), (verdict, found), "{seconds}");
        }
    }
}
