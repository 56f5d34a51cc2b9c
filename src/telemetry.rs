//! What recoverd says of itself: log lines on standard error, and faults to Sentry.
//!
//! An `error!` becomes an event in Sentry, a `warn!` a breadcrumb of the next event on its thread, a panic an event of its
//! own. What a log line may not hold, secrets above all, it may not hold there either; there is no second filter.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer};
use sentry::transports::{ReqwestHttpTransport, ReqwestHttpTransportOptions};
use sentry::types::Dsn;
use sentry::{ClientInitGuard, ClientOptions, Transport, TransportFactory, TransportOptions};
use tracing::Level;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, fmt as lines};

use crate::config::{LogFormat, LogSettings, SentrySettings};
use crate::domain::pod::PodIdentity;

/// They tell of each attempt that fails what `kubernetes::pods` tells once. A directive of the operator's wins.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// How long a stop waits for events that Sentry has not got yet.
const FLUSH: Duration = Duration::from_secs(2);
/// How long one event may take on its way.
const SEND: Duration = Duration::from_secs(10);

/// Ends the reporting. Dropping it waits for events under way, at most two seconds.
#[must_use = "when it is dropped, faults are no longer reported"]
pub struct TelemetryGuard(Option<ClientInitGuard>);

/// Why nothing can be logged or reported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log's level cannot be read")]
    Level(#[from] ParseError),
    #[error("the DSN cannot be read")]
    Dsn(#[from] sentry::types::ParseDsnError),
    #[error("no HTTP client for Sentry")]
    Client(#[from] reqwest::Error),
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up logging and, with a DSN, the reporting of faults, for the whole process.
///
/// To be called once, on the main thread, before the tokio runtime is built: a thread inherits what the main thread knew
/// of Sentry when the thread first asked.
///
/// # Errors
/// When the settings were not made by `Settings::load`, or on a second call.
pub fn init(log: &LogSettings, sentry: &SentrySettings, pod: &PodIdentity) -> Result<TelemetryGuard, TelemetryError> {
    let level = EnvFilter::try_new(format!("{QUIET},{}", log.level))?;
    let guard = match &sentry.dsn {
        Some(dsn) => Some(report_to(dsn.expose().trim().parse()?, pod)?),
        None => None,
    };
    let report = guard.is_some().then(|| {
        let breadcrumbs = filter_fn(|event| *event.level() == Level::WARN && is_reported(event.target()));
        let faults = filter_fn(|event| *event.level() == Level::ERROR && is_reported(event.target()));
        BreadcrumbLayer::new().with_filter(breadcrumbs).and_then(ErrorLayer::new().with_filter(faults))
    });
    let stderr = std::io::stderr();
    let text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => stderr.is_terminal(),
    };
    let colour = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    let log = if text { text_lines(std::io::stderr, colour).boxed() } else { json_lines(std::io::stderr).boxed() };
    tracing_subscriber::registry()
        .with(report.with_filter(LevelFilter::WARN))
        .with(log.with_filter(level))
        .try_init()?;
    Ok(TelemetryGuard(guard))
}

impl fmt::Debug for TelemetryGuard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TelemetryGuard").field("reports", &self.0.is_some()).finish()
    }
}

impl Drop for TelemetryGuard {
    /// The client's own end waits for a request under way, however long that takes; so it is left behind if need be.
    fn drop(&mut self) {
        let Some(client) = self.0.take() else { return };
        let (done, all_done) = sync_channel(1);
        let close = move || {
            drop(client);
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("sentry-flush".to_owned()).spawn(close).is_ok() {
            let _ = all_done.recv_timeout(FLUSH);
        }
    }
}

/// A fault in the way to Sentry itself cannot be told to Sentry, and one of the API server's is not ours.
fn is_reported(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or_default();
    let on_the_way = ["sentry", "reqwest", "hyper", "hyper_util", "rustls", "h2", "kube_client", "kube_runtime"];
    !on_the_way.contains(&root)
}

fn report_to(dsn: Dsn, pod: &PodIdentity) -> Result<ClientInitGuard, TelemetryError> {
    let mut options = ClientOptions::new()
        .release(concat!("recoverd@", env!("CARGO_PKG_VERSION")))
        .send_default_pii(false)
        .in_app_include(["recoverd"])
        .shutdown_timeout(FLUSH)
        .accept_invalid_certs(false)
        // Of the standard proxy variables, this client heeds NO_PROXY too.
        .transport(Sender(reqwest::Client::builder().timeout(SEND).build()?));
    options.dsn = Some(dsn);
    // Without a pod, the crate takes the name of the host.
    options.server_name = pod.name.clone().map(Into::into);
    let guard = sentry::init(options);
    sentry::configure_scope(|scope| {
        for (key, value) in pod.tags() {
            scope.set_tag(key, value);
        }
    });
    Ok(guard)
}

/// Sends by a client with a deadline, which the crate's own has not.
struct Sender(reqwest::Client);

impl TransportFactory for Sender {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let transport: ReqwestHttpTransport =
            ReqwestHttpTransportOptions::from(options).with_client(self.0.clone()).build();
        Arc::new(transport)
    }
}

