//! The Sentry behind a relay: a pool of connections to it, and what goes over them.
//!
//! A connection stays on the thread that it was made on: whoever asks waits for it without waking anybody else. So each thread
//! of a crew has connections of its own, and all other threads share some.

mod line;
mod payload;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use http::uri::{Authority as HostAndPort, PathAndQuery, Scheme, Uri};
use hyper::body::{Body, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt as _;
use url::Url;

use crate::machinery::crew;
use crate::machinery::http1::{Extent, Fields, Reply, is_same, put_field, put_length};
use line::{Fault, Head, Line, Outgoing};
pub use payload::Payload;

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
    /// `None` when `address` is none, or of a proxy that is spoken to in another way.
    pub fn parse(address: &str) -> Option<Self> {
        let matcher = Matcher::builder().all(address.to_owned()).build();
        let by = matcher.intercept(&Uri::from_static("https://sentry.invalid/"))?;
        (by.uri().scheme() == Some(&Scheme::HTTP)).then(|| Self(Arc::new(matcher)))
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
    /// From the request to the head of its answer, and between two pieces of that. Large bodies get more.
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
    #[error("cannot connect: {}", innermost(&**.0))]
    Unreachable(ConnectError),
    #[error("no answer in time")]
    Timeout,
    #[error("the connection broke: {}", innermost(.0))]
    Broken(io::Error),
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
fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// One Sentry. Clones share its connections.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

struct Shared {
    scheme: Scheme,
    host: HostAndPort,
    /// As the `Host` header says it: a port that goes without saying is left out.
    named: Box<str>,
    /// Two of one host differ by their paths.
    name: Box<str>,
    /// Without the slash at its end.
    prefix: Box<str>,
    connector: Connector,
    way: Way,
    /// By the seats of a crew.
    pools: [Mutex<Pool>; crew::MOST + 1],
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Upstream({}://{})", self.0.scheme, self.0.host)
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
        let usual = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let named = match host.port_u16().filter(|port| *port != usual) {
            Some(port) => format!("{}:{port}", host.host()),
            None => host.host().to_owned(),
        };
        let prefix = url.path().trim_end_matches('/');
        let (name, prefix) = (format!("{host}{prefix}").into(), prefix.into());
        let (named, way, pools) = (named.into(), way.clone(), Default::default());
        Ok(Self(Arc::new(Shared { scheme, host, named, name, prefix, connector, way, pools })))
    }

    /// Host, port and path, for people and metrics.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Sends a request to a path, and returns the answer's head as soon as it is there. Of the `fields` those that belong to
    /// the connection, and the body's length, are not for the caller to say.
    ///
    /// # Errors
    /// When there is none. What had been sent until then may have taken effect.
    ///
    /// # Cancel safety
    /// Dropped, the request may arrive or not.
    pub async fn send(
        &self,
        method: &Method,
        target: &Uri,
        fields: &Fields,
        payload: Payload<'_>,
    ) -> Result<Reply<AnswerBody>, NoAnswer> {
        let shared = &self.0;
        let deadline = Instant::now() + shared.way.patience(payload.size());
        shared.ask(Outgoing::new(shared.head(method, target, fields, payload.size()), payload, method), deadline).await
    }
}

/// Headers that each connection says anew.
const OURS: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

impl Shared {
    fn head(&self, method: &Method, target: &Uri, fields: &Fields, bytes: u64) -> Vec<u8> {
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        let joined = usize::try_from(bytes.min(line::JOINED)).unwrap_or_default();
        let mut head = Vec::with_capacity(1024 + joined);
        let parts = [method.as_str(), " ", &self.prefix, target, " HTTP/1.1\r\nhost: ", &self.named, "\r\n"];
        for part in parts {
            head.extend_from_slice(part.as_bytes());
        }
        for (name, value) in fields.iter() {
            if !OURS.iter().any(|ours| is_same(name, ours)) {
                put_field(&mut head, name, value);
            }
        }
        if bytes > 0 || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            put_length(&mut head, bytes);
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    async fn ask(
        self: &Arc<Self>,
        mut request: Outgoing<'_>,
        deadline: Instant,
    ) -> Result<Reply<AnswerBody>, NoAnswer> {
        while let Some(mut line) = self.kept().await {
            match line.exchange(&mut request, deadline).await {
                // Sentry has closed it in this moment, and got nothing.
                Err(Fault::Broken(_)) if request.is_whole() => {}
                exchanged => return self.answer(line, exchanged),
            }
        }
        let connected = tokio::time::timeout_at(deadline, self.connect()).await.map_err(|_| NoAnswer::Timeout)?;
        let mut line = connected.map_err(NoAnswer::Unreachable)?;
        let exchanged = line.exchange(&mut request, deadline).await;
        self.answer(line, exchanged)
    }

    /// A connection that has been used before, and is still open.
    async fn kept(&self) -> Option<Connection> {
        loop {
            let mut line = self.pool()?.lines.pop()?.line;
            if poll_fn(|context| Poll::Ready(line.is_quiet(context))).await {
                return Some(line);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let uri =
            Uri::builder().scheme(self.scheme.clone()).authority(self.host.clone()).path_and_query("/").build()?;
        Ok(Box::new(Line::new(TokioIo::new(self.connector.clone().oneshot(uri).await?))))
    }

    fn answer(
        self: &Arc<Self>,
        mut line: Connection,
        exchanged: Result<Head, Fault>,
    ) -> Result<Reply<AnswerBody>, NoAnswer> {
        let Head { status, fields, mut extent, is_kept } = exchanged.map_err(|fault| match fault {
            // The connection, on which an answer may yet come, is closed.
            Fault::Late => NoAnswer::Timeout,
            Fault::Broken(error) => NoAnswer::Broken(error),
            Fault::Unreadable => NoAnswer::Unreadable,
        })?;
        let body = if let Some((bytes, is_at_end)) = line.whole_body(&mut extent) {
            if is_kept && is_at_end {
                self.keep(line);
            }
            Coming::Whole(bytes)
        } else {
            let home = is_kept.then(|| self.clone());
            let patience = self.way.timeout;
            Coming::Read(Box::new(OnItsWay { line: Some(line), extent, home, patience, silence: None }))
        };
        Ok(Reply { status, fields, body: AnswerBody(body) })
    }

    fn pool(&self) -> Option<MutexGuard<'_, Pool>> {
        self.pools.get(crew::seat()).map(|pool| pool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(self: &Arc<Self>, line: Connection) {
        let Some(mut pool) = self.pool() else { return };
        if pool.lines.len() >= IDLE_CONNECTIONS {
            return;
        }
        pool.lines.push(Kept { line, sweeps: 0 });
        if !std::mem::replace(&mut pool.is_watched, true) {
            watch(Arc::downgrade(self));
        }
    }

    /// Closes what has been silent for too long, or has been closed. Returns whether any is left.
    fn sweep(&self) -> bool {
        let Some(mut pool) = self.pool() else { return false };
        let mut nobody = Context::from_waker(Waker::noop());
        pool.lines.retain_mut(|kept| {
            kept.sweeps += 1;
            kept.sweeps <= IDLE_SWEEPS && kept.line.is_quiet(&mut nobody)
        });
        pool.is_watched = !pool.lines.is_empty();
        pool.is_watched
    }
}

/// Large, since it may be one with TLS: it goes from hand to hand by its place.
type Connection = Box<Line<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>;

/// Connections that nobody uses.
#[derive(Default)]
struct Pool {
    lines: Vec<Kept>,
    is_watched: bool,
}

struct Kept {
    line: Connection,
    /// That it has outlasted: they tell the time well enough.
    sweeps: u64,
}

/// Ends with the last of the connections.
#[expect(clippy::disallowed_methods, reason = "it holds nothing that a stop would have to wait for")]
fn watch(upstream: Weak<Shared>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            if !upstream.upgrade().is_some_and(|upstream| upstream.sweep()) {
                return;
            }
        }
    });
}

/// The body of an answer. Dropped before its end, it takes its connection with it.
#[derive(Debug)]
pub struct AnswerBody(Coming);

#[derive(Debug)]
enum Coming {
    Whole(Bytes),
    Read(Box<OnItsWay>),
}

struct OnItsWay {
    /// None at the end.
    line: Option<Connection>,
    extent: Extent,
    /// Where the connection is kept, if it can be.
    home: Option<Arc<Shared>>,
    /// So long it may be silent.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for OnItsWay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OnItsWay({:?})", self.extent)
    }
}

impl OnItsWay {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(line) = &mut self.line else { return Poll::Ready(Ok(None)) };
        let Poll::Ready(next) = line.poll_body(context, &mut self.extent) else {
            let patience = self.patience;
            let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(silence.as_mut().poll(context));
            self.line = None;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        self.silence = None;
        let is_over = !matches!(next, Ok(Some(_))) || self.extent.left() == Some(0);
        if is_over
            && let Some(line) = self.line.take()
            && let Some(home) = self.home.take()
            && next.is_ok()
            && line.is_at_end(&self.extent)
        {
            home.keep(line);
        }
        Poll::Ready(next)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = match &mut self.0 {
            Coming::Whole(bytes) if bytes.is_empty() => None,
            Coming::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Coming::Read(body) => ready!(body.poll_next(context)).transpose(),
        };
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Coming::Whole(bytes) => bytes.is_empty(),
            Coming::Read(body) => body.line.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.0 {
            Coming::Whole(bytes) => Some(bytes.len() as u64),
            Coming::Read(body) => body.extent.left(),
        };
        left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Shorter than servers keep a silent connection open, as nginx does for 75 s: to be the one who closes it is to lose no request on it.
const IDLE_SWEEPS: u64 = 20;
/// Of one seat.
const IDLE_CONNECTIONS: usize = 128;
const SWEEP: Duration = Duration::from_secs(1);

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

/// Why there is no connection.
pub type ConnectError = Box<dyn std::error::Error + Send + Sync>;

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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn upstream(url: &str) -> Upstream {
        let second = Duration::from_secs(1);
        let way = Way { connect_timeout: second, timeout: second, authorities: Vec::new(), proxy: None };
        Upstream::new(&url.parse().unwrap(), &way).unwrap()
    }

    #[test]
    fn upstreams_of_one_host_have_names_of_their_own() {
        let table = [
            ("https://s.example/", "s.example"),
            ("https://s.example:8443/", "s.example:8443"),
            ("https://s.example/a/", "s.example/a"),
            ("https://s.example/b/c/", "s.example/b/c"),
        ];
        for (url, name) in table {
            assert_eq!(upstream(url).name(), name);
        }
    }

    #[tokio::test]
    async fn what_a_kept_connection_does_not_take_goes_by_a_new_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = upstream(&format!("http://{address}/"));
        // Nothing tells that it is broken until something is written, and it is closed only then.
        let mut broken = TcpStream::connect(address).await.unwrap();
        broken.shutdown().await.unwrap();
        upstream.0.keep(Box::new(Line::new(TokioIo::new(MaybeHttpsStream::Http(TokioIo::new(broken))))));
        let answering = async {
            drop(listener.accept().await.unwrap());
            let (mut asked, _) = listener.accept().await.unwrap();
            assert!(asked.read(&mut [0; 1_024]).await.unwrap() > 0);
            asked.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            asked
        };
        let (target, fields) = (Uri::from_static("/api/7/store/"), Fields::default());
        let asking =
            async { tokio::join!(upstream.send(&Method::POST, &target, &fields, Payload::held(&[])), answering) };
        let (answer, _asked) = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("nobody connects");
        assert_eq!(answer.unwrap().status, 204);
    }
}
