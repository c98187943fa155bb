//! The operations under /api/v1, by what they are about.

mod access;
mod alerts;
mod hosts;
mod records;
mod rules;
mod running;

use scan::token::Role;
use serde::Deserialize;
use utoipa::{IntoParams, openapi::path::HttpMethod};

use super::operation::{Operation, Reach};
use crate::remote;

/// As it was at a moment.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AtAsked {
    /// RFC 3339, or a span back from now such as `2h`; now unless given.
    at: Option<String>,
}

/// For operations that take no query: one that is given is refused, not ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NothingAsked {}

/// Every operation, by path.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = [
        access::operations(),
        alerts::operations(),
        commands(),
        events(),
        hosts::operations(),
        records::operations(),
        rules::operations(),
        running::operations(),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    all.sort_by_key(|operation| operation.path);
    all
}

/// The command line, from elsewhere.
fn commands() -> Vec<Operation> {
    vec![
        Operation::carry("/api/v1/commands", "carryOut")
            .by(
                Role::Viewer,
                Reach::Site,
                "Carry a command of the command line out: what `holdfast --server` asks for. Which role may \
                 ask for which command is told by the refusal",
            )
            .takes::<remote::Asked>()
            .gives::<remote::Done>(),
    ]
}

/// Served by the events plane, behind the same tokens.
fn events() -> Vec<Operation> {
    vec![
        Operation::events(HttpMethod::Get, "/api/v1/events", "listEvents").by(
            Role::Viewer,
            Reach::Site,
            "Events that were taken, or followed as they come",
        ),
        Operation::events(HttpMethod::Post, "/api/v1/events", "takeEvents").by(
            Role::Operator,
            Reach::Site,
            "Take events, JSON lines or JSON",
        ),
        Operation::events(HttpMethod::Get, "/api/v1/events/{id}", "getEvent").by(
            Role::Viewer,
            Reach::Site,
            "One event",
        ),
        Operation::events(HttpMethod::Get, "/api/v1/drains", "listDrains").by(
            Role::Viewer,
            Reach::Site,
            "How far each drain of events is",
        ),
    ]
}
