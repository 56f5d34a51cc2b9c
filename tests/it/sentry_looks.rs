//! What webhooks of Sentry missed shows at the next look: an issue or metric alert that is thought to be open and is not
//! is found out, and nothing is taken for closed because a list is short.

use std::collections::BTreeSet;
use std::time::Duration;

use recoverd::machinery::clock::Clock;
use recoverd::sentry::rest::{RemoteApi, RestError, RestSettings};
use recoverd::sentry_catch_up::{Inquiry, Key, Report, Shown, Sighting};

use crate::sentry_server::{API_TOKEN, Fault, ORGANIZATION, SentryServer};

/// A Sentry, and who asks it.
struct Stage {
    server: SentryServer,
    inquiry: Inquiry,
}

impl Stage {
    async fn spawn() -> Self {
        let server = SentryServer::spawn().await;
        let inquiry = inquiry(&server);
        Self { server, inquiry }
    }

    /// A whole look by somebody who thinks that these are open.
    async fn look(&mut self, open: &[Key]) -> Result<(BTreeSet<Key>, Report), RestError> {
        let mut look = self.inquiry.look();
        let mut listed = BTreeSet::new();
        while let Some(sightings) = look.next().await? {
            listed.extend(sightings.iter().map(key));
        }
        Ok((listed, look.end(open.iter().copied()).await?))
    }

    /// What was asked for by itself since the last call.
    fn asked_singly(&self) -> usize {
        let is_single = |request: &&String| !request.starts_with("issues/?") && !request.starts_with("incidents/?");
        self.server.take_requests().iter().filter(is_single).count()
    }
}

fn inquiry(server: &SentryServer) -> Inquiry {
    let settings = RestSettings::new(server.url().parse().unwrap(), ORGANIZATION.to_owned(), API_TOKEN.into());
    let api = RemoteApi::new(RestSettings { patience: Duration::from_secs(5), ..settings }).unwrap();
    Inquiry::new(api, Clock::system())
}

fn key(sighting: &Sighting) -> Key {
    match &sighting.shown {
        Shown::Issue(issue) => Key::Issue(issue.id),
        Shown::Alert(alert) => Key::Alert(alert.identifier),
        Shown::Merged { issue, .. } => Key::Issue(*issue),
        Shown::Gone(key) => *key,
    }
}

/// The statuses that were found by asking, in Sentry's words.
fn found(report: &Report) -> Vec<(Key, String)> {
    let status = |sighting: &Sighting| match &sighting.shown {
        Shown::Issue(issue) => issue.status.clone(),
        Shown::Alert(alert) => alert.status.to_string(),
        Shown::Merged { into, .. } => format!("merged into {into}"),
        Shown::Gone(_) => "gone".to_owned(),
    };
    report.sightings.iter().map(|sighting| (key(sighting), status(sighting))).collect()
}

const ONE: Key = Key::Issue(1);
const TWO: Key = Key::Issue(2);
const ALERT: Key = Key::Alert(1_031);

#[tokio::test]
async fn a_dropped_resolved_shows_at_the_next_look() {
    let mut stage = Stage::spawn().await;
    {
        let mut sentry = stage.server.sentry();
        sentry.create(1, "web", "error");
        sentry.create(2, "web", "error");
        sentry.alert(31, 7, "web", 20);
    }
    let open = [ONE, TWO, ALERT];
    let (listed, report) = stage.look(&open).await.unwrap();
    assert_eq!((listed, found(&report)), (open.into(), vec![]), "nothing is asked for that was listed");
    assert_eq!(stage.asked_singly(), 0);

    stage.server.sentry().set(1, "resolved");
    stage.server.sentry().set(2, "ignored");
    stage.server.sentry().incidents.get_mut(&31).unwrap().status = 2;
    let (listed, report) = stage.look(&open).await.unwrap();
    assert_eq!(listed, BTreeSet::new());
    let expected = [(ONE, "resolved"), (TWO, "ignored"), (ALERT, "2")];
    assert_eq!(found(&report), expected.map(|(key, status)| (key, status.to_owned())));
    assert_eq!((report.absent, report.troubles), (3, vec![]));
}

