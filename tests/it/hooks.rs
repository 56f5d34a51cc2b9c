//! Sentry's part: webhooks as it posts them, signed by somebody else than who verifies them.

use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::world::World;

/// The client secret of `acme`, the integration in these tests.
pub const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// The token of its old plugin.
pub const PLUGIN_TOKEN: &str = "a-token-for-the-old-plugin";

/// One integration, `acme`.
pub fn integration() -> String {
    format!("[[sentry.integrations]]\nname = \"acme\"\nsecrets = [\"{SECRET}\"]\ntokens = [\"{PLUGIN_TOKEN}\"]\n")
}

/// A document as Sentry posts it; see `tests/fixtures/sentry`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sentry").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// HMAC-SHA256 in hexadecimal, by OpenSSL. The secret has no white space.
pub async fn sign(secret: &str, body: &[u8]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-hmac", secret, "-r"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = openssl.spawn().expect("openssl is there; ci/install brings it");
    let mut stdin = openssl.stdin.take().unwrap();
    stdin.write_all(body).await.unwrap();
    drop(stdin);
    let output = openssl.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Seconds since 1970, as Sentry's clock says.
#[expect(clippy::disallowed_methods, reason = "Sentry's clock is not recoverd's")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// To `acme` or below it, with the headers of this resource but for the signature.
pub fn hook(world: &World, path: &str, resource: &str, at: u64) -> RequestBuilder {
    let url = format!("http://{}/sentry/{path}", world.running.addresses.webhooks);
    let request = world.client.post(url).header("content-type", "application/json");
    let request = request.header("request-id", format!("{at}")).header("sentry-hook-timestamp", at.to_string());
    request.header("sentry-hook-resource", resource)
}

/// The status, and the answer.
pub async fn answered(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// Posts to `acme` what happened at this second, signed. The status, and the answer's `result`.
pub async fn post_hook_at(world: &World, resource: &str, body: impl Into<Vec<u8>>, at: u64) -> (u16, String) {
    let body = body.into();
    let signature = sign(SECRET, &body).await;
    let request = hook(world, "acme", resource, at).header("sentry-hook-signature", signature).body(body);
    let (status, answer) = answered(request).await;
    (status, answer["result"].as_str().unwrap_or_default().to_owned())
}

/// The same, of what happens now.
pub async fn post_hook(world: &World, resource: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
    post_hook_at(world, resource, body, now()).await
}
