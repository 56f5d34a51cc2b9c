//! Who sent it, with all that is put on its events made ready: once for a pod, not once for a request.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::domain::pod::{Attribution, Pod, PodIdentity, TagChoice, Unattributable};
use crate::sentry::envelope::Tags;

/// A sender of events.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) whose: Attribution,
    /// None when nothing is to be put on its events.
    pub(super) tags: Arc<Tags>,
}

impl Sender {
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
    OwnPod {
        known: Mutex<OwnPod>,
        choice: TagChoice,
        enrich: bool,
    },
    /// Until there is a list of them.
    Nobody(Arc<Sender>),
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

    /// Nobody is known.
    pub fn unknown() -> Self {
        Self(Whose::Nobody(Sender::of(Attribution::Unknown(Unattributable::NotSynced), false)))
    }

    pub(super) fn of(&self, _: IpAddr) -> Arc<Sender> {
        match &self.0 {
            Whose::Nobody(sender) => sender.clone(),
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

fn attribute(identity: &PodIdentity, choice: &TagChoice) -> Attribution {
    match Pod::of(identity, choice) {
        Some(pod) => Attribution::Pod(Arc::new(pod)),
        None => Attribution::Unknown(Unattributable::NoIdentity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_changes_is_on_the_next_event() {
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
        let first = senders.of(peer);
        assert!(Arc::ptr_eq(&first, &senders.of(peer)), "nothing is made anew");
        changes.send(PodIdentity { labels: [("app".to_owned(), "shop".to_owned())].into(), ..identity }).unwrap();
        let Attribution::Pod(pod) = &senders.of(peer).whose else { panic!("it has a name") };
        assert_eq!(pod.tags.last().unwrap(), &("app".to_owned(), "shop".to_owned()));
    }

    #[test]
    fn without_a_name_or_without_leave_nothing_is_put_on() {
        let named = PodIdentity { name: Some("a".into()), namespace: Some("b".into()), ..PodIdentity::default() };
        for (identity, enrich, has_tags) in
            [(named.clone(), true, true), (named, false, false), (PodIdentity::default(), true, false)]
        {
            let senders = Senders::own_pod(watch::channel(identity).1, TagChoice::default(), enrich);
            assert_eq!(senders.of(IpAddr::from([127, 0, 0, 1])).tags.is_empty(), !has_tags);
        }
    }
}
