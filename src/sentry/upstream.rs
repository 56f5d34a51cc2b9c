//! The Sentry behind a relay: a pool of connections to it, and what goes over them.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::uri::{Authority as HostAndPort, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use url::Url;

/// A certificate authority.
pub type Authority = CertificateDer<'static>;

/// The certificates of a PEM file.
///
/// # Errors
/// One line that says what is wrong with it.
pub fn read_authorities(file: &Path) -> Result<Vec<Authority>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| error.to_string())?;
    if read.is_empty() { Err("it has no certificate; it must be PEM".to_owned()) } else { Ok(read) }
}

/// An HTTP proxy, through which every connection is a tunnel (RFC 9110, `CONNECT`).
#[derive(Clone)]
pub struct Proxy(Arc<Matcher>);

impl fmt::Debug for Proxy {
    /// Its address may hold a password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Proxy")
    }
}

impl Proxy {
    /// `None` when `address` is none.
    pub fn parse(address: &str) -> Option<Self> {
        let matcher = Matcher::builder().all(address.to_owned()).build();
        matcher.intercept(&Uri::from_static("https://sentry.invalid/"))?;
        Some(Self(Arc::new(matcher)))
    }

    /// As `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    fn from_environment() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }
}

/// How an upstream is reached.
#[derive(Clone, Debug)]
pub struct Way {
    /// For a connection, the tunnel through a proxy included, but not the TLS handshake.
    pub connect_timeout: Duration,
    /// From the request to the head of its answer. Large bodies get more.
    pub timeout: Duration,
    /// Besides those of the system.
    pub authorities: Vec<Authority>,
    /// `None`: what the environment says.
    pub proxy: Option<Proxy>,
}

impl Way {
    /// Slower lines than this do not get a large body through, in bytes a second.
    const SLOWEST: u64 = 64 * 1024;

    fn patience(&self, bytes: u64) -> Duration {
        self.timeout + Duration::from_secs(bytes.saturating_sub(1 << 20) / Self::SLOWEST)
    }
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("its address cannot be one of a request")]
    Address,
    #[error("its certificate cannot be checked")]
    Tls(#[source] rustls::Error),
}

/// Why there is no answer. The request may have arrived all the same.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("cannot connect: {}", innermost(.0))]
    Unreachable(ClientError),
    #[error("no answer in time")]
    Timeout,
    #[error("the connection broke: {}", innermost(.0))]
    Broken(ClientError),
    /// The body could not be read to its end: that is not the upstream's fault.
    #[error("what was kept cannot be read")]
    Unreadable,
}