#[tokio::test]
async fn it_shows_to_one_who_was_started_anew_in_between() {
    let mut stage = Stage::spawn().await;
    stage.server.sentry().create(1, "web", "error");
    stage.look(&[ONE]).await.unwrap();
    stage.server.sentry().set(1, "resolved");
    stage.inquiry = inquiry(&stage.server);
    let (_, report) = stage.look(&[ONE]).await.unwrap();
    assert_eq!(found(&report), [(ONE, "resolved".to_owned())]);
}

#[tokio::test]
async fn what_is_open_and_only_not_listed_stays_open() {
    let mut stage = Stage::spawn().await;
    stage.server.sentry().create(1, "web", "error");
    stage.server.sentry().issue(1).is_old = true;
    for _ in 0..3 {
        let (listed, report) = stage.look(&[ONE]).await.unwrap();
        assert_eq!((listed.len(), found(&report)), (0, vec![(ONE, "unresolved".to_owned())]));
    }
}

#[tokio::test]
async fn what_changes_within_a_look_is_asked_for_once_more() {
    let mut stage = Stage::spawn().await;
    {
        let mut sentry = stage.server.sentry();
        sentry.page = 1;
        (1..=3).for_each(|id| sentry.create(id, "web", "error"));
    }
    let (clock, mut look) = (Clock::system(), stage.inquiry.look());
    let first = look.next().await.unwrap().unwrap();
    assert_eq!(first.iter().map(key).collect::<Vec<_>>(), [Key::Issue(3)]);
    // The list moves up by one: issue 2 is on no page.
    stage.server.sentry().set(3, "resolved");
    let before = clock.now();
    let mut listed = Vec::new();
    while let Some(sightings) = look.next().await.unwrap() {
        listed.extend(sightings.iter().map(key));
    }
    assert_eq!(listed, [ONE]);
    let report = look.end([ONE, TWO]).await.unwrap();
    assert_eq!(found(&report), [(TWO, "unresolved".to_owned())]);
    let asked = report.sightings[0].asked;
    // Sentry tells whole seconds, and the question was under way for a while.
    assert!(asked.since(clock.now()).is_zero() && before.since(asked) < crate::world::PATIENCE, "{asked:?}");
}

#[tokio::test]
async fn an_answer_is_as_old_as_its_question() {
    let mut stage = Stage::spawn().await;
    stage.server.sentry().create(1, "web", "error");
    stage.server.hold("issues/");
    let mut look = stage.inquiry.look();
    let meanwhile = async {
        stage.server.kept_back().await;
        let webhook = Clock::system().now();
        // It is resolved, and the webhook comes, while the list that says otherwise is on its way. `Date` has whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        stage.server.release();
        webhook
    };
    let (page, webhook) = tokio::join!(look.next(), meanwhile);
    let sighting = page.unwrap().unwrap().remove(0);
    assert!(sighting.asked <= webhook, "{sighting:?} {webhook:?}");
}

#[tokio::test]
async fn one_that_sentry_does_not_know_is_gone_after_two_looks() {
    let mut stage = Stage::spawn().await;
    {
        let mut sentry = stage.server.sentry();
        sentry.create(2, "web", "error");
        sentry.merged.insert(1, 2);
    }
    let open = [ONE, TWO, Key::Issue(9), Key::Alert(1_099)];
    let (_, report) = stage.look(&open).await.unwrap();
    assert_eq!(found(&report), [(ONE, "merged into 2".to_owned())]);
    let (_, report) = stage.look(&open[1..]).await.unwrap();
    let gone = [Key::Issue(9), Key::Alert(1_099)].map(|key| (key, "gone".to_owned()));
    assert_eq!(found(&report), gone);
}

