//! What a webhook that was taken in is answered with.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

pub(super) fn answer(status: StatusCode, result: &'static str, detail: Option<&str>) -> Response {
    let body = match detail {
        Some(detail) => json!({ "result": result, "detail": detail }).to_string(),
        None => format!("{{\"result\":\"{result}\"}}"),
    };
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
