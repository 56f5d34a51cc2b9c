//! The pod that recoverd itself runs in. Pure.

use std::collections::BTreeMap;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_gives_no_tag() {
        assert_eq!(PodIdentity::default().tags().count(), 0);
        let pod = PodIdentity { name: Some("a".into()), node: Some("n".into()), ..PodIdentity::default() };
        assert_eq!(pod.tags().collect::<Vec<_>>(), [("pod_name", "a"), ("node_name", "n")]);
    }
}
