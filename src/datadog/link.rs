//! One connection to the Agent. The only file that names the `dogstatsd` crate, and what it does not do for us is done
//! here: it resolves names at every send, prints, and where no socket is it makes one in the Agent's place.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dogstatsd::{Client, DogstatsdError, EventAlertType, EventOptions, OptionsBuilder};
use dogstatsd::{ServiceCheckOptions, ServiceStatus};

use super::datagram::{self, TooLarge};
use super::metrics::Kind;
use super::sanitise;
use super::target::DatagramLimit;
use crate::domain::signal::{Alert, Check, Event, Measure, Metric, Signal, Tag};
use crate::domain::status::Status;

/// A path that can be walked through but neither read nor written: what a socket can be opened as. The same on
/// every architecture that recoverd is built for (`asm-generic/fcntl.h`).
const O_PATH: i32 = 0o10_000_000;

// Linux's numbers, for which `io::ErrorKind` has no stable name.
const EMSGSIZE: i32 = 90;
const EPROTOTYPE: i32 = 91;
const ENOBUFS: i32 = 105;

/// An empty line: the Agent reads it and passes it over (`parsePackets`, datadog-agent).
const KNOCK: &[u8] = b"\n";

/// How long another host may take to say that the port is closed, before it counts as open. From our own host the
/// answer is there at once.
const REFUSAL_TIME: Duration = Duration::from_millis(50);

/// The crate makes tags of these, and a tag `version` would make a new check of every deploy. `main` starts recoverd
/// without them; this is the second line.
const TAGGING_VARIABLES: [&str; 3] = ["DD_ENV", "DD_SERVICE", "DD_VERSION"];

/// Why there is no connection, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("no socket at {}: mount its directory, and enable DogStatsD by Unix socket in the Agent", .0.display())]
    NoSocket(PathBuf),
    #[error("{} is not a socket: name the Agent's dsd.socket", .0.display())]
    NotASocket(PathBuf),
    #[error("nothing listens on {}: is the Agent running?", .0.display())]
    Unanswered(PathBuf),
    #[error("{} may not be written to: run as a user who may, or let the Agent open it to all", .0.display())]
    Denied(PathBuf),
    #[error("{} is a stream socket: name the one for datagrams, dsd.socket", .0.display())]
    Stream(PathBuf),
    #[error("nothing listens on UDP {0}: is the Agent running, and does it take non-local traffic?")]
    Refused(SocketAddr),
    #[error("the name {0} has no address: is it right, and does DNS answer?")]
    Unresolved(String),
    #[error("{0} is set, and its tag would split every check: unset it for recoverd")]
    Tagging(&'static str),
    #[error("{path}: {source}", path = .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("UDP {address}: {source}")]
    Udp { address: SocketAddr, source: io::Error },
}

/// Why a signal did not go out.
#[derive(Debug)]
pub(super) enum SendError {
    /// The queue to the Agent is full: try again in a moment.
    Full,
    /// This one never fits.
    TooLarge,
    NotFinite,
    /// Connect anew.
    Broken(io::Error),
}

/// What went out in one datagram.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    /// Of each signal, from the first on, its kind and whether its text was cut.
    pub(super) signals: Vec<(Kind, bool)>,
}

pub(super) struct Link {
    client: Client,
    way: Way,
    tags: JoinedTags,
    /// Where messages are joined.
    packed: String,
}

/// The tags that were joined last. The samples of a build share theirs, and come one behind the other.
#[derive(Default)]
struct JoinedTags {
    /// Held, so that no other tags can get its address.
    of: Option<Arc<[Tag]>>,
    text: String,
}

impl JoinedTags {
    fn join(&mut self, tags: &Arc<[Tag]>) -> &str {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, tags)) {
            datagram::join_tags(&mut self.text, tags);
            self.of = Some(tags.clone());
        }
        &self.text
    }
}

enum Way {
    /// `door` holds the socket's inode, so that no other can get its number while we compare.
    Unix {
        path: PathBuf,
        door: File,
        knocker: UnixDatagram,
    },
    Udp {
        address: SocketAddr,
        knocker: UdpSocket,
    },
}

impl Link {
    /// So many signals are looked at for one datagram: as many as the largest usual one has room for.
    const PACKED: usize = 64;

    /// The crate would bind, and so create, the Agent's path if the Agent went away between our look and its own. It
    /// gets the path of our open descriptor instead: connecting goes through it to that very inode, while binding
    /// finds the name taken and fails. This also carries paths that are too long for a socket's address.
    pub(super) fn to_socket(path: &Path) -> Result<Self, LinkError> {
        refuse_tagging_variables()?;
        let failed = |error: io::Error| socket_error(path, error);
        let door = File::options().read(true).custom_flags(O_PATH).open(path).map_err(failed)?;
        if !door.metadata().map_err(failed)?.file_type().is_socket() {
            return Err(LinkError::NotASocket(path.to_owned()));
        }
        let through = format!("/proc/self/fd/{}", door.as_raw_fd());
        let knocker = UnixDatagram::unbound().map_err(failed)?;
        knocker.connect(&through).map_err(failed)?;
        knocker.set_nonblocking(true).map_err(failed)?;
        let mut options = OptionsBuilder::new();
        let client = Client::new(options.socket_path(Some(through)).build());
        let client = client.map_err(|DogstatsdError::IoError(error)| failed(error))?;
        Ok(Self {
            client,
            way: Way::Unix { path: path.to_owned(), door, knocker },
            tags: JoinedTags::default(),
            packed: String::new(),
        })
    }

