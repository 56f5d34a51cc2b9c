//! What came in, by project and pod, for Datadog: `sentry.relay.events`.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lock;
use crate::datadog::AgentSink;
use crate::domain::pod::Attribution;
use crate::domain::signal::{Measure, Metric, MetricName, Signal, Tag, tag};
use crate::sentry::envelope::{Category, Level, Report};

/// So many series at once. What comes beyond is counted without its project and pod.
const MOST_SERIES: usize = 2_000;
/// A series of which nothing came in so many rounds makes room for another.
const IDLE_ROUNDS: u32 = 360;
const ROUND: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    project: Option<u64>,
    category: Category,
    level: Option<Level>,
    pod: Option<PodName>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PodName {
    name: Arc<str>,
    namespace: Arc<str>,
}

#[derive(Debug, Default)]
struct Count {
    untold: u32,
    idle: u32,
}

/// Counts, and forgets what is told.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Series, Count>>);

impl Tally {
    pub(super) fn count(&self, project: Option<u64>, report: &Report, whose: &Attribution) {
        let events =
            |category| matches!(category, Category::Event | Category::Transaction | Category::Feedback | Category::Log);
        let items = report.items.iter().filter(|(item, _)| events(item.category));
        let mut tally = None;
        for (item, &count) in items {
            let pod = match whose {
                Attribution::Pod(pod) => Some(PodName { name: pod.name.clone(), namespace: pod.namespace.clone() }),
                Attribution::Unknown(_) => None,
            };
            let series = Series { project, category: item.category, level: item.level, pod };
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            add(tally.get_or_insert_with(|| lock(&self.0)), series, count);
        }
    }

    /// All that was counted since the last time.
    fn take(&self) -> Vec<(Series, u32)> {
        let mut untold = Vec::new();
        lock(&self.0).retain(|series, count| {
            match mem::take(&mut count.untold) {
                0 => count.idle += 1,
                some => {
                    count.idle = 0;
                    untold.push((series.clone(), some));
                }
            }
            count.idle < IDLE_ROUNDS
        });
        untold
    }
}

fn add(tally: &mut BTreeMap<Series, Count>, mut series: Series, count: u32) {
    if tally.len() >= MOST_SERIES && !tally.contains_key(&series) {
        // There are no more of these than categories times levels.
        (series.project, series.pod) = (None, None);
    }
    let known = tally.entry(series).or_default();
    known.untold = known.untold.saturating_add(count);
}

impl Series {
    fn signal(&self, count: u32, more: &[Tag]) -> Signal {
        let project: Arc<str> = self.project.map_or("other".into(), |number| number.to_string().into());
        let mut tags = vec![Tag::new(tag::PROJECT, project), Tag::new(tag::CATEGORY, self.category.as_str())];
        tags.extend(self.level.map(|level| Tag::new(tag::LEVEL, level.as_str())));
        if let Some(pod) = &self.pod {
            tags.push(Tag::new(tag::POD_NAME, pod.name.clone()));
            tags.push(Tag::new(tag::KUBE_NAMESPACE, pod.namespace.clone()));
        }
        tags.push(Tag::no_cardinality());
        tags.extend(more.iter().filter(|tag| !tag::OF_SENTRY.contains(&&*tag.key)).cloned());
        Signal::Metric(Metric { name: MetricName::RelayEvents, measure: Measure::Count(count), tags: tags.into() })
    }
}

/// Tells Datadog what was counted.
#[derive(Debug)]
pub struct Teller {
    tally: Arc<Tally>,
    ended: CancellationToken,
}

impl Teller {
    pub(super) fn new(tally: Arc<Tally>, ended: CancellationToken) -> Self {
        Self { tally, ended }
    }

    /// Ends when the relay has, and all is told. `tags` are the operator's.
    pub async fn run(self, sink: AgentSink, tags: Vec<Tag>) {
        let mut rounds = tokio::time::interval(ROUND);
        while self.ended.run_until_cancelled(rounds.tick()).await.is_some() {
            self.tell(&sink, &tags).await;
        }
        self.tell(&sink, &tags).await;
    }

