//! Who sent it, with all that is put on its events made ready: once for a pod, not once for a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::pod::{Attribution, Pod, PodIdentity, TagChoice, Unattributable};
use crate::kubernetes::pods::NodePods;
use crate::sentry::envelope::Tags;

/// So long events wait for the first list of pods, or for a pod at an address that is not known or is contested, counted from
/// the first that has to. Then they go on without tags: SDKs wait two seconds for their last events when the application exits.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long nobody waits again for an address where that was in vain, as for that of a proxy outside of the cluster.
const STRANGE: Duration = Duration::from_mins(5);
/// So many such addresses are remembered; beyond that nobody waits.
const MOST_STRANGERS: usize = 1024;

/// A sender of events.
#[derive(Debug)]
pub struct Sender {
    pub(super) whose: Attribution,
    /// None when nothing is to be put on its events.
    pub(super) tags: Arc<Tags>,
}

impl Sender {
    /// A pod of this node.
    pub fn pod(pod: Pod, enrich: bool) -> Arc<Self> {
        Self::of(Attribution::Pod(Arc::new(pod)), enrich)
    }

    fn of(whose: Attribution, enrich: bool) -> Arc<Self> {
        let tags = match &whose {
            Attribution::Pod(pod) if enrich => {
                Tags::new(pod.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            }
            _ => Tags::default(),
        };
        Arc::new(Self { whose, tags: Arc::new(tags) })
    }
}

/// Tells who sent what.
#[derive(Debug)]
pub struct Senders(Whose);

#[derive(Debug)]
enum Whose {
    OwnPod { known: Mutex<OwnPod>, choice: TagChoice, enrich: bool },
    NodePods(OfNode),
}

#[derive(Debug)]
struct OfNode {
    pods: Arc<NodePods<Arc<Sender>>>,
    /// When nobody waits any more for the first list.
    patience: OnceLock<Instant>,
    /// When nobody waits any more for a pod at this address. The API server hears of a pod's address only after the pod has
    /// begun, and one that fails at once has something to say; to a pod that is gone, at the same address, it would be ascribed.
    strangers: Mutex<HashMap<IpAddr, Instant>>,
    /// Whether there are any, so that usually nobody has to lock them.
    has_strangers: AtomicBool,
}

#[derive(Debug)]
struct OwnPod {
    identity: watch::Receiver<PodIdentity>,
    sender: Arc<Sender>,
}

impl Senders {
    /// All is the own pod's.
    pub fn own_pod(identity: watch::Receiver<PodIdentity>, choice: TagChoice, enrich: bool) -> Self {
        let sender = Sender::of(attribute(&identity.borrow(), &choice), enrich);
        Self(Whose::OwnPod { known: Mutex::new(OwnPod { identity, sender }), choice, enrich })
    }

    /// Each is the pod's whose address it comes from.
    pub fn node_pods(pods: Arc<NodePods<Arc<Sender>>>) -> Self {
        let (patience, strangers) = (OnceLock::new(), Mutex::default());
        Self(Whose::NodePods(OfNode { pods, patience, strangers, has_strangers: AtomicBool::new(false) }))
    }

    /// Waits a little when there is no list of pods yet.
    ///
    /// # Cancel safety
    /// Safe: it only looks, and waits.
    pub(super) async fn of(&self, peer: IpAddr) -> Arc<Sender> {
        match &self.0 {
            Whose::NodePods(node) => node.sender(peer).await,
            Whose::OwnPod { known, choice, enrich } => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.identity.has_changed().unwrap_or_default() {
                    let whose = attribute(&known.identity.borrow_and_update(), choice);
                    known.sender = Sender::of(whose, *enrich);
                }
                known.sender.clone()
            }
        }
    }
}

impl OfNode {
    async fn sender(&self, peer: IpAddr) -> Arc<Sender> {
        let mut found = self.pods.whose(peer);
        if matches!(found, Err(Unattributable::NotSynced)) {
            let patience = *self.patience.get_or_init(|| Instant::now() + PATIENCE);
            // Whether it has come or not shows at the second look.
            let _ = tokio::time::timeout_at(patience, self.pods.listed()).await;
            found = self.pods.whose(peer);
        }
        if matches!(found, Err(Unattributable::UnknownAddress | Unattributable::Contested))
            && let Some(patience) = self.patience_with(peer.to_canonical(), Instant::now())
        {
            // Whether it has come or not shows at the second look.
            let _ = tokio::time::timeout_at(patience, self.pods.appears(peer)).await;
            found = self.pods.whose(peer);
        }
        if found.is_ok() && self.has_strangers.load(Ordering::Relaxed) {
            self.is_known(peer.to_canonical());
        }
        found.unwrap_or_else(|reason| Sender::of(Attribution::Unknown(reason), false))
    }

