//! Which pod of the node has which address, and who had it a moment ago. Pure.
//!
//! Addresses are given again within seconds, and what is heard of a pod may be late. Of several pods that are there, the
//! youngest has the address. One that is gone has it against one that is there only if it is younger *and* came to the address
//! later: a pod that waited long for its start may well follow a younger one.
//!
//! The address of a pod that is gone is contested while another has none yet that is told: it may have been given that very one,
//! and send already. A pod that had waited for two minutes when the other left has no part in this: it lacks a disk or a place in
//! the network, not that one's address.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::build::Timestamp;
use super::pod::Unattributable;

/// A pod as it was last seen. What is kept of it, `pod`, is the caller's.
#[derive(Clone, Debug)]
pub struct Seen<P> {
    pub uid: Arc<str>,
    pub created: Timestamp,
    /// Its own, two in a cluster with IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Those of the node.
    pub node_addresses: Vec<IpAddr>,
    /// It shares the node's addresses.
    pub is_on_host_network: bool,
    /// It has run to its end, and its address is free, though it is still listed.
    pub is_finished: bool,
    pub pod: P,
}

impl<P> Seen<P> {
    /// The same, of which something else is kept.
    pub fn map<Q>(self, prepare: impl FnOnce(P) -> Q) -> Seen<Q> {
        let Self { uid, created, addresses, node_addresses, is_on_host_network, is_finished, pod } = self;
        Seen { uid, created, addresses, node_addresses, is_on_host_network, is_finished, pod: prepare(pod) }
    }
}

/// The pods of one node, by their addresses. IPv4 that is written as IPv6 is the same address.
#[derive(Debug)]
pub struct PodDirectory<P> {
    claims: HashMap<IpAddr, Vec<Claim<P>>>,
    /// Of the pods that are there.
    present: HashMap<Arc<str>, Vec<IpAddr>>,
    /// Of these, those that have no address yet, and since when.
    waiting: HashMap<Arc<str>, Duration>,
    node: BTreeSet<IpAddr>,
    /// Those that are gone, about in the order in which they are to be forgotten.
    gone: VecDeque<(Duration, Arc<str>, IpAddr)>,
    /// How many claims there have been.
    counted: u64,
}

#[derive(Debug)]
struct Claim<P> {
    uid: Arc<str>,
    created: Timestamp,
    /// Its place among all claims.
    at: u64,
    /// When it is forgotten. `None` while the pod is there.
    until: Option<Duration>,
    pod: P,
}

impl<P> Default for PodDirectory<P> {
    fn default() -> Self {
        Self {
            claims: HashMap::new(),
            present: HashMap::new(),
            waiting: HashMap::new(),
            node: BTreeSet::new(),
            gone: VecDeque::new(),
            counted: 0,
        }
    }
}

/// `now` is on a clock that only goes forward, since whenever it began.
impl<P: Clone> PodDirectory<P> {
    /// So long a pod that is gone keeps its address: what it sent with its last breath may be on the way for a while, and SDKs
    /// flush at their end.
    pub const GRACE: Duration = Duration::from_mins(2);
    /// So many addresses of pods that are gone are kept. A node has some hundred pods.
    pub const MOST_GONE: usize = 4096;
    /// A pod that has waited for longer when another leaves does not wait for that one's address.
    pub const LONGEST_START: Duration = Duration::from_mins(2);

