//! What is told of a controller as a whole, at the names that Datadog's plugin uses (`DatadogComputerPublisher` and the
//! publishers beside it). Pure.

use std::sync::Arc;

use super::job::ControllerName;
use super::rules::ControllerRules;
use super::signal::{Measure, Metric, MetricName, Tag, tag};
use super::survey::{Executors, Load, Nodes, Queue};

/// Executors are told of all nodes together, where the plugin tells of each: their sum is the same.
pub fn of_load(controller: &ControllerName, rules: Option<&ControllerRules>, load: &Load) -> Vec<Metric> {
    let Load { queue, executors, nodes, building } = *load;
    let Queue { size, buildable, pending, stuck, blocked } = queue;
    let Executors { count, free, in_use } = executors;
    let Nodes { count: all_nodes, online, offline } = nodes;
    let gauges = [
        (MetricName::QueueSize, size),
        (MetricName::QueueBuildable, buildable),
        (MetricName::QueuePending, pending),
        (MetricName::QueueStuck, stuck),
        (MetricName::QueueBlocked, blocked),
        (MetricName::ExecutorCount, count),
        (MetricName::ExecutorFree, free),
        (MetricName::ExecutorInUse, in_use),
        (MetricName::NodeCount, all_nodes),
        (MetricName::NodeOnline, online),
        (MetricName::NodeOffline, offline),
        (MetricName::JobCurrentlyBuilding, building),
    ];
    gauges_of(controller, rules, &gauges)
}

/// Of `jobs`, branches are one each.
pub fn of_projects(controller: &ControllerName, rules: Option<&ControllerRules>, jobs: u64) -> Vec<Metric> {
    gauges_of(controller, rules, &[(MetricName::ProjectCount, jobs)])
}

fn gauges_of(
    controller: &ControllerName,
    rules: Option<&ControllerRules>,
    values: &[(MetricName, u64)],
) -> Vec<Metric> {
    let mut tags = vec![Tag::new(tag::CONTROLLER, controller.as_str()), Tag::new(tag::CARDINALITY, "none")];
    if let Some(rules) = rules {
        tags.extend(rules.url.as_deref().map(|url| Tag::new(tag::JENKINS_URL, url)));
        tags.extend(rules.tags.iter().cloned());
    }
    let tags: Arc<[Tag]> = tags.into();
    #[expect(clippy::cast_precision_loss, reason = "no queue has that many")]
    let metric =
        |&(name, value): &(MetricName, u64)| Metric { name, measure: Measure::Gauge(value as f64), tags: tags.clone() };
    values.iter().map(metric).collect()
}
