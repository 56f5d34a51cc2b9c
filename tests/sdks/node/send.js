// Sends one of each kind that the SDK has, to the DSN in SENTRY_DSN.
//
// The transaction is first: Bugsink's answer asks for no more of them.
import * as Sentry from "@sentry/node";

const PATIENCE = 20_000;

Sentry.init({ release: "shop@1.0.0", environment: "tests", tracesSampleRate: 1.0, enableLogs: true });

Sentry.startSpan({ op: "task", name: "a transaction" }, () => {
  Sentry.startSpan({ op: "db", name: "SELECT 1" }, () => {});
});
await Sentry.flush(PATIENCE);

Sentry.startSession();
Sentry.captureException(new RangeError("an error of \u00fcber \u2713"));
Sentry.endSession();

Sentry.captureMessage("a message");

// Half a character: Bugsink makes no event of it, Sentry does.
Sentry.captureMessage("half of \ud83d");

Sentry.withScope((scope) => {
  scope.setTag("pod_name", "my-own");
  Sentry.captureMessage("a message with a pod of its own");
});

Sentry.withScope((scope) => {
  // More than 32 KiB, from which on this SDK compresses.
  const bytes = Uint8Array.from({ length: 256 * 300 }, (_, at) => at % 256);
  scope.addAttachment({ data: bytes, filename: "every-byte.bin" });
  Sentry.captureMessage("a message with an attachment");
});

Sentry.logger.info("a log");
Sentry.logger.warn("a log with a pod of its own", { pod_name: "my-own" });

Sentry.captureCheckIn({ monitorSlug: "nightly", status: "ok", duration: 1.5 });

Sentry.captureFeedback({ message: "a feedback", email: "someone@shop.example" });

await Sentry.close(PATIENCE);