fn text_lines<S, W>(writer: W, colour: bool) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    lines::layer().with_ansi(colour).fmt_fields(visible_fields()).log_internal_errors(false).with_writer(writer)
}

fn json_lines<S, W>(writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A line that cannot be written is lost: to say so on the same broken stream would panic.
    let layer = lines::layer().json().flatten_event(true).with_current_span(false);
    layer.log_internal_errors(false).with_writer(writer)
}

/// `key=value` for people, in which every character shows: what comes from outside begins no line, colours nothing and
/// turns no text around. tracing-subscriber itself lets a newline through.
fn visible_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|out: &mut Writer<'_>, field, value| {
        if field.name() != "message" {
            write!(out, "{field}=")?;
        }
        fmt::Write::write_fmt(&mut Visible(out), format_args!("{value:?}"))
    })
    .delimited(" ")
}

struct Visible<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Visible<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(is_treacherous) {
            match part.chars().next_back().filter(|last| is_treacherous(*last)) {
                Some(last) => {
                    self.0.write_str(part.get(..part.len() - last.len_utf8()).unwrap_or_default())?;
                    write!(self.0, "{}", last.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Controls, separators of lines, and marks that change the direction of writing.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use tracing::{error, info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(colour: Option<bool>, log: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let make = move || writer.clone();
        let registry = tracing_subscriber::registry();
        match colour {
            Some(colour) => tracing::subscriber::with_default(registry.with(text_lines(make, colour)), log),
            None => tracing::subscriber::with_default(registry.with(json_lines(make)), log),
        }
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    const HOSTILE: &str = "web\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[31m\u{9b}31m\u{7f}\u{202e}\u{2028}end";

    fn log_everywhere() {
        let span = info_span!("build", job = %HOSTILE, raw = HOSTILE);
        let _entered = span.enter();
        let fault = io::Error::other(HOSTILE);
        info!(job = %HOSTILE, raw = HOSTILE, debug = ?HOSTILE, fault = &fault as &dyn std::error::Error, "{HOSTILE}");
        error!("{HOSTILE}");
    }

    #[test]
    fn what_comes_from_outside_cannot_forge_a_line() {
        let plain = written(Some(false), log_everywhere);
        assert_eq!(plain.lines().count(), 2, "{plain}");
        assert!(plain.chars().all(|c| c == '\n' || !is_treacherous(c)), "{plain:?}");
        assert!(plain.contains("job=web\\n2026"), "{plain}");

        let coloured = written(Some(true), log_everywhere);
        assert_eq!(coloured.lines().count(), 2, "{coloured}");
        assert!(!coloured.contains("\u{1b}[31m\\u{9b}") && !coloured.contains('\u{9b}'), "{coloured:?}");
        let stripped = anstream::adapter::strip_str(&coloured).to_string();
        assert!(stripped.contains("\\u{1b}[31m") && stripped.chars().all(|c| c == '\n' || !is_treacherous(c)));

        let json = written(None, log_everywhere);
        assert_eq!(json.lines().count(), 2, "{json}");
        for line in json.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["message"], HOSTILE);
            assert!(object["timestamp"].is_string() && object["level"].is_string(), "{object}");
            assert_eq!(object["spans"][0]["job"], HOSTILE);
        }
    }

    #[test]
    fn an_unharmful_line_is_left_as_it_is() {
        let text = written(Some(false), || info!(job = %"acme/wéb", number = 7, "build \"done\""));
        assert!(text.ends_with("build \"done\" job=acme/wéb number=7\n"), "{text}");
    }

    #[test]
    fn faults_on_the_way_to_sentry_are_not_sent_there() {
        for target in ["hyper_util::client", "reqwest", "rustls::conn"] {
            assert!(!is_reported(target), "{target}");
        }
        assert!(is_reported("recoverd::flow") && is_reported("hyperion"));
    }
}