    /// The pod is there, anew or changed.
    pub fn applied(&mut self, seen: &Seen<P>, now: Duration) {
        self.forget(now);
        self.node.extend(seen.node_addresses.iter().map(IpAddr::to_canonical));
        let mut addresses: Vec<_> = seen.addresses.iter().map(IpAddr::to_canonical).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if seen.is_on_host_network {
            self.node.extend(addresses.drain(..));
        }
        if seen.is_finished {
            return self.deleted(&seen.uid, now);
        }
        for left in self.present.insert(seen.uid.clone(), addresses.clone()).unwrap_or_default() {
            if !addresses.contains(&left) {
                self.leave(&seen.uid, left, now);
            }
        }
        if addresses.is_empty() && !seen.is_on_host_network {
            self.waiting.entry(seen.uid.clone()).or_insert(now);
        } else {
            self.waiting.remove(&seen.uid);
        }
        for address in addresses {
            let claims = self.claims.entry(address).or_default();
            if let Some(claim) = claims.iter_mut().find(|claim| claim.uid == seen.uid && claim.until.is_none()) {
                claim.pod = seen.pod.clone();
                continue;
            }
            // One that comes back has come later than all others.
            claims.retain(|claim| claim.uid != seen.uid);
            self.counted += 1;
            let (uid, pod) = (seen.uid.clone(), seen.pod.clone());
            claims.push(Claim { uid, created: seen.created, at: self.counted, until: None, pod });
        }
    }

    /// The pod is gone.
    pub fn deleted(&mut self, uid: &Arc<str>, now: Duration) {
        self.waiting.remove(uid);
        for address in self.present.remove(uid).unwrap_or_default() {
            self.leave(uid, address, now);
        }
        self.forget(now);
    }

    /// These are all that there are: what else was there has gone unseen.
    pub fn listed(&mut self, uids: &HashSet<Arc<str>>, now: Duration) {
        let missing: Vec<_> = self.present.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in missing {
            self.deleted(&uid, now);
        }
    }

    /// Drops those whose grace is over.
    pub fn forget(&mut self, now: Duration) {
        while let Some((until, ..)) = self.gone.front()
            && (*until <= now || self.gone.len() > Self::MOST_GONE)
        {
            let Some((until, uid, address)) = self.gone.pop_front() else { break };
            let Some(claims) = self.claims.get_mut(&address) else { continue };
            // It may have come back since.
            claims.retain(|claim| claim.uid != uid || claim.until != Some(until));
            if claims.is_empty() {
                self.claims.remove(&address);
            }
        }
    }

