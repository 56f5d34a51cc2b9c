//! A pod, of which nothing is read but what is needed: a whole one has a hundred times as much. Private to the watch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::domain::build::Timestamp;
use crate::domain::pod::{Pod, PodIdentity, TagChoice};
use crate::domain::pod_directory::Seen;

/// An annotation may have 256 KiB. Sentry takes 200 characters.
const LONGEST: usize = 256;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SlimPod {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(rename = "hostNetwork")]
    host_network: Option<bool>,
}

/// The names do not follow serde's camelCase, which would write `podIp`.
#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<Address>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    ip: Option<String>,
}

/// Who manages which field, and much else, is passed over.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SlimMeta {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let slim = SlimMeta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        labels: slim.labels,
        annotations: slim.annotations,
        ..ObjectMeta::default()
    })
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl SlimPod {
    pub(super) fn uid(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    /// `None` for one without a name, which the API server does not make.
    pub(super) fn seen(self, node: &str, choice: &TagChoice) -> Option<Seen<Pod>> {
        let Self { metadata, spec, status } = self;
        let status = status.unwrap_or_default();
        let identity = PodIdentity {
            name: metadata.name,
            namespace: metadata.namespace,
            node: Some(node.to_owned()),
            labels: chosen(metadata.labels, &choice.labels),
            annotations: chosen(metadata.annotations, &choice.annotations),
            ..PodIdentity::default()
        };
        Some(Seen {
            uid: metadata.uid?.into(),
            created: Timestamp::from_millis(metadata.creation_timestamp.map_or(0, |time| time.0.as_millisecond())),
            addresses: addresses(status.pod_ip, status.pod_ips),
            node_addresses: addresses(status.host_ip, status.host_ips),
            is_on_host_network: spec.unwrap_or_default().host_network.unwrap_or_default(),
            is_finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            pod: Pod::of(&identity, choice)?,
        })
    }
}

fn chosen(known: Option<BTreeMap<String, String>>, choices: &[(String, String)]) -> BTreeMap<String, String> {
    let mut known = known.unwrap_or_default();
    let take = |(name, _): &(String, String)| known.remove_entry(name);
    let shorten = |(name, value): (String, String)| (name, value.chars().take(LONGEST).collect());
    choices.iter().filter_map(take).map(shorten).collect()
}

fn addresses(first: Option<String>, all: Option<Vec<Address>>) -> Vec<IpAddr> {
    let all = all.into_iter().flatten().filter_map(|address| address.ip);
    first.into_iter().chain(all).filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pod: serde_json::Value) -> Seen<Pod> {
        let choice = TagChoice {
            node: true,
            labels: vec![("app".into(), "service".into())],
            annotations: vec![("note".into(), "note".into())],
        };
        serde_json::from_value::<SlimPod>(pod).unwrap().seen("node-a", &choice).unwrap()
    }

    #[test]
    fn of_a_pod_as_the_api_server_writes_it_all_is_read_that_is_needed() {
        let seen = read(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T04:04:05Z",
                "labels": {"app": "web", "pod-template-hash": "x"}, "annotations": {"note": "é".repeat(5000), "other": "x"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {"nodeName": "node-a", "containers": [{"name": "web"}]},
            "status": {
                "phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}],
                "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            },
        }));
        assert_eq!((&*seen.uid, seen.created.as_seconds()), ("u1", 1_767_323_045));
        let texts = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&seen.addresses), ["10.1.0.5", "10.1.0.5", "fd00::5"]);
        assert_eq!(texts(&seen.node_addresses), ["10.0.0.1", "10.0.0.1", "fd00::1"]);
        assert!(!seen.is_on_host_network && !seen.is_finished);
        let mut tags: BTreeMap<_, _> = seen.pod.tags.into_iter().collect();
        assert_eq!(tags.remove("note").unwrap(), "é".repeat(LONGEST));
        let tags: Vec<_> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(tags, ["node_name=node-a", "pod_name=web-1", "pod_namespace=shop", "service=web"]);
    }

    #[test]
    fn a_pod_that_was_only_just_made_has_no_address_yet() {
        let meta = json!({"name": "a", "namespace": "b", "uid": "u", "labels": null, "annotations": null});
        for pod in [
            json!({"metadata": meta}),
            json!({"metadata": meta, "spec": {"hostNetwork": null}, "status": {"podIPs": null, "podIP": ""}}),
        ] {
            let seen = read(pod);
            assert!(seen.addresses.is_empty() && !seen.is_on_host_network && !seen.is_finished);
        }
    }

    #[test]
    fn a_phase_tells_that_it_has_run_to_its_end() {
        for (phase, is_finished) in
            [("Pending", false), ("Running", false), ("Unknown", false), ("Succeeded", true), ("Failed", true)]
        {
            let meta = json!({"name": "a", "namespace": "b", "uid": "u"});
            let seen = read(json!({"metadata": meta, "spec": {"hostNetwork": true}, "status": {"phase": phase}}));
            assert_eq!((seen.is_finished, seen.is_on_host_network), (is_finished, true), "{phase}");
        }
    }
}
