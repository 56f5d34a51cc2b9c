//! The queue and the computers, as `queue/api/json` and `computer/api/json` tell them. Pure.

use std::collections::HashSet;

use serde::Deserialize;

use super::Fault;
use super::answer::syntax;
use crate::domain::survey::{Executors, Load, Nodes, Queue};

/// `hudson.model.Queue.Item`. A queue of more is as good as endless.
pub(super) const QUEUE: &str = "items[blocked,buildable,pending,stuck]{0,20000}";

/// `hudson.model.ComputerSet`. A Pipeline holds a one-off executor of the built-in node for as long as it runs, and an
/// ordinary one for each `node` step.
pub(super) const COMPUTERS: &str = "computer[offline,executors[idle,currentExecutable[url]],\
                                    oneOffExecutors[currentExecutable[url]]]{0,5000}";

#[derive(Deserialize)]
struct Items {
    items: Option<Vec<Waiting>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "Jenkins writes it so")]
struct Waiting {
    blocked: bool,
    buildable: bool,
    pending: bool,
    stuck: bool,
}

#[derive(Deserialize)]
struct Computers {
    computer: Option<Vec<Computer>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Computer {
    offline: bool,
    executors: Vec<Executor>,
    #[serde(rename = "oneOffExecutors")]
    one_off: Vec<Executor>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Executor {
    idle: bool,
    #[serde(rename = "currentExecutable")]
    current: Option<Executable>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Executable {
    url: Option<String>,
}

/// # Errors
/// When it is not a queue.
pub(super) fn queue(body: &[u8]) -> Result<Queue, Fault> {
    let queue: Items = serde_json::from_slice(body).map_err(|error| syntax(&error))?;
    let items = queue.items.ok_or(Fault::Foreign { what: "the queue's `items`" })?;
    let count = |is: fn(&Waiting) -> bool| items.iter().filter(|item| is(item)).count() as u64;
    Ok(Queue {
        size: items.len() as u64,
        // Jenkins calls a pending item buildable too, and counts it apart (`Queue.countBuildableItems`).
        buildable: count(|item| item.buildable && !item.pending),
        pending: count(|item| item.pending),
        stuck: count(|item| item.stuck),
        blocked: count(|item| item.blocked),
    })
}

/// All but the queue.
///
/// # Errors
/// When it is not a list of computers.
pub(super) fn computers(body: &[u8]) -> Result<Load, Fault> {
    let computers: Computers = serde_json::from_slice(body).map_err(|error| syntax(&error))?;
    let computers = computers.computer.ok_or(Fault::Foreign { what: "`computer`" })?;
    let executors = || computers.iter().flat_map(|computer| &computer.executors);
    let one_off = computers.iter().flat_map(|computer| &computer.one_off);
    // One build may hold several executors.
    let building: HashSet<&str> =
        executors().chain(one_off).filter_map(|executor| executor.current.as_ref()?.url.as_deref()).collect();
    let (count, free) = (executors().count(), executors().filter(|executor| executor.idle).count());
    let offline = computers.iter().filter(|computer| computer.offline).count();
    Ok(Load {
        queue: Queue::default(),
        executors: Executors { count: count as u64, free: free as u64, in_use: (count - free) as u64 },
        nodes: Nodes {
            count: computers.len() as u64,
            online: (computers.len() - offline) as u64,
            offline: offline as u64,
        },
        building: building.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_item_is_not_counted_as_buildable() {
        let body = br#"{"_class":"hudson.model.Queue","items":[
            {"_class":"hudson.model.Queue$BuildableItem","blocked":false,"buildable":true,"stuck":true,"pending":false},
            {"_class":"hudson.model.Queue$BuildableItem","blocked":false,"buildable":true,"stuck":false,"pending":true},
            {"_class":"hudson.model.Queue$BlockedItem","blocked":true,"buildable":false,"stuck":false},
            {"_class":"hudson.model.Queue$WaitingItem","blocked":false,"buildable":false,"stuck":false}]}"#;
        assert_eq!(queue(body), Ok(Queue { size: 4, buildable: 1, pending: 1, stuck: 1, blocked: 1 }));
    }

    #[test]
    fn a_build_on_several_executors_is_one_build() {
        let body = br#"{"_class":"hudson.model.ComputerSet","computer":[
            {"_class":"hudson.model.Hudson$MasterComputer","offline":false,"executors":[],
             "oneOffExecutors":[{"currentExecutable":{"_class":"x.WorkflowRun","url":"https://ci/job/a/1/"}}]},
            {"_class":"hudson.slaves.SlaveComputer","offline":false,"executors":[
             {"idle":false,"currentExecutable":{"_class":"x.PlaceholderExecutable","url":"https://ci/job/a/1/"}},
             {"idle":false,"currentExecutable":{"_class":"hudson.model.FreeStyleBuild","url":"https://ci/job/b/7/"}},
             {"idle":true,"currentExecutable":null}],"oneOffExecutors":[]},
            {"_class":"hudson.slaves.SlaveComputer","offline":true,"executors":[{"idle":true}]}]}"#;
        let load = computers(body).unwrap();
        assert_eq!(load.building, 2);
        assert_eq!(load.executors, Executors { count: 4, free: 2, in_use: 2 });
        assert_eq!(load.nodes, Nodes { count: 3, online: 2, offline: 1 });
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert_eq!(queue(b"{}"), Err(Fault::Foreign { what: "the queue's `items`" }));
        assert_eq!(computers(b"{}"), Err(Fault::Foreign { what: "`computer`" }));
        assert!(matches!(queue(b"{\"items\":[{"), Err(Fault::Syntax { .. })));
    }
}