#[tokio::test]
async fn a_lost_permission_closes_nothing() {
    let mut stage = Stage::spawn().await;
    (1..=20).for_each(|id| stage.server.sentry().create(id, "web", "error"));
    let open: Vec<Key> = (1..=20).map(Key::Issue).collect();
    stage.look(&open).await.unwrap();
    // Of this project.
    (1..=20).for_each(|id| stage.server.sentry().issue(id).is_hidden = true);
    for _ in 0..3 {
        let (_, report) = stage.look(&open).await.unwrap();
        assert_eq!(found(&report), []);
        assert!(report.troubles[0].starts_with("20 that are open may no longer be seen"), "{:?}", report.troubles);
    }
    // Of all, as if they had never been.
    stage.server.sentry().issues.clear();
    for _ in 0..3 {
        let (_, report) = stage.look(&open).await.unwrap();
        assert_eq!(found(&report), []);
        assert!(report.troubles[0].starts_with("it does not know 20 of the 20"), "{:?}", report.troubles);
    }
}

#[tokio::test]
async fn metric_alerts_that_cannot_be_read_cost_no_issue_and_close_nothing() {
    let mut stage = Stage::spawn().await;
    stage.server.sentry().create(1, "web", "error");
    let table = [(404, None), (403, Some("its metric alerts cannot be read, "))];
    for (status, trouble) in table {
        stage.server.fault_at("incidents/", Fault::Status(status));
        for _ in 0..3 {
            let (listed, report) = stage.look(&[ONE, ALERT]).await.unwrap();
            assert_eq!((listed, found(&report)), ([ONE].into(), vec![]), "{status}");
            let told = report.troubles.first();
            assert_eq!(told.is_some(), trouble.is_some(), "{told:?}");
            assert!(told.is_none_or(|told| told.starts_with(trouble.unwrap())), "{told:?}");
        }
    }
    assert_eq!(stage.asked_singly(), 0);
}

#[tokio::test]
async fn one_look_asks_so_many_questions_and_the_next_goes_on() {
    let mut stage = Stage::spawn().await;
    (1..=150).for_each(|id| {
        stage.server.sentry().create(id, "web", "error");
        stage.server.sentry().set(id, "resolved");
    });
    let open: BTreeSet<Key> = (1..=150).map(Key::Issue).collect();
    let all: Vec<Key> = open.iter().copied().collect();
    let (_, first) = stage.look(&all).await.unwrap();
    assert_eq!((first.absent, first.sightings.len()), (150, 100));
    let healed: BTreeSet<Key> = first.sightings.iter().map(key).collect();
    let rest: Vec<Key> = open.difference(&healed).copied().collect();
    let (_, second) = stage.look(&rest).await.unwrap();
    assert_eq!(second.sightings.iter().map(key).collect::<Vec<_>>(), rest);
}

#[tokio::test]
async fn a_sentry_that_fails_says_nothing_about_what_is_open() {
    let mut stage = Stage::spawn().await;
    stage.server.sentry().create(1, "web", "error");
    stage.server.sentry().create(2, "web", "error");
    stage.server.sentry().set(1, "resolved");
    for fault in
        [Fault::Status(500), Fault::Limited(Some(600)), Fault::LoginPage, Fault::Cut, Fault::Body("{}".to_owned())]
    {
        stage.server.fault_at("issues/1/", fault.clone());
        let (_, report) = stage.look(&[ONE, TWO]).await.unwrap();
        assert_eq!((found(&report), report.unanswered.len()), (vec![], 1), "{fault:?}");
        stage.server.heal();
        stage.server.fault(fault.clone());
        assert!(stage.look(&[ONE, TWO]).await.is_err(), "{fault:?}");
        stage.server.heal();
    }
    let (_, report) = stage.look(&[ONE, TWO]).await.unwrap();
    assert_eq!(found(&report), [(ONE, "resolved".to_owned())], "and then it is well again");
}
