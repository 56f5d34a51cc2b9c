//! `recoverd serve`.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::app::{Addresses, Bound, Running};
use crate::config::{Environment, Settings};
use crate::kubernetes::downward;
use crate::machinery::clock::Clock;
use crate::machinery::supervise::Ended;
use crate::telemetry;

pub(super) fn run(settings: &Settings, environment: &Environment) -> anyhow::Result<Exit> {
    let pod = downward::from_environment(environment);
    // Before the runtime, so that its threads report to Sentry as well.
    let _telemetry = telemetry::init(&settings.log, &settings.sentry, &pod)?;
    let pod = downward::with_volume(&settings.kubernetes.downward_dir, &pod).unwrap_or_else(|error| {
        tracing::warn!(%error, "the Downward API's volume cannot be read, its labels and annotations are missing");
        pod
    });
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let exit = runtime.block_on(async {
        let deadline = settings.shutdown_deadline;
        let running = Bound::bind(settings).await?.start(settings, pod, Clock::system())?;
        announce(&running, settings);
        let failed = running.failed();
        tokio::select! {
            () = signalled() => tracing::info!("stopping: finishing what was begun"),
            () = failed.cancelled() => {}
        }
        let ended = tokio::select! {
            ended = running.end(deadline) => ended,
            () = signalled() => Ended::Cut,
        };
        anyhow::Ok(match ended {
            Ended::Drained => {
                tracing::info!("stopped");
                Exit::Success
            }
            Ended::Cut => {
                tracing::warn!(
                    "stopped before all was done: what was acknowledged is stored, and told after the next start"
                );
                Exit::Failure
            }
            Ended::Failed => Exit::Failure,
        })
    });
    runtime.shutdown_background();
    exit
}

fn announce(running: &Running, settings: &Settings) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        webhooks = %running.addresses.webhooks,
        admin = %running.addresses.admin,
        relay = running.addresses.relay.map(tracing::field::display),
        datadog = settings.datadog.dogstatsd,
        data_dir = %settings.data_dir.display(),
        "recoverd is ready"
    );
    let Addresses { tcp, udp, .. } = &running.addresses;
    for address in tcp {
        tracing::info!(%address, "documents are taken as raw TCP too, without a token");
    }
    for address in udp {
        tracing::info!(%address, "documents are taken as datagrams too, without a token");
    }
}

/// SIGTERM or SIGINT. Each call waits for one more.
async fn signalled() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the system's own apply: the first signal ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
