//! Commands of the command line that are asked for from elsewhere: `holdfast --server URL COMMAND`.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use scan::token::Role;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use super::{Principal, Shared, auth, call::Problem};
use crate::{
    http::answer,
    remote::{
        Asked,
        carry::{self, Refused, Surroundings},
        standing::Standing,
    },
};

/// Commands at a time, each a process of its own.
pub(super) const CARRIED_MAX: usize = 4;
/// Commands that come in at a time: a slow sender keeps nobody from a place above.
pub(super) const COMING_MAX: usize = 8;
/// Longest command with the files that go along, as Base64: an ARF of oscap has 15 MB.
const BODY_LEN_MAX: usize = 64 << 20;
/// How long it may take to come: over a slow line.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) async fn carry(
    shared: Arc<Shared>,
    principal: Principal,
    peer: Option<std::net::IpAddr>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if !super::route::is_json(headers) {
        return Err(super::route::not_json());
    }
    let coming = Arc::clone(&shared.coming).try_acquire_owned();
    let coming =
        coming.map_err(|_| Problem::busy("too many commands at a time; ask again later"))?;
    let taken = timeout(BODY_TIME_MAX, take(body)).await;
    let body = taken.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "TOO_SLOW",
            "the body did not come in time",
        )
    })??;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the body is not a command: {error}")))?;
    drop((body, coming));
    let place = Arc::clone(&shared.carried).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("too many commands at a time; ask again later"))?;
    let around = surroundings(&shared, &principal);
    let done = tokio::task::spawn_blocking(move || {
        let done = carry::carry_out(asked, &around);
        drop(place);
        done
    });
    // A panic was told by the panic hook.
    let done = done.await.map_err(|_| failed("the work was lost"))?;
    let done = done.map_err(|refused| match refused {
        Refused::Invalid(detail) => Problem::invalid(detail),
        Refused::Failed(detail) => {
            tracing::error!(detail, "a command was not carried out");
            failed("the command could not be carried out; the log of the server tells more")
        }
        Refused::Denied(detail) => {
            auth::denied(&shared, &principal, peer, "carryOut");
            Problem::new(StatusCode::FORBIDDEN, "ROLE", detail)
        }
    })?;
    let body = serde_json::to_vec(&done).expect("a plain struct with string keys");
    Ok(answer::response(
        StatusCode::OK,
        "application/json",
        Bytes::from(body),
    ))
}

fn surroundings(shared: &Shared, principal: &Principal) -> Surroundings {
    Surroundings {
        actor: principal.actor(),
        standing: match principal.role {
            Role::Viewer => Standing::Viewer,
            Role::Auditor => Standing::Auditor,
            Role::Operator => Standing::Operator,
            Role::Admin => Standing::Admin,
        },
        data_dir: shared.dir.clone(),
        config: shared.config.file.clone(),
        stop: shared.stop.clone(),
    }
}

fn failed(detail: &str) -> Problem {
    Problem {
        retry_after: Some(30),
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "FAILED", detail)
    }
}

async fn take(body: Body) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body broke off"))?;
        if bytes.len() + chunk.len() > BODY_LEN_MAX {
            let detail = format!("a command of more than {BODY_LEN_MAX} bytes");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "TOO_LARGE",
                detail,
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