    /// The first of the addresses where nothing says that nobody listens.
    pub(super) fn to_any_address(addresses: &[SocketAddr], name: &str) -> Result<Self, LinkError> {
        let mut refusal = LinkError::Unresolved(name.to_owned());
        for address in addresses {
            match Self::to_address(*address) {
                Ok(link) => return Ok(link),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn to_address(address: SocketAddr) -> Result<Self, LinkError> {
        refuse_tagging_variables()?;
        let failed = |source: io::Error| LinkError::Udp { address, source };
        // The crate binds to IPv4 unless told.
        let from = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let knocker = UdpSocket::bind(from).map_err(failed)?;
        knocker.connect(address).map_err(failed)?;
        knocker.set_read_timeout(Some(REFUSAL_TIME)).map_err(failed)?;
        let refused = is_refused(&knocker)
            || !address.ip().is_loopback()
                && knocker.recv(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            return Err(LinkError::Refused(address));
        }
        knocker.set_nonblocking(true).map_err(failed)?;
        let mut options = OptionsBuilder::new();
        let client = Client::new(options.from_addr(from.to_owned()).to_addr(address.to_string()).build());
        let client = client.map_err(|DogstatsdError::IoError(error)| failed(error))?;
        Ok(Self { client, way: Way::Udp { address, knocker }, tags: JoinedTags::default(), packed: String::new() })
    }

    /// By UDP, a host that is silent passes for the Agent; one that answers that the port is closed does not, and from
    /// afar that answer is heard a call later.
    pub(super) fn leads_to_the_agent(&self, addresses: &[SocketAddr]) -> bool {
        match &self.way {
            Way::Unix { path, door, .. } => {
                let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
                match (std::fs::metadata(path), door.metadata()) {
                    (Ok(now), Ok(then)) => identity(now) == identity(then),
                    _ => false,
                }
            }
            Way::Udp { address, knocker } => addresses.contains(address) && !is_refused(knocker),
        }
    }

    /// Whether a Unix socket takes datagrams again after it was full.
    pub(super) fn has_room(&self) -> bool {
        match &self.way {
            Way::Unix { knocker, .. } => knocker.send(KNOCK).is_ok(),
            Way::Udp { .. } => true,
        }
    }

    /// UDP tells nobody that a datagram was dropped, so it has to be paced.
    pub(super) fn is_lossy(&self) -> bool {
        matches!(self.way, Way::Udp { .. })
    }

    /// Sends one datagram: `first`, and as many of those behind it as fit. A build has half a dozen signals, and each
    /// datagram costs the Agent and us a system call.
    pub(super) fn send(&mut self, first: &Signal, behind: &[Signal], limit: DatagramLimit) -> Result<Sent, SendError> {
        let last_metric = behind.iter().take(Self::PACKED).rposition(|signal| matches!(signal, Signal::Metric(_)));
        let together = last_metric.and_then(|last| behind.get(..=last)).unwrap_or_default();
        match first {
            Signal::Check(check) if together.is_empty() => self.send_check(check, limit),
            Signal::Event(event) if together.is_empty() => self.send_event(event, limit),
            _ => self.send_packed(first, together, limit),
        }
    }

    fn send_check(&mut self, check: &Check, limit: DatagramLimit) -> Result<Sent, SendError> {
        let tags = self.tags.join(&check.tags);
        let words = datagram::check(check, tags, limit)?;
        let options = ServiceCheckOptions {
            timestamp: None,
            hostname: Some(&words.host),
            message: Some(&*words.message).filter(|message| !message.is_empty()),
        };
        let status = match check.status {
            Status::Ok => ServiceStatus::OK,
            Status::Warning => ServiceStatus::Warning,
            Status::Critical => ServiceStatus::Critical,
        };
        self.client.service_check(&*words.name, status, one(tags), Some(options))?;
        Ok(Sent { bytes: words.bytes, signals: vec![(Kind::check, words.shortened)] })
    }

    fn send_event(&mut self, event: &Event, limit: DatagramLimit) -> Result<Sent, SendError> {
        let tags = self.tags.join(&event.tags);
        let words = datagram::event(event, tags, limit)?;
        let options = EventOptions {
            timestamp: words.seconds,
            hostname: Some(&words.host),
            aggregation_key: Some(&*words.key).filter(|key| !key.is_empty()),
            alert_type: Some(match event.alert {
                Alert::Error => EventAlertType::Error,
                Alert::Warning => EventAlertType::Warning,
                Alert::Success => EventAlertType::Success,
                Alert::Info => EventAlertType::Info,
            }),
            ..EventOptions::new()
        };
        self.client.event_with_options(&*words.title, &*words.text, one(tags), Some(options))?;
        Ok(Sent { bytes: words.bytes, signals: vec![(Kind::event, words.shortened)] })
    }

    /// The crate writes one message. With a metric as the last, all before it can stand in front of its name.
    fn send_packed(&mut self, first: &Signal, behind: &[Signal], limit: DatagramLimit) -> Result<Sent, SendError> {
        self.packed.clear();
        let (mut signals, mut last) = (Vec::with_capacity(1 + behind.len()), None);
        for signal in std::iter::once(first).chain(behind) {
            let begin = self.packed.len();
            let written = match signal {
                Signal::Check(check) => {
                    let tags = self.tags.join(&check.tags);
                    let words = datagram::check(check, tags, limit);
                    words.map_err(SendError::from).map(|words| {
                        datagram::push_check(&mut self.packed, check.status, &words, tags);
                        (Kind::check, words.shortened, words.bytes)
                    })
                }
                Signal::Event(event) => {
                    let tags = self.tags.join(&event.tags);
                    let words = datagram::event(event, tags, limit);
                    words.map_err(SendError::from).map(|words| {
                        datagram::push_event(&mut self.packed, event.alert, &words, tags);
                        (Kind::event, words.shortened, words.bytes)
                    })
                }
                Signal::Metric(metric) => value(metric)
                    .map(|value| {
                        let tags = self.tags.join(&metric.tags);
                        let bytes = datagram::metric_bytes(metric.name.as_str(), &value, tags);
                        datagram::push_sample(&mut self.packed, metric, &value, tags);
                        (Kind::metric, false, bytes)
                    })
                    .ok_or(SendError::NotFinite),
            };
            match written {
                Ok((kind, shortened, bytes)) if begin + bytes <= limit.bytes() => {
                    signals.push((kind, shortened));
                    if let Signal::Metric(metric) = signal {
                        last = Some((metric, begin, begin + bytes, signals.len()));
                    }
                }
                // What cannot be sent at all is found out when it comes first.
                Err(error) if begin == 0 => return Err(error),
                Ok(_) | Err(_) => break,
            }
        }
        let Some((metric, begin, bytes, count)) = last else {
            return match first {
                Signal::Check(check) => self.send_check(check, limit),
                Signal::Event(event) => self.send_event(event, limit),
                Signal::Metric(_) => Err(SendError::TooLarge),
            };
        };
        signals.truncate(count);
        self.packed.truncate(begin);
        self.packed.push_str(metric.name.as_str());
        let tags = self.tags.join(&metric.tags);
        match metric.measure {
            Measure::Count(more) => self.client.count(&*self.packed, i64::from(more), one(tags))?,
            Measure::Gauge(_) => {
                self.client.gauge(&*self.packed, value(metric).ok_or(SendError::NotFinite)?, one(tags))?;
            }
        }
        Ok(Sent { bytes, signals })
    }
}

/// As it stands on the wire; `None` when it is not finite.
fn value(metric: &Metric) -> Option<String> {
    match metric.measure {
        Measure::Count(more) => Some(more.to_string()),
        Measure::Gauge(value) => sanitise::number(value),
    }
}

/// A knock is heard by no one but the kernel of a host where nobody listens, which says so.
fn is_refused(knocker: &UdpSocket) -> bool {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // The answer to the last knock comes with this one; that to this one at once, when the host is ours.
    knocker.send(KNOCK).is_err_and(|error| refused(&error))
        || matches!(knocker.take_error(), Ok(Some(error)) if refused(&error))
}

/// The crate joins tags with commas: one that holds them all costs it nothing.
fn one(tags: &str) -> impl Iterator<Item = &str> {
    Some(tags).filter(|tags| !tags.is_empty()).into_iter()
}

impl From<TooLarge> for SendError {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl From<DogstatsdError> for SendError {
    fn from(DogstatsdError::IoError(error): DogstatsdError) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted, _) | (_, Some(ENOBUFS)) => Self::Full,
            (_, Some(EMSGSIZE)) => Self::TooLarge,
            _ => Self::Broken(error),
        }
    }
}

fn socket_error(path: &Path, source: io::Error) -> LinkError {
    let path = path.to_owned();
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => LinkError::NoSocket(path),
        (io::ErrorKind::ConnectionRefused, _) => LinkError::Unanswered(path),
        (io::ErrorKind::PermissionDenied, _) => LinkError::Denied(path),
        (_, Some(EPROTOTYPE)) => LinkError::Stream(path),
        _ => LinkError::Socket { path, source },
    }
}

#[expect(clippy::disallowed_methods, reason = "asks what the dogstatsd crate is about to read, no setting of ours")]
fn refuse_tagging_variables() -> Result<(), LinkError> {
    match TAGGING_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some()) {
        Some(name) => Err(LinkError::Tagging(name)),
        None => Ok(()),
    }
}
