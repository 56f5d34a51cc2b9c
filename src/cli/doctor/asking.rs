//! Asks something over HTTP, and says in few words why there was no answer.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, Url};

use crate::cli::admin_api::client;

/// For one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `url` what `ask` makes of it.
///
/// # Errors
/// The innermost reason, in words.
pub(super) async fn answer(url: &Url, ask: impl FnOnce(&Client, Url) -> RequestBuilder) -> Result<Response, String> {
    let client = client(url).map_err(|error| error.to_string())?;
    match ask(&client, url.clone()).timeout(PATIENCE).send().await {
        Ok(response) => Ok(response),
        Err(error) if error.is_timeout() => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        Err(error) => {
            let mut cause: &dyn Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            Err(cause.to_string())
        }
    }
}
