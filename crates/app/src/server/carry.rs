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

use super::{Place, Principal, Shared, auth, call::Problem, role};
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
/// What a viewer may send: its commands read a rule or a key at most.
const VIEWER_BODY_LEN_MAX: usize = 1 << 20;
/// A body beyond this takes one of the places for large ones.
const LARGE_LEN: usize = 1 << 20;
/// Large commands at a time, from their second MiB until they are done: one is in memory up to four
/// times, as text, decoded, on its way to the process and in it, so that two of them stay below 600 MiB.
pub(super) const LARGE_MAX: usize = 2;
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
    let coming = shared.coming.take(&principal.name).ok_or_else(busy)?;
    let taken = timeout(BODY_TIME_MAX, take(body, &shared, &principal)).await;
    let (body, large) = taken.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "TOO_SLOW",
            "the body did not come in time",
        )
    })??;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the body is not a command: {error}")))?;
    drop((body, coming));
    let place = shared.carried.take(&principal.name).ok_or_else(busy)?;
    let around = surroundings(&shared, &principal);
    let recorded = shared.store.clone();
    let done = tokio::task::spawn_blocking(move || {
        let done = carry::carry_out(asked, &around);
        drop((place, large));
        done
    });
    // A panic was told by the panic hook.
    let done = done.await.map_err(|_| failed("the work was lost"))?;
    let done = done.map_err(|refused| match refused {
        Refused::Changes => match role::must_write(&shared) {
            Err(problem) => problem,
            Ok(()) => role::changing("this node begins to write"),
        },
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
    let mut response = answer::response(StatusCode::OK, "application/json", Bytes::from(body));
    if let Some(commit) = recorded.newest_here() {
        response
            .headers_mut()
            .insert(role::LSN, commit.lsn.get().into());
    }
    Ok(response)
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
        is_writer: role::must_write(shared).is_ok(),
    }
}

fn busy() -> Problem {
    Problem::busy("too many commands at a time; ask again later")
}

fn failed(detail: &str) -> Problem {
    Problem {
        retry_after: Some(30),
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "FAILED", detail)
    }
}

/// The body, with the place that a large one takes.
async fn take(
    body: Body,
    shared: &Shared,
    principal: &Principal,
) -> Result<(Zeroizing<Vec<u8>>, Option<Place>), Problem> {
    let max = match principal.role {
        Role::Viewer => VIEWER_BODY_LEN_MAX,
        Role::Auditor | Role::Operator | Role::Admin => BODY_LEN_MAX,
    };
    let mut chunks = body.into_data_stream();
    let mut bytes = Zeroizing::new(Vec::new());
    let mut large = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body broke off"))?;
        let len = bytes.len() + chunk.len();
        if len > max {
            let detail = format!("a command of more than {max} bytes with its files");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "TOO_LARGE",
                detail,
            ));
        }
        if len > LARGE_LEN && large.is_none() {
            large = Some(shared.large.take(&principal.name).ok_or_else(busy)?);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, large))
}