    /// Who has this address.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn whose(&self, address: IpAddr, now: Duration) -> Result<P, Unattributable> {
        let address = address.to_canonical();
        if self.node.contains(&address) {
            return Err(Unattributable::HostNetwork);
        }
        let claims = self.claims.get(&address).ok_or(Unattributable::UnknownAddress)?;
        let there = claims.iter().filter(|claim| claim.until.is_none()).max_by_key(|claim| (claim.created, claim.at));
        let left = claims.iter().filter(|claim| claim.until.is_some_and(|until| until > now));
        let left = left.max_by_key(|claim| claim.at);
        let claim = match (there, left) {
            (Some(there), Some(left)) if left.created > there.created && left.at > there.at => left,
            (Some(there), _) => there,
            (None, left) => left.ok_or(Unattributable::UnknownAddress)?,
        };
        if self.is_contested(claim) {
            return Err(Unattributable::Contested);
        }
        Ok(claim.pod.clone())
    }

    fn is_contested(&self, claim: &Claim<P>) -> bool {
        let Some(until) = claim.until else { return false };
        let may_have_it = |(uid, since): (&Arc<str>, &Duration)| {
            *uid != claim.uid && *since + Self::LONGEST_START + Self::GRACE > until
        };
        self.waiting.iter().any(may_have_it)
    }

    /// The pods that are there.
    pub fn len(&self) -> usize {
        self.present.len()
    }

    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    fn leave(&mut self, uid: &Arc<str>, address: IpAddr, now: Duration) {
        let Some(claims) = self.claims.get_mut(&address) else { return };
        let Some(claim) = claims.iter_mut().find(|claim| claim.uid == *uid) else { return };
        let until = now + Self::GRACE;
        claim.until = Some(until);
        self.gone.push_back((until, uid.clone(), address));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: &str = "10.0.0.1";

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn pod(uid: &str, created: i64, addresses: &[&str]) -> Seen<String> {
        Seen {
            uid: uid.into(),
            created: Timestamp::from_millis(created * 1000),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            node_addresses: vec![NODE.parse().unwrap()],
            is_on_host_network: false,
            is_finished: false,
            pod: uid.to_owned(),
        }
    }

    fn whose(directory: &PodDirectory<String>, address: &str, now: u64) -> Result<String, Unattributable> {
        directory.whose(address.parse().unwrap(), at(now))
    }

    const UNKNOWN: Result<String, Unattributable> = Err(Unattributable::UnknownAddress);

    #[test]
    fn a_pod_has_all_its_addresses_however_they_are_written() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("a", 1, &["10.1.0.5", "fd00::5", "::ffff:10.1.0.5"]), at(1));
        for address in ["10.1.0.5", "::ffff:10.1.0.5", "fd00::5", "fd00:0:0::5"] {
            assert_eq!(whose(&directory, address, 1), Ok("a".to_owned()), "{address}");
        }
        for address in ["10.1.0.6", "fd00::6", "::10.1.0.5", "127.0.0.1"] {
            assert_eq!(whose(&directory, address, 1), UNKNOWN, "{address}");
        }
    }

    #[test]
    fn a_pod_that_is_gone_keeps_its_address_for_a_grace_time() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("a", 1, &["10.1.0.5"]), at(1));
        directory.deleted(&"a".into(), at(10));
        directory.deleted(&"a".into(), at(100));
        assert_eq!(whose(&directory, "10.1.0.5", 129), Ok("a".to_owned()));
        assert_eq!(whose(&directory, "10.1.0.5", 130), UNKNOWN);
        directory.forget(at(130));
        assert!(directory.claims.is_empty() && directory.gone.is_empty() && directory.is_empty());
    }

    #[test]
    fn the_next_pod_has_the_address_at_once_and_what_is_heard_late_of_the_last_one_changes_nothing() {
        let mut directory = PodDirectory::default();
        let old = pod("old", 1, &["10.1.0.5"]);
        directory.applied(&old, at(1));
        directory.applied(&pod("new", 5, &["10.1.0.5"]), at(6));
        assert_eq!(whose(&directory, "10.1.0.5", 6), Ok("new".to_owned()));
        directory.applied(&old, at(7));
        assert_eq!(whose(&directory, "10.1.0.5", 7), Ok("new".to_owned()));
        directory.deleted(&"old".into(), at(8));
        assert_eq!(whose(&directory, "10.1.0.5", 8), Ok("new".to_owned()));
        assert_eq!(whose(&directory, "10.1.0.5", 1000), Ok("new".to_owned()));
    }

    #[test]
    fn a_young_pod_that_is_gone_is_not_replaced_by_an_older_one_that_had_the_address_before() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("old", 1, &["10.1.0.5"]), at(1));
        directory.applied(&pod("new", 5, &["10.1.0.5"]), at(6));
        directory.deleted(&"new".into(), at(8));
        assert_eq!(whose(&directory, "10.1.0.5", 9), Ok("new".to_owned()));
        assert_eq!(whose(&directory, "10.1.0.5", 200), Ok("old".to_owned()));
    }

    #[test]
    fn a_pod_that_waited_for_its_start_follows_a_younger_one() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("waits", 1, &[]), at(1));
        directory.applied(&pod("young", 5, &["10.1.0.5"]), at(6));
        directory.deleted(&"young".into(), at(8));
        directory.applied(&pod("waits", 1, &["10.1.0.5"]), at(9));
        assert_eq!(whose(&directory, "10.1.0.5", 9), Ok("waits".to_owned()));
    }

    #[test]
    fn a_pod_that_has_run_to_its_end_gives_its_address_free() {
        let mut directory = PodDirectory::default();
        let finished = |uid, created| Seen { is_finished: true, ..pod(uid, created, &["10.1.0.5"]) };
        directory.applied(&finished("before our time", 1), at(1));
        assert_eq!(whose(&directory, "10.1.0.5", 1), UNKNOWN);
        directory.applied(&pod("job", 2, &["10.1.0.5"]), at(2));
        directory.applied(&finished("job", 2), at(10));
        directory.applied(&finished("job", 2), at(100));
        assert_eq!(whose(&directory, "10.1.0.5", 129), Ok("job".to_owned()));
        assert_eq!(whose(&directory, "10.1.0.5", 130), UNKNOWN);
    }

    #[test]
    fn the_nodes_own_addresses_are_nobodys() {
        let mut directory = PodDirectory::default();
        let proxy = Seen { is_on_host_network: true, ..pod("proxy", 1, &[NODE, "fd00::1"]) };
        directory.applied(&pod("a", 2, &["10.1.0.5"]), at(2));
        assert_eq!(whose(&directory, NODE, 2), Err(Unattributable::HostNetwork), "as another pod's hostIP");
        directory.applied(&proxy, at(2));
        for address in [NODE, "::ffff:10.0.0.1", "fd00::1"] {
            assert_eq!(whose(&directory, address, 2), Err(Unattributable::HostNetwork), "{address}");
        }
    }

    #[test]
    fn what_a_list_does_not_have_is_gone() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("a", 1, &["10.1.0.5"]), at(1));
        directory.applied(&pod("b", 1, &["10.1.0.6"]), at(1));
        directory.listed(&HashSet::from(["b".into()]), at(10));
        assert_eq!(directory.len(), 1);
        assert_eq!(
            (whose(&directory, "10.1.0.5", 129), whose(&directory, "10.1.0.5", 130)),
            (Ok("a".to_owned()), UNKNOWN)
        );
        assert_eq!(whose(&directory, "10.1.0.6", 130), Ok("b".to_owned()));
    }

    #[test]
    fn an_address_that_a_pod_has_left_is_kept_for_a_grace_time_too() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("a", 1, &["10.1.0.5"]), at(1));
        directory.applied(&pod("a", 1, &["10.1.0.6"]), at(10));
        assert_eq!(
            (whose(&directory, "10.1.0.5", 129), whose(&directory, "10.1.0.5", 130)),
            (Ok("a".to_owned()), UNKNOWN)
        );
        directory.applied(&pod("a", 1, &["10.1.0.5"]), at(20));
        assert_eq!(whose(&directory, "10.1.0.5", 1000), Ok("a".to_owned()), "it has come back");
        directory.forget(at(1000));
        assert_eq!(whose(&directory, "10.1.0.5", 1000), Ok("a".to_owned()));
    }

    #[test]
    fn pods_that_come_and_go_by_the_thousand_are_not_all_remembered() {
        let mut directory = PodDirectory::default();
        for n in 0..20_000_u32 {
            let uid = n.to_string();
            let address = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
            directory.applied(&Seen { addresses: vec![address], ..pod(&uid, 1, &[]) }, at(1));
            directory.deleted(&uid.as_str().into(), at(1));
        }
        assert_eq!((directory.gone.len(), directory.claims.len()), (4096, 4096));
    }

    #[test]
    fn while_a_pods_address_is_not_told_yet_it_may_be_that_of_one_that_is_gone() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("old", 1, &["10.1.0.5"]), at(1));
        directory.applied(&pod("beside", 1, &["10.1.0.6"]), at(1));
        directory.applied(&pod("new", 9, &[]), at(9));
        assert_eq!(whose(&directory, "10.1.0.5", 9), Ok("old".to_owned()), "it is still there");
        directory.deleted(&"old".into(), at(10));
        assert_eq!(whose(&directory, "10.1.0.5", 10), Err(Unattributable::Contested));
        assert_eq!(whose(&directory, "10.1.0.6", 10), Ok("beside".to_owned()));
        directory.applied(&pod("new", 9, &["10.1.0.7"]), at(11));
        assert_eq!(whose(&directory, "10.1.0.5", 11), Ok("old".to_owned()), "the new one has another");
        directory.applied(&pod("newer", 12, &[]), at(12));
        directory.applied(&Seen { is_on_host_network: true, ..pod("proxy", 12, &[]) }, at(12));
        assert_eq!(whose(&directory, "10.1.0.5", 12), Err(Unattributable::Contested));
        directory.deleted(&"newer".into(), at(13));
        assert_eq!(whose(&directory, "10.1.0.5", 13), Ok("old".to_owned()), "there is no other");
    }

    #[test]
    fn a_pod_that_does_not_come_to_start_makes_nobody_doubtful_for_ever() {
        let mut directory = PodDirectory::default();
        let waits = pod("waits for its disk", 1, &[]);
        directory.applied(&waits, at(1));
        for (left, expected) in [(120, Err(Unattributable::Contested)), (121, Ok("old".to_owned()))] {
            directory.applied(&pod("old", 1, &["10.1.0.5"]), at(left));
            directory.applied(&waits, at(left));
            directory.deleted(&"old".into(), at(left));
            assert_eq!(whose(&directory, "10.1.0.5", left), expected, "{left}");
        }
    }

    #[test]
    fn a_pod_that_has_lost_its_own_address_does_not_contest_it() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("a", 1, &["10.1.0.5"]), at(1));
        directory.applied(&pod("a", 1, &[]), at(10));
        assert_eq!(whose(&directory, "10.1.0.5", 10), Ok("a".to_owned()));
    }

    #[test]
    fn a_pod_that_comes_back_to_its_address_has_come_later_than_the_others() {
        let mut directory = PodDirectory::default();
        directory.applied(&pod("young", 5, &["10.1.0.5"]), at(5));
        directory.applied(&pod("young", 5, &["10.1.0.6"]), at(6));
        directory.applied(&pod("old", 1, &["10.1.0.5"]), at(7));
        directory.applied(&pod("young", 5, &["10.1.0.5"]), at(8));
        directory.deleted(&"young".into(), at(9));
        assert_eq!(whose(&directory, "10.1.0.5", 9), Ok("young".to_owned()));
    }

    #[derive(Clone, Debug)]
    enum Told {
        Applied { pod: usize, address: Option<u8>, is_finished: bool },
        Deleted { pod: usize },
        Listed { pods: Vec<usize> },
    }

    const PODS: usize = 5;

    #[derive(Clone, Copy, PartialEq)]
    enum Is {
        At(u8),
        Waiting,
        Gone,
    }

    impl Told {
        /// `None` when it says nothing of this pod.
        fn of(&self, pod: usize) -> Option<Is> {
            match self {
                Self::Applied { pod: of, is_finished: true, .. } | Self::Deleted { pod: of } if *of == pod => {
                    Some(Is::Gone)
                }
                Self::Applied { pod: of, address, .. } if *of == pod => Some(address.map_or(Is::Waiting, Is::At)),
                Self::Listed { pods } if !pods.contains(&pod) => Some(Is::Gone),
                _ => None,
            }
        }
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            6 => (0..PODS, prop::option::weighted(0.8, 0..2_u8), prop::bool::weighted(0.1))
                .prop_map(|(pod, address, is_finished)| Told::Applied { pod, address, is_finished }),
            2 => (0..PODS).prop_map(|pod| Told::Deleted { pod }),
            1 => prop::collection::vec(0..PODS, 0..PODS).prop_map(|pods| Told::Listed { pods }),
        ]
    }

    /// The times that a pod had one address, without end if it still has it.
    struct Stay {
        pod: usize,
        address: u8,
        from: usize,
        end: Option<u64>,
    }

    /// All that was ever told, kept whole, and searched anew for each question.
    fn stays(history: &[(u64, Told)]) -> Vec<Stay> {
        let mut stays: Vec<Stay> = Vec::new();
        for (index, (now, told)) in history.iter().enumerate() {
            for pod in 0..PODS {
                let Some(is) = told.of(pod) else { continue };
                for stay in stays.iter_mut().filter(|stay| stay.pod == pod) {
                    if Is::At(stay.address) != is {
                        stay.end = stay.end.or(Some(*now));
                    }
                }
                let Is::At(address) = is else { continue };
                // Who has been away, for however short a time, comes anew, and has not been there before.
                if stays.iter().any(|stay| stay.pod == pod && stay.address == address && stay.end.is_none()) {
                    continue;
                }
                stays.retain(|stay| stay.pod != pod || stay.address != address);
                stays.push(Stay { pod, address, from: index, end: None });
            }
        }
        stays
    }

    /// Since when a pod is there without an address.
    fn waits(history: &[(u64, Told)], pod: usize) -> Option<u64> {
        let of_it = history.iter().rev().filter_map(|(at, told)| Some((*at, told.of(pod)?)));
        of_it.take_while(|(_, is)| *is == Is::Waiting).last().map(|(since, _)| since)
    }

    fn expected(history: &[(u64, Told)], address: u8, now: u64, created: &[i64]) -> Result<usize, Unattributable> {
        let grace = PodDirectory::<()>::GRACE.as_secs();
        let mut stays = stays(history);
        stays.retain(|stay| stay.address == address && stay.end.is_none_or(|end| end + grace > now));
        stays.sort_by_key(|stay| stay.from);
        let left = stays.iter().rfind(|stay| stay.end.is_some());
        let mut there: Vec<_> = stays.iter().filter(|stay| stay.end.is_none()).collect();
        there.sort_by_key(|stay| created[stay.pod]);
        let is_younger = |left: &&Stay| {
            there.last().is_none_or(|there| created[left.pod] > created[there.pod] && left.from > there.from)
        };
        let found = left.filter(is_younger).or(there.last().copied()).ok_or(Unattributable::UnknownAddress)?;
        let may_have_it = |waits: u64| found.end.is_some_and(|end| waits + 120 > end);
        if (0..PODS).any(|pod| pod != found.pod && waits(history, pod).is_some_and(may_have_it)) {
            return Err(Unattributable::Contested);
        }
        Ok(found.pod)
    }

    proptest! {
        /// For all histories of pods that share two addresses, whoever has one is whom a search of the whole history finds.
        #[test]
        fn an_address_is_whose_a_search_of_all_history_says(
            told in prop::collection::vec((0..60_u64, told()), 1..40),
            created in prop::collection::vec(0..3_i64, PODS),
        ) {
            let mut directory = PodDirectory::default();
            let (mut now, mut history) = (0, Vec::new());
            let uids: Vec<Arc<str>> = (0..PODS).map(|pod| pod.to_string().into()).collect();
            for (passed, told) in told {
                now += passed;
                match &told {
                    Told::Applied { pod, address, is_finished } => directory.applied(
                        &Seen {
                            uid: uids[*pod].clone(),
                            created: Timestamp::from_millis(created[*pod] * 1000),
                            addresses: address.map(|last| IpAddr::from([10, 1, 0, last])).into_iter().collect(),
                            node_addresses: Vec::new(),
                            is_on_host_network: false,
                            is_finished: *is_finished,
                            pod: *pod,
                        },
                        at(now),
                    ),
                    Told::Deleted { pod } => directory.deleted(&uids[*pod], at(now)),
                    Told::Listed { pods } => {
                        directory.listed(&pods.iter().map(|pod| uids[*pod].clone()).collect(), at(now));
                    }
                }
                history.push((now, told));
                for address in 0..2 {
                    for later in [0, 119, 120, 500] {
                        let found = directory.whose(IpAddr::from([10, 1, 0, address]), at(now + later));
                        prop_assert_eq!(found, expected(&history, address, now + later, &created), "{} {}", address, later);
                    }
                }
            }
        }
    }
}
