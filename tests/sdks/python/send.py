"""Sends one of each kind that the SDK has, to the DSN in SENTRY_DSN.

The transaction is first: Bugsink's answer asks for no more of them.
"""

import os

import sentry_sdk
from sentry_sdk import crons

PATIENCE = 20

sentry_sdk.init(
    release="shop@1.0.0",
    environment="tests",
    traces_sample_rate=1.0,
    enable_logs=True,
    _experiments={"transport_compression_algo": os.environ.get("COMPRESSION", "br")},
)

with sentry_sdk.start_transaction(op="task", name="a transaction"):
    with sentry_sdk.start_span(op="db", name="SELECT 1"):
        pass
sentry_sdk.flush(PATIENCE)

scope = sentry_sdk.get_isolation_scope()
scope.start_session(session_mode="application")
try:
    raise ValueError("an error of \u00fcber \u2713")
except ValueError:
    sentry_sdk.capture_exception()
scope.end_session()

sentry_sdk.capture_message("a message")

# Half a character: Bugsink makes no event of it, Sentry does.
sentry_sdk.capture_message("half of \ud83d")

with sentry_sdk.new_scope() as scope:
    scope.set_tag("pod_name", "my-own")
    sentry_sdk.capture_message("a message with a pod of its own")

with sentry_sdk.new_scope() as scope:
    scope.add_attachment(bytes=bytes(range(256)) * 300, filename="every-byte.bin")
    sentry_sdk.capture_message("a message with an attachment")

sentry_sdk.logger.info("a log")
sentry_sdk.logger.warning("a log with a pod of its own", attributes={"pod_name": "my-own"})

crons.capture_checkin(monitor_slug="nightly", status="ok", duration=1.5)

sentry_sdk.get_client().close(PATIENCE)