    /// What an absent Agent does not take is told with the next round.
    async fn tell(&self, sink: &AgentSink, tags: &[Tag]) {
        let counted = self.tally.take();
        let signals = counted.iter().map(|(series, count)| series.signal(*count, tags)).collect();
        let taken = sink.deliver(signals).await.taken;
        let mut tally = lock(&self.tally.0);
        for (series, count) in counted.into_iter().skip(taken) {
            add(&mut tally, series, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::datadog::{AgentMetrics, AgentSettings};
    use crate::domain::pod::{Pod, Unattributable};
    use crate::machinery::health::Health;
    use crate::sentry::envelope::{Item, Outcome};

    fn report(category: Category, level: Option<Level>, count: u64) -> Report {
        Report { items: [(Item { category, level, outcome: Outcome::Enriched }, count)].into(), ..Report::default() }
    }

    fn told(tally: &Tally) -> Vec<String> {
        let tags = |metric: &Metric| metric.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let show = |(series, count): (Series, u32)| match series
            .signal(count, &[Tag::new("team", "web"), Tag::new("level", "11")])
        {
            Signal::Metric(metric) => format!("{:?} {}", metric.measure, tags(&metric)),
            other => panic!("{other:?}"),
        };
        let mut told: Vec<_> = tally.take().into_iter().map(show).collect();
        told.sort();
        told
    }

    #[test]
    fn events_are_counted_by_what_sentry_and_kubernetes_call_them() {
        let tally = Tally::default();
        let pod = Pod { name: "web-1".into(), namespace: "shop".into(), tags: Vec::new() };
        let (pod, nobody) = (Attribution::Pod(Arc::new(pod)), Attribution::Unknown(Unattributable::NotSynced));
        tally.count(Some(7), &report(Category::Event, Some(Level::Fatal), 1), &pod);
        tally.count(Some(7), &report(Category::Event, Some(Level::Fatal), 2), &pod);
        tally.count(None, &report(Category::Log, None, 1), &nobody);
        tally.count(Some(7), &report(Category::Session, None, 1), &pod);
        let expected = [
            "Count(1) project:other category:log dd.internal.card:none team:web",
            "Count(3) project:7 category:event level:fatal pod_name:web-1 kube_namespace:shop dd.internal.card:none team:web",
        ];
        assert_eq!(told(&tally), expected);
        assert_eq!(told(&tally), [""; 0], "once");
    }

    #[test]
    fn there_are_no_more_series_than_are_bounded_however_many_projects_are_made_up() {
        let (tally, nobody) = (Tally::default(), Attribution::Unknown(Unattributable::NotSynced));
        let count = |project: u64| tally.count(Some(project), &report(Category::Event, Some(Level::Error), 1), &nobody);
        (1..=10_000).for_each(count);
        let counted = tally.take();
        assert_eq!(counted.iter().map(|(_, count)| *count).sum::<u32>(), 10_000, "none is missing");
        assert_eq!(counted.len(), MOST_SERIES + 1);
        // What was there first keeps its place, until it is quiet for an hour.
        count(1);
        assert!(tally.take()[0].0.project.is_some());
        for _ in 0..IDLE_ROUNDS {
            tally.take();
        }
        count(10_000);
        assert_eq!(tally.take()[0].0.project, Some(10_000));
    }

    #[tokio::test]
    async fn what_an_absent_agent_does_not_take_is_told_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", directory.path().join("dsd.socket").display());
        let settings = AgentSettings::new(address.parse().unwrap());
        let health = Health::default().optional("datadog");
        let sink = AgentSink::new(settings, health, AgentMetrics::register(&mut Registry::default()));
        let tally = Arc::<Tally>::default();
        let teller = Teller::new(tally.clone(), CancellationToken::new());
        let nobody = Attribution::Unknown(Unattributable::NotSynced);
        for times in 1..=3 {
            tally.count(Some(7), &report(Category::Event, Some(Level::Error), 2), &nobody);
            teller.tell(&sink, &[]).await;
            let counted: Vec<u32> = lock(&tally.0).values().map(|count| count.untold).collect();
            assert_eq!(counted, [2 * times]);
        }
    }
}
