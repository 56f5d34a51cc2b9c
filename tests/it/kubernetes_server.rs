//! Stands where the Kubernetes API server does: lists and watches the pods of one node, and nothing else. Whoever asks it
//! anything else fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The node that may be asked for.
pub const NODE: &str = "node-a";

/// Fewer than anybody asks for, so that lists have more pages than one.
const PAGE: usize = 2;

#[derive(Default)]
struct Cluster {
    version: u64,
    pods: BTreeMap<String, Value>,
    /// What watches are told, by version.
    history: Vec<(u64, Value)>,
    /// What happened before is not known any more.
    oldest: u64,
    /// Watches that began in an earlier one are ended, by an error of the connection.
    era: u64,
    is_held: bool,
    refusal: Option<(u16, &'static str)>,
    /// What watches alone get, and whether it is an event in an answer of 200.
    watch_refusal: Option<(u16, bool)>,
    lists: usize,
    /// Of these, those that asked for what is remembered, however old.
    remembered: usize,
    watches: usize,
    connections: BTreeSet<SocketAddr>,
    strangers: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    cluster: Arc<Mutex<Cluster>>,
    news: watch::Sender<()>,
}

pub struct KubernetesServer {
    pub address: SocketAddr,
    shared: Shared,
}

/// A pod that runs, in the second `created` of a minute.
pub fn pod(name: &str, created: u32, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"),
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {"nodeName": NODE, "containers": [{"name": "app", "image": "app"}]},
        "status": {
            "phase": "Running", "podIP": addresses.first().map(|address| &address["ip"]), "podIPs": addresses,
            "hostIP": "127.0.0.200", "hostIPs": [{"ip": "127.0.0.200"}],
        },
    })
}

impl KubernetesServer {
    pub async fn spawn() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { cluster: Arc::default(), news: watch::Sender::new(()) };
        shared.cluster.lock().unwrap().version = 100;
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let changed = change(&mut self.shared.cluster.lock().unwrap());
        self.shared.news.send_replace(());
        changed
    }

    /// The pod is there, new or changed.
    pub fn apply(&self, pod: Value) {
        self.apply_and_tell(pod, |pod| pod);
    }

    /// The pod is there, and what watches are told of it cannot be read.
    pub fn apply_unreadably(&self, pod: Value) {
        self.apply_and_tell(pod, |_| json!("not a pod"));
    }

    fn apply_and_tell(&self, mut pod: Value, tell: impl FnOnce(Value) -> Value) {
        self.change(|cluster| {
            cluster.version += 1;
            pod["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
            let kind = if cluster.pods.insert(uid, pod.clone()).is_some() { "MODIFIED" } else { "ADDED" };
            cluster.history.push((cluster.version, json!({"type": kind, "object": tell(pod)})));
        });
    }

    /// The pod is gone.
    pub fn delete(&self, name: &str) {
        self.change(|cluster| {
            cluster.version += 1;
            let mut pod = cluster.pods.remove(&format!("uid-of-{name}")).unwrap();
            pod["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
            cluster.history.push((cluster.version, json!({"type": "DELETED", "object": pod})));
        });
    }

    /// Watches learn how far they are.
    pub fn bookmark(&self) {
        self.change(|cluster| {
            cluster.version += 1;
            let meta = json!({"resourceVersion": cluster.version.to_string(), "creationTimestamp": null});
            let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": meta});
            cluster.history.push((cluster.version, json!({"type": "BOOKMARK", "object": bookmark})));
        });
    }

    /// All that happened is forgotten, and so is what happens in `meanwhile`: watches get a 410.
    pub fn compact(&self, meanwhile: impl FnOnce(&Self)) {
        let era = self.change(|cluster| std::mem::replace(&mut cluster.era, u64::MAX));
        meanwhile(self);
        self.change(|cluster| {
            cluster.version += 1;
            (cluster.oldest, cluster.era) = (cluster.version, era + 1);
            cluster.history.clear();
        });
    }

    /// Breaks off all watches.
    pub fn hang_up(&self) {
        self.change(|cluster| cluster.era += 1);
    }

    /// The cluster is what it was long ago, its versions included. Whoever watches on from a later one hears nothing: only a
    /// list is refused for that (kubernetes, `storage/cacher`).
    pub fn set_back(&self) {
        self.change(|cluster| {
            cluster.version = 50;
            cluster.era += 1;
            cluster.history.clear();
        });
    }

    /// Lists come no more, until [`Self::release`].
    pub fn hold(&self) {
        self.change(|cluster| cluster.is_held = true);
    }

    pub fn release(&self) {
        self.change(|cluster| cluster.is_held = false);
    }

    /// Every request gets this status, and each watch is broken off.
    pub fn refuse(&self, status: u16, message: &'static str) {
        self.change(|cluster| {
            cluster.refusal = Some((status, message));
            cluster.era += 1;
        });
    }

    /// Every watch gets this status, while lists come.
    pub fn refuse_watches(&self, status: u16) {
        self.refuse_watches_by(status, false);
    }

    /// Every watch begins well, and its first event is this error.
    pub fn fail_watches(&self, status: u16) {
        self.refuse_watches_by(status, true);
    }

    fn refuse_watches_by(&self, status: u16, is_event: bool) {
        self.change(|cluster| {
            cluster.watch_refusal = Some((status, is_event));
            cluster.era += 1;
        });
    }

    pub fn heal(&self) {
        self.change(|cluster| (cluster.refusal, cluster.watch_refusal) = (None, None));
    }

    /// How many there have been.
    pub fn connections(&self) -> usize {
        self.shared.cluster.lock().unwrap().connections.len()
    }

    /// How often a list was begun.
    pub fn lists(&self) -> usize {
        self.shared.cluster.lock().unwrap().lists
    }

    /// How often that may have been an old one.
    pub fn remembered_lists(&self) -> usize {
        self.shared.cluster.lock().unwrap().remembered
    }

    /// How often a watch was asked for.
    pub fn watches(&self) -> usize {
        self.shared.cluster.lock().unwrap().watches
    }
}

impl Drop for KubernetesServer {
    fn drop(&mut self) {
        let strangers = std::mem::take(&mut self.shared.cluster.lock().unwrap().strangers);
        if !std::thread::panicking() {
            assert_eq!(strangers, Vec::<String>::new(), "no role allows this");
        }
    }
}

async fn answer(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    shared.cluster.lock().unwrap().connections.insert(peer);
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    assert_eq!(request.headers()["user-agent"], concat!("recoverd/", env!("CARGO_PKG_VERSION")));
    let ask = |name: &str| query.get(name).map(String::as_str);
    let is_list = request.method() == Method::GET && request.uri().path() == "/api/v1/pods";
    if !is_list || ask("fieldSelector") != Some(&format!("spec.nodeName={NODE}")) {
        shared.cluster.lock().unwrap().strangers.push(format!("{} {}", request.method(), request.uri()));
        return failure(403, "Forbidden");
    }
    if let Some((status, message)) = shared.cluster.lock().unwrap().refusal {
        return failure(status, message);
    }
    if ask("watch") == Some("true") {
        assert_eq!(ask("allowWatchBookmarks"), Some("true"));
        shared.cluster.lock().unwrap().watches += 1;
        return watching(shared, ask("resourceVersion").unwrap().parse().unwrap());
    }
    // For the pods, or for a sign of life.
    let asked = (ask("limit"), ask("resourceVersion"), ask("resourceVersionMatch"));
    let is_remembered = asked == (None, Some("0"), Some("NotOlderThan"));
    assert!(is_remembered || matches!(asked, (Some("500" | "1"), None, None)), "{asked:?}");
    let mut news = shared.news.subscribe();
    while shared.cluster.lock().unwrap().is_held {
        news.changed().await.unwrap();
    }
    let mut cluster = shared.cluster.lock().unwrap();
    cluster.remembered += usize::from(is_remembered);
    list(cluster, ask("continue"), if is_remembered { usize::MAX } else { PAGE })
}

fn failure(code: u16, message: &str) -> Response {
    let status = status(code, message);
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(status.to_string().into()).unwrap()
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code})
}

