//! The pods of a node stay known, whatever becomes of the watch.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use recoverd::domain::pod::{Pod, TagChoice};
use recoverd::kubernetes::pods::{NodePods, Pace, PodApi, PodMetrics, PodWatch};
use recoverd::machinery::health::Health;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kubernetes_server::{KubernetesServer, NODE, pod};
use crate::world::PATIENCE;

const FAST: Pace = Pace {
    first_wait: Duration::from_millis(10),
    longest_wait: Duration::from_secs(30),
    list_every: Duration::from_mins(30),
};

struct Followed {
    api: KubernetesServer,
    pods: Arc<NodePods<Arc<str>>>,
    health: Health,
    stop: CancellationToken,
    watch: JoinHandle<()>,
}

impl Followed {
    /// A node with one pod, `a`, which is known.
    async fn at(pace: Pace) -> Self {
        let api = KubernetesServer::spawn().await;
        api.apply(pod("a", 1, &[ip(1)]));
        let (pods, health, stop) = (NodePods::new(), Health::default(), CancellationToken::new());
        let address = format!("http://{}/", api.address).parse().unwrap();
        let metrics = PodMetrics::register(&mut Registry::default());
        let watch = PodWatch {
            pods: pods.clone(),
            node: NODE.to_owned(),
            choice: TagChoice::default(),
            prepare: |pod: Pod| pod.name,
            api: PodApi::new(Some(&address), health.optional("kubernetes"), metrics).unwrap(),
            pace,
        };
        #[expect(clippy::disallowed_methods, reason = "it is waited for at the end")]
        let watch = tokio::spawn(watch.run(stop.clone()));
        let followed = Self { api, pods, health, stop, watch };
        assert_eq!(followed.appears(1).await, "a");
        followed
    }

    async fn appears(&self, last: u8) -> String {
        tokio::time::timeout(PATIENCE, self.pods.appears(ip(last))).await.unwrap().to_string()
    }

    fn trouble(&self) -> Option<String> {
        self.health.lines().remove(0).trouble
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let looking = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        assert!(looked.is_ok(), "{:?}, {} lists", self.trouble(), self.api.lists());
    }

    async fn is_well(&self) {
        self.until(|followed| followed.trouble().is_none()).await;
    }

    async fn finish(self) {
        self.stop.cancel();
        self.watch.await.unwrap();
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, last])
}

#[tokio::test]
async fn when_the_cluster_is_set_back_to_a_backup_all_pods_are_listed_anew_after_a_while() {
    let followed = Followed::at(Pace { list_every: Duration::from_millis(300), ..FAST }).await;
    followed.api.set_back();
    followed.api.apply(pod("b", 1, &[ip(2)]));
    assert_eq!(followed.appears(2).await, "b");
    assert_eq!(followed.api.lists() - followed.api.remembered_lists(), 1, "only the first is read through to the disk");
    followed.finish().await;
}

#[tokio::test]
async fn what_was_lost_is_never_listed_from_memory() {
    let followed = Followed::at(Pace { list_every: Duration::from_secs(1), ..FAST }).await;
    followed.until(|followed| followed.api.remembered_lists() == 1).await;
    followed.api.compact(|api| api.apply(pod("b", 1, &[ip(2)])));
    assert_eq!(followed.appears(2).await, "b");
    assert_eq!(followed.api.lists() - followed.api.remembered_lists(), 2);
    followed.finish().await;
}

#[tokio::test]
async fn a_watch_that_lasts_ends_a_row_of_failures() {
    let longest_wait = Duration::from_secs(2);
    let followed = Followed::at(Pace { longest_wait, ..FAST }).await;
    followed.is_well().await;
    followed.api.refuse_watches(403);
    followed.until(|followed| followed.api.watches() >= 9).await;
    followed.api.heal();
    followed.is_well().await;
    tokio::time::sleep(longest_wait).await;
    let (lists, broken) = (followed.api.lists(), Instant::now());
    followed.api.compact(|_| ());
    followed.until(|followed| followed.api.lists() > lists).await;
    // The first wait of a row is a hundredth of that.
    assert!(broken.elapsed() < longest_wait * 3 / 4, "{:?}", broken.elapsed());
    followed.finish().await;
}

#[tokio::test]
async fn a_watch_that_tells_of_nothing_but_an_error_gives_way_to_a_list() {
    let followed = Followed::at(FAST).await;
    followed.is_well().await;
    followed.api.fail_watches(500);
    followed.until(|followed| followed.trouble().is_some()).await;
    followed.api.apply(pod("b", 1, &[ip(2)]));
    let well = followed.until(|followed| followed.trouble().is_none());
    tokio::select! {
        name = followed.appears(2) => assert_eq!(name, "b"),
        () = well => panic!("an answer of 200 is not all"),
    }
    followed.api.heal();
    followed.is_well().await;
    followed.finish().await;
}

#[tokio::test]
async fn what_could_not_be_read_of_a_watch_is_listed_at_once() {
    let followed = Followed::at(FAST).await;
    followed.api.apply_unreadably(pod("b", 1, &[ip(2)]));
    assert_eq!(followed.appears(2).await, "b");
    assert_eq!(followed.api.lists(), 2);
    followed.is_well().await;
    followed.finish().await;
}

#[tokio::test]
async fn where_lists_come_and_watches_do_not_lists_come_ever_more_slowly() {
    let followed = Followed::at(FAST).await;
    followed.is_well().await;
    followed.api.refuse_watches(403);
    followed.until(|followed| followed.trouble().is_some()).await;
    let connections = followed.api.connections();
    let well = followed.until(|followed| followed.trouble().is_none());
    let seldom = async {
        followed.until(|followed| followed.api.lists() == 3).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(followed.api.lists(), 3);
    };
    tokio::select! {
        () = seldom => {}
        () = well => panic!("a list is not all"),
    }
    assert!(followed.api.connections() > connections, "the cluster's authority may be another one by now");
    followed.api.heal();
    followed.is_well().await;
    followed.finish().await;
}