    fn strangers(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is no stranger, however long it took: the next pod there is waited for again.
    fn is_known(&self, address: IpAddr) {
        let mut strangers = self.strangers();
        strangers.remove(&address);
        self.has_strangers.store(!strangers.is_empty(), Ordering::Relaxed);
    }

    /// Until when to wait for a pod at this address; `None` when that was in vain a while ago.
    fn patience_with(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        let mut strangers = self.strangers();
        if let Some(patience) = strangers.get(&address)
            && now < *patience + STRANGE
        {
            return (now < *patience).then_some(*patience);
        }
        if strangers.len() >= MOST_STRANGERS {
            strangers.retain(|_, patience| now < *patience + STRANGE);
        }
        if strangers.len() >= MOST_STRANGERS {
            return None;
        }
        strangers.insert(address, now + PATIENCE);
        self.has_strangers.store(true, Ordering::Relaxed);
        Some(now + PATIENCE)
    }
}

fn attribute(identity: &PodIdentity, choice: &TagChoice) -> Attribution {
    match Pod::of(identity, choice) {
        Some(pod) => Attribution::Pod(Arc::new(pod)),
        None => Attribution::Unknown(Unattributable::NoIdentity),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::domain::build::Timestamp;
    use crate::domain::pod_directory::Seen;

    #[tokio::test]
    async fn a_label_that_changes_is_on_the_next_event() {
        let identity = PodIdentity {
            name: Some("web-1".into()),
            namespace: Some("shop".into()),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..PodIdentity::default()
        };
        let choice = TagChoice { labels: vec![("app".into(), "app".into())], ..TagChoice::default() };
        let (changes, pod) = watch::channel(identity.clone());
        let senders = Senders::own_pod(pod, choice, true);
        let peer = IpAddr::from([127, 0, 0, 1]);
        let first = senders.of(peer).await;
        assert!(Arc::ptr_eq(&first, &senders.of(peer).await), "nothing is made anew");
        changes.send(PodIdentity { labels: [("app".to_owned(), "shop".to_owned())].into(), ..identity }).unwrap();
        let Attribution::Pod(pod) = &senders.of(peer).await.whose else { panic!("it has a name") };
        assert_eq!(pod.tags.last().unwrap(), &("app".to_owned(), "shop".to_owned()));
    }

    #[tokio::test]
    async fn without_a_name_or_without_leave_nothing_is_put_on() {
        let named = PodIdentity { name: Some("a".into()), namespace: Some("b".into()), ..PodIdentity::default() };
        for (identity, enrich, has_tags) in
            [(named.clone(), true, true), (named, false, false), (PodIdentity::default(), true, false)]
        {
            let senders = Senders::own_pod(watch::channel(identity).1, TagChoice::default(), enrich);
            assert_eq!(senders.of(IpAddr::from([127, 0, 0, 1])).await.tags.is_empty(), !has_tags);
        }
    }

    fn pod(name: &str, addresses: &[IpAddr]) -> Seen<Arc<Sender>> {
        let pod = Pod { name: name.into(), namespace: "shop".into(), tags: vec![] };
        Seen {
            uid: name.into(),
            created: Timestamp::from_millis(0),
            addresses: addresses.to_vec(),
            node_addresses: vec![],
            is_on_host_network: false,
            is_finished: false,
            pod: Sender::pod(pod, true),
        }
    }

    fn name(sender: &Sender) -> Result<&str, Unattributable> {
        match &sender.whose {
            Attribution::Pod(pod) => Ok(&pod.name),
            Attribution::Unknown(reason) => Err(*reason),
        }
    }

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5));