fn list(mut cluster: MutexGuard<'_, Cluster>, from: Option<&str>, page: usize) -> Response {
    let from: usize = from.map(|from| from.parse().unwrap()).unwrap_or_default();
    cluster.lists += usize::from(from == 0);
    let items: Vec<_> = cluster.pods.values().skip(from).take(page).collect();
    let left = cluster.pods.len().saturating_sub(from.saturating_add(page));
    let mut metadata = json!({"resourceVersion": cluster.version.to_string()});
    if left > 0 {
        metadata["continue"] = json!((from + page).to_string());
        metadata["remainingItemCount"] = json!(left);
    }
    let body = json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string();
    Response::builder().header("content-type", "application/json").body(body.into()).unwrap()
}

fn watching(shared: Shared, since: u64) -> Response {
    let cluster = shared.cluster.lock().unwrap();
    match cluster.watch_refusal {
        Some((code, false)) => return failure(code, "no watches"),
        Some((code, true)) => {
            let error = line(&[json!({"type": "ERROR", "object": status(code, "no watches")})]);
            return Response::builder().header("content-type", "application/json").body(error.into()).unwrap();
        }
        None => {}
    }
    let era = cluster.era;
    drop(cluster);
    let mut news = shared.news.subscribe();
    news.mark_changed();
    let lines = stream::unfold(Some((shared, news, since)), move |watch| async move {
        let (shared, mut news, since) = watch?;
        loop {
            news.changed().await.ok()?;
            let cluster = shared.cluster.lock().unwrap();
            if since < cluster.oldest {
                let gone = json!({"type": "ERROR", "object": status(410, "too old resource version")});
                return Some((Ok(line(&[gone])), None));
            }
            if cluster.era == u64::MAX {
                continue;
            }
            if cluster.era != era {
                return Some((Err(io::Error::other("hung up")), None));
            }
            let told: Vec<_> = cluster.history.iter().filter(|(at, _)| *at > since).collect();
            let Some(&&(at, _)) = told.last() else { continue };
            let told: Vec<_> = told.iter().map(|(_, event)| event.clone()).collect();
            drop(cluster);
            return Some((Ok(line(&told)), Some((shared, news, at))));
        }
    });
    Response::builder().header("content-type", "application/json").body(Body::from_stream(lines)).unwrap()
}

fn line(told: &[Value]) -> Bytes {
    told.iter().flat_map(|event| format!("{event}\n").into_bytes()).collect()
}
