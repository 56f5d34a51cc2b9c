//! On a node each event is its own pod's, or nobody's.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use recoverd::app::Bound;
use recoverd::domain::pod::PodIdentity;
use recoverd::machinery::clock::Clock;
use serde_json::{Value, json};

use crate::ingest::Ingest;
use crate::kubernetes_server::{KubernetesServer, pod};
use crate::world::{PATIENCE, World, load, own_pod, settings_text};

const ENVELOPE: &str = "/api/7/envelope/?sentry_key=abc&sentry_version=7";

/// Pods are told apart by addresses of this host's own.
fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// A node: its API server, recoverd on it, and the Sentry behind.
struct Node {
    api: KubernetesServer,
    sentry: Ingest,
    world: World,
}

impl Node {
    /// With these pods, all of which recoverd knows.
    async fn with(pods: impl IntoIterator<Item = Value>, more: &str) -> Self {
        let api = KubernetesServer::spawn().await;
        pods.into_iter().for_each(|pod| api.apply(pod));
        let node = Self::before(api, more).await;
        node.shows("recoverd_kubernetes_lists_total 1").await;
        node
    }

    async fn before(api: KubernetesServer, more: &str) -> Self {
        let sentry = Ingest::spawn().await;
        let kubernetes = format!("[kubernetes]\napi_server = \"http://{}\"", api.address);
        let world = World::with(&sentry.settings(&format!("mode = \"daemonset\"\n{more}\n{kubernetes}"))).await;
        Self { api, sentry, world }
    }

    /// The tags of an event that came from there.
    async fn tags(&self, from: IpAddr) -> Value {
        let client = reqwest::Client::builder().local_address(from).build().unwrap();
        // Whatever a sender claims.
        let request = client.post(self.world.relay_url(ENVELOPE)).header("x-forwarded-for", "127.0.0.11");
        let request = request.header("forwarded", "for=127.0.0.11").header("x-real-ip", "127.0.0.11");
        let body = "{}\n{\"type\":\"event\",\"length\":15}\n{\"message\":\"x\"}\n";
        assert_eq!(request.body(body).send().await.unwrap().status(), 200);
        let arrived = self.sentry.next().await;
        let event: Value = serde_json::from_str(arrived.text().lines().nth(2).unwrap()).unwrap();
        assert_eq!(event["message"], "x");
        event["tags"].clone()
    }

