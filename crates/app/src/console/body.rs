//! What a form sends, taken in before anything else is done with it.

use std::time::Duration;

use axum::{
    body::{self, Body},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::FORM_LEN_MAX;

/// How long a form may take to come: 64 KiB in this time is 6.4 KiB a second.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Threat: whoever sends a byte now and then keeps a connection for ever, and forms are taken before it
/// is known who sends them.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    // No page reads a body.
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (parts, sent) = request.into_parts();
    match timeout(BODY_TIME_MAX, body::to_bytes(sent, FORM_LEN_MAX)).await {
        Ok(Ok(bytes)) => {
            next.run(Request::from_parts(parts, Body::from(bytes)))
                .await
        }
        Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.\n").into_response(),
        Err(_) => (
            StatusCode::REQUEST_TIMEOUT,
            "The form did not come in time.\n",
        )
            .into_response(),
    }
}
