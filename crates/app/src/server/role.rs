//! What clients of a node of several are told and asked: its role and how far it is, whether it may
//! change anything, and reads that wait for what somebody was acknowledged elsewhere.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use wal::Lsn;

use super::{
    Shared,
    call::Problem,
    operation::{Does, Operation},
};
use crate::node::{Role, Stand};

/// Of a change: the record that it is.
pub(super) const LSN: HeaderName = HeaderName::from_static("holdfast-lsn");
const ROLE: HeaderName = HeaderName::from_static("holdfast-role");
const APPLIED: HeaderName = HeaderName::from_static("holdfast-applied");
const LAG_RECORDS: HeaderName = HeaderName::from_static("holdfast-lag-records");
const LAG_BYTES: HeaderName = HeaderName::from_static("holdfast-lag-bytes");
const LAG_SECONDS: HeaderName = HeaderName::from_static("holdfast-lag-seconds");
const PRIMARY: HeaderName = HeaderName::from_static("holdfast-primary");
/// Of a read: the record that it is to show.
const WAIT_FOR: &str = "holdfast-wait-for";

/// How long a read waits for a record. Copies are milliseconds behind; one that is further behind than
/// this is better not waited for with a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Records that a copy may have to take over still. One that is further behind does not catch up in that
/// time by far, and is not kept waiting for either: the number is none of this journal's.
const AHEAD_MAX: u64 = 10_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How soon to ask again: a change of roles takes a second or two.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Puts into every answer how the node stands.
pub(super) fn tell(headers: &mut HeaderMap, stand: &Stand) {
    headers.insert(ROLE, HeaderValue::from_static(stand.role.name()));
    headers.insert(APPLIED, stand.applied.get().into());
    headers.insert(LAG_RECORDS, stand.behind.records.into());
    headers.insert(LAG_BYTES, stand.behind.bytes.into());
    let seconds = format!("{:.3}", stand.behind.time.as_secs_f64());
    let seconds = HeaderValue::try_from(seconds).expect("digits and a point");
    headers.insert(LAG_SECONDS, seconds);
    let url = stand.primary.as_ref().and_then(|it| it.url.as_deref());
    if let Some(url) = url.and_then(|url| HeaderValue::try_from(url).ok()) {
        headers.insert(PRIMARY, url);
    }
}

/// Refuses what this node may not do, and says where it may be done.
pub(super) fn must_write(shared: &Shared) -> Result<(), Problem> {
    match shared.stand() {
        None => Ok(()),
        Some(stand) if stand.role == Role::Standby => Err(not_primary(&stand)),
        // It has just been made the one that writes, and what is served is still what it read.
        Some(_) if !shared.is_writer => Err(changing("this node begins to write")),
        Some(_) => Ok(()),
    }
}

pub(super) fn not_primary(stand: &Stand) -> Problem {
    let primary = stand.primary.as_ref();
    let url = primary.and_then(|primary| primary.url.as_deref());
    let detail = match (primary, url) {
        (Some(primary), Some(url)) => format!(
            "`{}` stands by and records nothing; `{}` writes: ask {url}",
            stand.node, primary.name
        ),
        (Some(primary), None) => format!(
            "`{}` stands by and records nothing; `{}` writes, and did not say where it is found",
            stand.node, primary.name
        ),
        (None, _) => format!(
            "`{}` stands by and records nothing, and knows no node that writes",
            stand.node
        ),
    };
    Problem {
        retry_after: Some(RETRY_AFTER_SECONDS),
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_PRIMARY", detail)
    }
    .with("primary", url.map_or(Value::Null, Value::from))
}

/// `why` may say that it is not known whether something was recorded.
pub(super) fn changing(why: &str) -> Problem {
    let detail = format!("{why}; ask again: with the same Idempotency-Key it is done once");
    Problem {
        retry_after: Some(RETRY_AFTER_SECONDS),
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ROLE_CHANGING", detail)
    }
}

/// Lets in what this node may do, once it has what is asked for; gives the position then. Commands say for
/// themselves whether they change something, and events lie on the node that took them.
pub(super) async fn admit(
    shared: &Shared,
    operation: &Operation,
    headers: &HeaderMap,
) -> Result<Option<Lsn>, Problem> {
    let waited = wait_for(shared, headers).await?;
    let is_for_writers = match operation.does {
        Does::Carry => false,
        Does::Events => true,
        _ => operation.changes_something(),
    };
    if is_for_writers {
        must_write(shared)?;
    }
    Ok(waited)
}

/// The record that a request asks to be shown.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<Lsn>, Problem> {
    let Some(text) = headers.get(WAIT_FOR) else {
        return Ok(None);
    };
    let wanted = text.to_str().ok().and_then(|text| text.trim().parse().ok());
    let refused = || Problem::invalid("Holdfast-Wait-For: the number of a record is wanted");
    wanted.map(Lsn::new).map(Some).ok_or_else(refused)
}

/// Waits until what a request asks for can be read here, and gives the position then. A shared database
/// shows every commit to everybody at once.
async fn wait_for(shared: &Shared, headers: &HeaderMap) -> Result<Option<Lsn>, Problem> {
    let Some(wanted) = wanted(headers)? else {
        return Ok(None);
    };
    let begun = Instant::now();
    loop {
        let newest = shared.store.newest_here().map(|commit| commit.lsn);
        let Some(reached) = newest.max(shared.store.applied()) else {
            return Ok(None);
        };
        if reached >= wanted {
            return Ok(newest);
        }
        if wanted.get() - reached.get() > AHEAD_MAX {
            let detail = format!("Holdfast-Wait-For: {wanted} is no record near {reached}");
            return Err(Problem::invalid(detail));
        }
        if *shared.stop.borrow() {
            return Err(changing("this node stops or changes its role"));
        }
        if begun.elapsed() >= WAIT_MAX {
            let detail = format!(
                "after {} s this node has the record up to {reached}, and not to {wanted}",
                WAIT_MAX.as_secs()
            );
            return Err(Problem {
                retry_after: Some(RETRY_AFTER_SECONDS),
                ..Problem::new(StatusCode::GATEWAY_TIMEOUT, "NOT_APPLIED", detail)
            }
            .with("applied", reached.get()));
        }
        sleep(LOOK_EVERY).await;
    }
}