    /// The name of the pod that an event from there is said to be of; empty for nobody.
    async fn whose(&self, last: u8) -> String {
        self.tags(ip(last)).await["pod_name"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a line of this kind is among the metrics.
    async fn shows(&self, line: &str) {
        self.until("/metrics", |page| page.lines().any(|shown| shown == line), line).await;
    }

    async fn until(&self, path: &str, is_there: impl Fn(&str) -> bool, what: &str) {
        let looking = async {
            while !is_there(&self.world.get(path).await.1) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        assert!(looked.is_ok(), "{path} does not show {what}:\n{}", self.world.get(path).await.1);
    }

    async fn told(&self, kind: &str, times: usize) {
        self.shows(&format!("recoverd_kubernetes_events_total{{kind=\"{kind}\"}} {times}")).await;
    }

    async fn finish(self) {
        self.world.finish().await;
    }
}

#[tokio::test]
async fn each_pods_events_carry_its_own_name_and_nobody_takes_anothers() {
    let pods = (11..16).map(|last| pod(&format!("web-{last}"), 1, &[ip(last)]));
    let node = Node::with(pods, "").await;
    for last in [15, 11, 13, 12, 14, 11] {
        let name = format!("web-{last}");
        assert_eq!(
            node.tags(ip(last)).await,
            json!({"pod_name": name, "pod_namespace": "shop", "node_name": "node-a"}),
            "all pages of the list, and whatever X-Forwarded-For says"
        );
    }
    assert_eq!(node.api.lists(), 1);
    node.shows("recoverd_kubernetes_pods 5").await;
    node.finish().await;
}

#[tokio::test]
async fn both_addresses_of_a_pod_are_its_own() {
    let node = Node::with([pod("web", 1, &[ip(11), ip(12), "fd00::11".parse().unwrap()])], "").await;
    assert_eq!((node.whose(11).await, node.whose(12).await), ("web".to_owned(), "web".to_owned()));
    node.finish().await;
}

#[tokio::test]
async fn an_address_that_is_given_again_is_the_next_pods_whatever_is_heard_late_of_the_last_one() {
    let node = Node::with([pod("old", 1, &[ip(11)])], "").await;
    assert_eq!(node.whose(11).await, "old");
    // What a dying pod sends comes after it is gone.
    node.api.delete("old");
    node.told("deleted", 1).await;
    assert_eq!(node.whose(11).await, "old");
    node.api.apply(pod("second", 2, &[ip(11)]));
    node.told("applied", 1).await;
    assert_eq!(node.whose(11).await, "second");
    // The third is there before the second is gone, of which something more is told meanwhile.
    node.api.apply(pod("third", 3, &[ip(11)]));
    node.told("applied", 2).await;
    assert_eq!(node.whose(11).await, "third");
    node.api.apply(pod("second", 2, &[ip(11)]));
    node.told("applied", 3).await;
    assert_eq!(node.whose(11).await, "third");
    node.api.delete("second");
    node.told("deleted", 2).await;
    assert_eq!(node.whose(11).await, "third");
    node.finish().await;
}

#[tokio::test]
async fn a_pod_whose_address_is_not_told_yet_does_not_send_in_the_name_of_the_one_that_had_it() {
    let node = Node::with([pod("old", 1, &[ip(11)]), pod("beside", 1, &[ip(12)])], "").await;
    node.api.delete("old");
    node.api.apply(pod("new", 2, &[]));
    node.told("applied", 1).await;
    assert_eq!(node.whose(12).await, "beside");
    let telling = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        node.api.apply(pod("new", 2, &[ip(11)]));
    };
    let (name, ()) = tokio::join!(node.whose(11), telling);
    assert_eq!(name, "new");
    node.api.delete("new");
    node.api.apply(pod("waits", 3, &[]));
    node.told("applied", 3).await;
    assert_eq!(node.tags(ip(11)).await, Value::Null, "it is not guessed");
    node.shows("recoverd_relay_unattributed_total{reason=\"contested\"} 1").await;
    node.finish().await;
}

#[tokio::test]
async fn a_job_that_has_run_to_its_end_leaves_its_address_to_the_next() {
    let node = Node::with([pod("job", 5, &[ip(11)])], "").await;
    let mut finished = pod("job", 5, &[ip(11)]);
    finished["status"]["phase"] = json!("Succeeded");
    node.api.apply(finished);
    node.told("applied", 1).await;
    assert_eq!(node.whose(11).await, "job", "it flushed what it had");
    node.api.apply(pod("waited", 1, &[ip(11)]));
    node.told("applied", 2).await;
    assert_eq!(node.whose(11).await, "waited");
    node.shows("recoverd_kubernetes_pods 1").await;
    node.finish().await;
}

#[tokio::test]
async fn after_a_410_all_pods_are_listed_anew_and_what_was_missed_is_known() {
    let node = Node::with([pod("a", 1, &[ip(11)]), pod("b", 1, &[ip(12)])], "").await;
    node.api.compact(|api| {
        api.delete("a");
        api.apply(pod("c", 2, &[ip(11)]));
        api.apply(pod("d", 2, &[ip(13)]));
    });
    node.shows("recoverd_kubernetes_lists_total 2").await;
    assert_eq!([node.whose(11).await, node.whose(12).await, node.whose(13).await], ["c", "b", "d"]);
    node.shows("recoverd_kubernetes_failures_total{reason=\"gone\"} 1").await;
    node.shows("recoverd_kubernetes_pods 3").await;
    node.finish().await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_where_it_was() {
    let node = Node::with([pod("a", 1, &[ip(11)])], "").await;
    node.api.bookmark();
    node.api.apply(pod("b", 2, &[ip(12)]));
    node.told("applied", 1).await;
    node.api.hang_up();
    node.api.apply(pod("c", 3, &[ip(13)]));
    node.api.delete("b");
    node.told("deleted", 1).await;
    node.told("applied", 2).await;
    assert_eq!([node.whose(11).await, node.whose(12).await, node.whose(13).await], ["a", "b", "c"]);
    assert_eq!(node.api.lists(), 1, "nothing was missed, so nothing is listed anew");
    node.finish().await;
}

#[tokio::test]
async fn who_shares_the_nodes_address_or_is_not_known_sends_without_tags_and_is_counted() {
    let mut proxy = pod("proxy", 1, &[ip(201)]);
    proxy["spec"]["hostNetwork"] = json!(true);
    let node = Node::with([pod("web", 1, &[ip(11)]), proxy], "").await;
    // Its own address, the node's as every pod names it, and one that nobody has.
    for last in [201, 200, 99] {
        assert_eq!(node.tags(ip(last)).await, Value::Null, "{last}");
    }
    assert_eq!(node.whose(11).await, "web");
    node.shows("recoverd_relay_unattributed_total{reason=\"host_network\"} 2").await;
    node.shows("recoverd_relay_unattributed_total{reason=\"unknown_address\"} 1").await;
    node.shows("recoverd_relay_unattributed_total{reason=\"not_synced\"} 0").await;
    node.finish().await;
}

#[tokio::test]
async fn before_the_first_list_an_event_waits_a_little_and_goes_on_without_tags() {
    let api = KubernetesServer::spawn().await;
    api.apply(pod("web", 1, &[ip(11)]));
    api.hold();
    let node = Node::before(api, "").await;
    assert_eq!(node.tags(ip(11)).await, Value::Null);
    node.shows("recoverd_relay_unattributed_total{reason=\"not_synced\"} 1").await;
    let (status, ready) = node.world.get("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("kubernetes"), "{ready}");
    node.api.release();
    node.shows("recoverd_kubernetes_lists_total 1").await;
    assert_eq!(node.whose(11).await, "web");
    node.finish().await;
}

#[tokio::test]
async fn labels_and_annotations_that_were_chosen_are_tags_and_follow_a_change() {
    let mut web = pod("web", 1, &[ip(11)]);
    web["metadata"]["labels"] = json!({"app.kubernetes.io/name": "shop", "other": "x"});
    web["metadata"]["annotations"] = json!({"team": "blue", "secret": "x"});
    let choice = "labels = [\"app.kubernetes.io/name=app\"]\nannotations = [\"team\"]\nnode_name = false";
    let node = Node::with([web.clone()], choice).await;
    let mut expected = json!({"pod_name": "web", "pod_namespace": "shop", "app": "shop", "team": "blue"});
    assert_eq!(node.tags(ip(11)).await, expected);
    web["metadata"]["labels"]["app.kubernetes.io/name"] = json!("store");
    node.api.apply(web);
    node.told("applied", 1).await;
    expected["app"] = json!("store");
    assert_eq!(node.tags(ip(11)).await, expected);
    node.finish().await;
}

#[tokio::test]
async fn while_the_api_server_refuses_the_pods_known_last_stay_and_it_heals_by_itself() {
    let node = Node::with([pod("a", 1, &[ip(11)])], "").await;
    let refusals = [
        (403, "pods is forbidden", "ClusterRole with get, list and watch on pods"),
        (401, "Unauthorized", "does not know the service account"),
        (503, "etcd is away", "(503, etcd is away): see what its own log says"),
    ];
    for (times, (status, message, says)) in (1_u8..).zip(refusals) {
        node.api.refuse(status, message);
        node.until("/readyz", |page| page.contains(says), says).await;
        assert_eq!(node.world.get("/readyz").await.0, 200, "the others go on");
        assert_eq!(node.whose(11).await, "a");
        node.api.apply(pod(&format!("b{times}"), 2, &[ip(20 + times)]));
        node.api.heal();
        node.told("applied", times.into()).await;
        assert_eq!(node.whose(20 + times).await, format!("b{times}"));
        node.until("/readyz", |page| !page.contains(says), "that all is well").await;
    }
    node.finish().await;
}

#[tokio::test]
async fn without_the_nodes_name_it_does_not_start_and_says_what_to_set() {
    let relay = crate::ingest::settings("http://127.0.0.1:9/", "mode = \"daemonset\"");
    for (node, api_server, says) in [
        (None, "http://127.0.0.1:9/", "set NODE_NAME by the Downward API"),
        (Some("node-a,metadata.name=x"), "http://127.0.0.1:9/", "set NODE_NAME by the Downward API"),
        (Some("node-a"), "", "set `kubernetes.api_server`"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let more = format!("{relay}\n[kubernetes]\napi_server = {api_server:?}");
        let settings = load(directory.path(), &settings_text(directory.path(), "udp://127.0.0.1:9", &more));
        let pod = PodIdentity { node: node.map(str::to_owned), ..own_pod() };
        let bound = Bound::bind(&settings).await.unwrap();
        let error = bound.start(&settings, pod, Clock::system()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
