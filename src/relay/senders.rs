//! Who sent it, with all that is put on its events made ready: once for a pod, not once for a request.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::pod::{Attribution, Pod, PodIdentity, TagChoice, Unattributable};
use crate::kubernetes::pods::NodePods;
use crate::sentry::envelope::Tags;

/// So long events wait for the first list of pods, counted from the first that has to. Then they go on without tags: SDKs
/// that exit do not wait much longer.
const FIRST_LIST: Duration = Duration::from_secs(2);

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
    /// When nobody waits any more.
    patience: OnceLock<Instant>,
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
        Self(Whose::NodePods(OfNode { pods, patience: OnceLock::new() }))
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
        let found = match self.pods.whose(peer) {
            Err(Unattributable::NotSynced) => {
                let patience = *self.patience.get_or_init(|| Instant::now() + FIRST_LIST);
                // Whether it has come or not shows at the second look.
                let _ = tokio::time::timeout_at(patience, self.pods.listed()).await;
                self.pods.whose(peer)
            }
            found => found,
        };
        found.unwrap_or_else(|reason| Sender::of(Attribution::Unknown(reason), false))
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
    use super::*;
    use crate::machinery::clock::Clock;

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

    #[tokio::test(start_paused = true)]
    async fn before_the_first_list_events_wait_for_a_moment_all_together() {
        let senders = Senders::node_pods(NodePods::new(Clock::system()));
        let began = Instant::now();
        for _ in 0..3 {
            let sender = senders.of(IpAddr::from([10, 1, 0, 5])).await;
            assert_eq!(sender.whose, Attribution::Unknown(Unattributable::NotSynced));
            assert_eq!(began.elapsed(), FIRST_LIST, "not each for itself");
        }
    }
}
