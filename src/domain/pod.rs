//! Pods: the one that recoverd itself runs in, and those that others' events come from. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// What the Downward API tells; everything is absent outside Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodIdentity {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub node: Option<String>,
    pub ip: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl PodIdentity {
    /// The tags that say where something happened, only those that are known.
    pub fn tags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("pod_name", &self.name), ("pod_namespace", &self.namespace), ("node_name", &self.node)]
            .into_iter()
            .filter_map(|(key, value)| value.as_deref().map(|value| (key, value)))
    }
}

/// Which of the things that are known of a pod become tags of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChoice {
    /// Whether `node_name` does.
    pub node: bool,
    /// Names of labels, each with that of its tag.
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
}

/// A pod that events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    /// All that its events are to say, the name and the namespace included.
    pub tags: Vec<(String, String)>,
}

impl Pod {
    /// `None` when the name or the namespace is not known.
    pub fn of(identity: &PodIdentity, choice: &TagChoice) -> Option<Self> {
        let (name, namespace) = (identity.name.as_deref()?, identity.namespace.as_deref()?);
        let mut tags =
            vec![("pod_name".to_owned(), name.to_owned()), ("pod_namespace".to_owned(), namespace.to_owned())];
        let node = identity.node.as_deref().filter(|_| choice.node);
        tags.extend(node.map(|node| ("node_name".to_owned(), node.to_owned())));
        for (choices, known) in [(&choice.labels, &identity.labels), (&choice.annotations, &identity.annotations)] {
            tags.extend(choices.iter().filter_map(|(name, tag)| Some((tag.clone(), known.get(name)?.clone()))));
        }
        Some(Self { name: name.into(), namespace: namespace.into(), tags })
    }
}

/// Whose events they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribution {
    Pod(Arc<Pod>),
    /// It is not known, and not guessed.
    Unknown(Unattributable),
}

/// Why it is not known which pod events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unattributable {
    /// `POD_NAME` or `POD_NAMESPACE` is not set.
    NoIdentity,
    /// The address is that of the node, which all pods with `hostNetwork` share.
    HostNetwork,
    /// No pod of this node has, or had a moment ago, this address.
    UnknownAddress,
    /// The pod that had the address is gone, and it may be that of one whose address is not known yet.
    Contested,
    /// The API server has not told yet which pods there are.
    NotSynced,
}

impl Unattributable {
    pub const ALL: [Self; 5] =
        [Self::NoIdentity, Self::HostNetwork, Self::UnknownAddress, Self::Contested, Self::NotSynced];

    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::HostNetwork => "host_network",
            Self::UnknownAddress => "unknown_address",
            Self::Contested => "contested",
            Self::NotSynced => "not_synced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_gives_no_tag() {
        assert_eq!(PodIdentity::default().tags().count(), 0);
        let pod = PodIdentity { name: Some("a".into()), node: Some("n".into()), ..PodIdentity::default() };
        assert_eq!(pod.tags().collect::<Vec<_>>(), [("pod_name", "a"), ("node_name", "n")]);
    }

    #[test]
    fn a_pods_tags_are_its_names_and_what_was_chosen() {
        let labels = [("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())].into();
        let identity = PodIdentity {
            name: Some("web-1".into()),
            namespace: Some("shop".into()),
            node: Some("n1".into()),
            labels,
            ..PodIdentity::default()
        };
        let choice = TagChoice {
            node: false,
            labels: vec![("app".into(), "service".into()), ("absent".into(), "x".into())],
            annotations: vec![],
        };
        let pod = Pod::of(&identity, &choice).unwrap();
        let tags: Vec<_> = pod.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(tags, ["pod_name=web-1", "pod_namespace=shop", "service=web"]);
        assert_eq!(Pod::of(&PodIdentity { namespace: None, ..identity }, &choice), None);
    }
}