impl NoAnswer {
    /// As a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken(_) => "broken",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What it was in the end: the outer ones say no more than that something failed.
fn innermost(error: &ClientError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// One Sentry. Clones share its connections.
#[derive(Clone)]
pub struct Upstream {
    scheme: Scheme,
    host: HostAndPort,
    /// Without the slash at its end.
    prefix: Arc<str>,
    client: Client<Connector, Payload>,
    way: Arc<Way>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Upstream({}://{})", self.scheme, self.host)
    }
}

impl Upstream {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When `url` has no host, or no certificate could ever be checked.
    pub fn new(url: &Url, way: &Way) -> Result<Self, UpstreamError> {
        let uri: Uri = url.as_str().parse().map_err(|_| UpstreamError::Address)?;
        let (Some(scheme), Some(host)) = (uri.scheme().cloned(), uri.authority().cloned()) else {
            return Err(UpstreamError::Address);
        };
        let tls = tls(&way.authorities).map_err(UpstreamError::Tls)?;
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_connect_timeout(Some(way.connect_timeout));
        plain.set_keepalive(Some(Duration::from_secs(30)));
        let proxy = way.proxy.clone().unwrap_or_else(Proxy::from_environment);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Road { plain, proxy, patience: way.connect_timeout });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let prefix = url.path().trim_end_matches('/').into();
        Ok(Self { scheme, host, prefix, client, way: Arc::new(way.clone()) })
    }

    /// Host and port, for people and metrics.
    pub fn name(&self) -> &str {
        self.host.as_str()
    }

    /// Sends a request whose URI is a path, and returns the answer's head as soon as it is there.
    ///
    /// # Errors
    /// When there is none. What had been sent until then may have taken effect.
    ///
    /// # Cancel safety
    /// Dropped, the request may arrive or not.
    pub async fn send(&self, mut request: Request<Payload>) -> Result<Response<Incoming>, NoAnswer> {
        *request.uri_mut() = self.address(request.uri());
        let patience = self.way.patience(request.body().size());
        let unread = request.body().fault();
        let answer = tokio::time::timeout(patience, self.client.request(request)).await;
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) if unread.is_set() => Err(NoAnswer::Unreadable),
            Ok(Err(error)) if error.is_connect() => Err(NoAnswer::Unreachable(error)),
            Ok(Err(error)) => Err(NoAnswer::Broken(error)),
            // The connection, on which an answer may yet come, is closed: hyper sees that nobody waits for it.
            Err(_) => Err(NoAnswer::Timeout),
        }
    }

    fn address(&self, target: &Uri) -> Uri {
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = if self.prefix.is_empty() { target.parse() } else { format!("{}{target}", self.prefix).parse() };
        let path: PathAndQuery = path.unwrap_or_else(|_| PathAndQuery::from_static("/"));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.host.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Shorter than servers keep a silent connection open, as nginx does for 75 s: to be the one who closes it is to lose no request on it.
const IDLE: Duration = Duration::from_secs(20);
const IDLE_CONNECTIONS: usize = 128;

fn tls(authorities: &[Authority]) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

type Connector = HttpsConnector<Road>;

/// To the upstream itself, or through a proxy.
#[derive(Clone)]
struct Road {
    plain: HttpConnector,
    proxy: Proxy,
    patience: Duration,
}

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for Road {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { mut plain, proxy, patience } = self.clone();
        Box::pin(async move {
            let Some(by) = proxy.0.intercept(&to) else {
                return plain.call(to).await.map_err(Into::into);
            };
            let mut tunnel = Tunnel::new(by.uri().clone(), plain);
            if let Some(credentials) = by.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            // A proxy that takes the connection and says nothing would hold the request for good.
            tokio::time::timeout(patience, tunnel.call(to)).await?.map_err(Into::into)
        })
    }
}

/// A body on its way to an upstream. Its length is always known.
pub struct Payload {
    content: Content,
    left: u64,
    fault: Fault,
}

enum Content {
    Held(VecDeque<Bytes>),
    /// Read as it is sent.
    Read(Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>),
}

/// Whether a body failed to be read.
#[derive(Clone, Debug, Default)]
struct Fault(Option<Arc<std::sync::atomic::AtomicBool>>);

impl Fault {
    fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|fault| fault.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn set(&self) {
        if let Some(fault) = &self.0 {
            fault.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Payload({} bytes)", self.left)
    }
}

impl Payload {
    /// Joins small pieces: one write costs less than many.
    const JOINED: u64 = 16 * 1024;

    pub fn held(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let mut pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        if pieces.len() > 1 && left <= Self::JOINED {
            let mut joined = Vec::with_capacity(usize::try_from(left).unwrap_or_default());
            for piece in &pieces {
                joined.extend_from_slice(piece);
            }
            pieces = VecDeque::from([joined.into()]);
        }
        Self { content: Content::Held(pieces), left, fault: Fault::default() }
    }

    /// A stream of `bytes` in all. One that ends early, or fails, breaks the request off.
    pub fn read(bytes: u64, stream: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static) -> Self {
        Self { content: Content::Read(Box::pin(stream)), left: bytes, fault: Fault(Some(Arc::default())) }
    }

    fn size(&self) -> u64 {
        self.left
    }

    fn fault(&self) -> Fault {
        self.fault.clone()
    }
}

impl hyper::body::Body for Payload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let left = self.left;
        let next = match &mut self.content {
            Content::Held(pieces) => pieces.pop_front().map(Ok),
            Content::Read(_) if left == 0 => None,
            Content::Read(stream) => match std::task::ready!(stream.as_mut().poll_next(context)) {
                None => Some(Err(std::io::ErrorKind::UnexpectedEof.into())),
                next => next,
            },
        };
        match &next {
            Some(Ok(piece)) => self.left = self.left.saturating_sub(piece.len() as u64),
            Some(Err(_)) => self.fault.set(),
            None => {}
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