    #[tokio::test(start_paused = true)]
    async fn before_the_first_list_events_wait_for_a_moment_all_together() {
        let senders = Senders::node_pods(NodePods::new());
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(name(&*senders.of(PEER).await), Err(Unattributable::NotSynced));
            assert_eq!(began.elapsed(), PATIENCE, "not each for itself");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_waited_for_the_first_list_is_its_pods() {
        let pods = NodePods::new();
        let senders = Senders::node_pods(pods.clone());
        let listing = async {
            tokio::time::sleep(PATIENCE / 2).await;
            pods.applied(&pod("web-1", &[PEER]));
            pods.are(&["web-1".into()].into());
        };
        let (sender, ()) = tokio::join!(senders.of(PEER), listing);
        assert_eq!(name(&sender), Ok("web-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_event_of_a_pod_waits_until_its_address_is_known() {
        let pods = NodePods::new();
        pods.are(&[].into());
        let senders = Senders::node_pods(pods.clone());
        let began = Instant::now();
        let beginning = async {
            tokio::time::sleep(PATIENCE / 4).await;
            pods.applied(&pod("other", &[IpAddr::from([10, 1, 0, 6])]));
            tokio::time::sleep(PATIENCE / 4).await;
            pods.applied(&pod("web-1", &[PEER]));
        };
        let (first, second, ()) = tokio::join!(senders.of(PEER), senders.of(PEER), beginning);
        assert_eq!((name(&first), name(&second)), (Ok("web-1"), Ok("web-1")));
        assert_eq!(began.elapsed(), PATIENCE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_pod_that_is_gone_left_is_its_own_for_so_long_on_a_clock_that_nobody_sets() {
        let pods = NodePods::new();
        pods.applied(&pod("web-1", &[PEER]));
        pods.are(&["web-1".into()].into());
        pods.deleted(&"web-1".into());
        let senders = Senders::node_pods(pods);
        assert_eq!(name(&*senders.of(PEER).await), Ok("web-1"));
        tokio::time::advance(Duration::from_mins(2)).await;
        assert_eq!(name(&*senders.of(PEER).await), Err(Unattributable::UnknownAddress));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_event_of_a_pod_is_not_that_of_the_one_that_had_the_address_before() {
        let pods = NodePods::new();
        pods.applied(&pod("old", &[PEER]));
        pods.are(&["old".into()].into());
        let senders = Senders::node_pods(pods.clone());
        // Again and again, as a job does that is run every minute.
        for (last, next) in [("old", "web-1"), ("web-1", "web-2")] {
            pods.deleted(&last.into());
            pods.applied(&pod(next, &[]));
            let beginning = async {
                tokio::time::sleep(PATIENCE / 2).await;
                pods.applied(&pod(next, &[PEER]));
            };
            let (sender, ()) = tokio::join!(senders.of(PEER), beginning);
            assert_eq!(name(&sender), Ok(next));
        }
        pods.deleted(&"web-2".into());
        pods.applied(&pod("web-3", &[]));
        let leaving = async {
            tokio::time::sleep(PATIENCE / 2).await;
            pods.deleted(&"web-3".into());
        };
        let (sender, ()) = tokio::join!(senders.of(PEER), leaving);
        assert_eq!(name(&sender), Ok("web-2"), "nobody else can have sent it");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_pod_stays_without_an_address_a_contested_one_is_nobodys_and_waited_for_once() {
        let pods = NodePods::new();
        pods.applied(&pod("old", &[PEER]));
        pods.are(&["old".into()].into());
        pods.deleted(&"old".into());
        pods.applied(&pod("new", &[]));
        let senders = Senders::node_pods(pods.clone());
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(name(&*senders.of(PEER).await), Err(Unattributable::Contested));
            assert_eq!(began.elapsed(), PATIENCE);
        }
        pods.applied(&pod("new", &[IpAddr::from([10, 1, 0, 6])]));
        assert_eq!(name(&*senders.of(PEER).await), Ok("old"), "it has another");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_became_known_too_late_is_waited_for_again_with_its_next_pod() {
        let pods = NodePods::new();
        pods.are(&[].into());
        let senders = Senders::node_pods(pods.clone());
        assert_eq!(name(&*senders.of(PEER).await), Err(Unattributable::UnknownAddress));
        pods.applied(&pod("web-1", &[PEER]));
        assert_eq!(name(&*senders.of(PEER).await), Ok("web-1"));
        pods.deleted(&"web-1".into());
        pods.applied(&pod("web-2", &[]));
        let beginning = async {
            tokio::time::sleep(PATIENCE / 2).await;
            pods.applied(&pod("web-2", &[PEER]));
        };
        let (sender, ()) = tokio::join!(senders.of(PEER), beginning);
        assert_eq!(name(&sender), Ok("web-2"));
        let Whose::NodePods(node) = &senders.0 else { panic!("it is of a node") };
        assert!(!node.has_strangers.load(Ordering::Relaxed), "nobody locks for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_waited_for_once_and_of_too_many_none_is() {
        let pods = NodePods::new();
        pods.are(&[].into());
        let senders = Senders::node_pods(pods);
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(name(&*senders.of(PEER).await), Err(Unattributable::UnknownAddress));
            assert_eq!(began.elapsed(), PATIENCE);
        }
        tokio::time::advance(STRANGE).await;
        senders.of(PEER).await;
        assert_eq!(began.elapsed(), PATIENCE + STRANGE + PATIENCE, "it may be a pod's by now");
        let Whose::NodePods(node) = &senders.0 else { panic!("it is of a node") };
        let waits = |n: u32| node.patience_with(IpAddr::from(n.to_be_bytes()), Instant::now()).is_some();
        assert_eq!((0..5000).filter(|n| waits(*n)).count(), MOST_STRANGERS - 1);
    }
}
