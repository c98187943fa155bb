//! Alerts: what is wrong, and what people do with that.

use scan::{alert::Alerts, token::Role};
use serde::Deserialize;
use store::Transaction;
use utoipa::{ToSchema, openapi::path::HttpMethod};

use super::{
    super::{
        call::{Answer, Call, Problem},
        operation::{Operation, Reach},
    },
    AtAsked, NothingAsked,
};
use crate::view;

/// Why somebody does something with an alert.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct AlertReason {
    reason: String,
}

/// Until when nobody is told, and why.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertQuiet {
    /// RFC 3339; 90 days from now at most.
    until: String,
    #[serde(default)]
    reason: String,
}

pub(super) fn operations() -> Vec<Operation> {
    let change = |path, id, does| {
        Operation::change(HttpMethod::Post, path, id, does).gives::<view::AlertRow>()
    };
    vec![
        Operation::read("/api/v1/alerts", "listAlerts", list)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Alerts that are not over, the newest first, now or at a moment",
            )
            .asks::<view::AlertsAsked>()
            .gives::<view::AlertPage>(),
        Operation::read("/api/v1/alerts/{id}", "getAlert", show)
            .by(Role::Viewer, Reach::Hosts, "One alert, now or at a moment")
            .asks::<AtAsked>()
            .gives::<view::AlertRow>(),
        change(
            "/api/v1/alerts/{id}/acknowledge",
            "acknowledgeAlert",
            acknowledge,
        )
        .by(
            Role::Operator,
            Reach::Hosts,
            "Say that somebody sees to an alert",
        )
        .takes::<AlertReason>(),
        change("/api/v1/alerts/{id}/silence", "silenceAlert", silence)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Have nobody told of an alert for a while",
            )
            .takes::<AlertQuiet>(),
        change("/api/v1/alerts/{id}/resolve", "resolveAlert", resolve)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Say that an alert is over; what is so still comes back",
            )
            .takes::<AlertReason>(),
    ]
}

fn list(call: &Call) -> Result<Answer, Problem> {
    let asked: view::AlertsAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    Answer::json(&view::alert_page(&call.reader(), &asked, at)?)
}

fn number(call: &Call) -> Result<u64, Problem> {
    let text = call.param("id");
    let number = text.parse();
    Ok(number.map_err(|_| view::Error::missing("alert", text))?)
}

fn show(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    Answer::json(&view::alert(&call.reader(), number(call)?, at)?)
}

/// The alert that these eyes may see, and the book that it is in.
fn seen(call: &Call) -> Result<(u64, Alerts), Problem> {
    let id = number(call)?;
    view::alert(&call.reader(), id, None)?;
    let alerts = Alerts::new(call.shared.store.clone()).map_err(view::Error::from)?;
    Ok((id, alerts))
}

fn acknowledge(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let AlertReason { reason } = call.json()?;
    let (id, alerts) = seen(call)?;
    let done = alerts.acknowledge_in(transaction, id, &reason, call.now, &call.actor());
    Answer::json(&view::AlertRow::from(done.map_err(view::Error::from)?))
}

fn silence(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let AlertQuiet { until, reason } = call.json()?;
    let until = view::parse(&until, call.now)?;
    let (id, alerts) = seen(call)?;
    let done = alerts.silence_in(transaction, id, until, &reason, call.now, &call.actor());
    Answer::json(&view::AlertRow::from(done.map_err(view::Error::from)?))
}

fn resolve(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let AlertReason { reason } = call.json()?;
    let (id, alerts) = seen(call)?;
    let done = alerts.resolve_in(transaction, id, &reason, call.now, &call.actor());
    Answer::json(&view::AlertRow::from(done.map_err(view::Error::from)?))
}
