//! Alerts: what somebody should know of, now or at a past moment.

use scan::alert::{self, Alert, Alerts, ErrorKind, Severity, State, Wanted};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{Error, Kind, Moment, Reader, page_len};

/// Who did something with an alert, when and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AlertStep {
    pub(crate) at: Moment,
    pub(crate) by: String,
    pub(crate) why: String,
}

/// Nobody is told until then.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AlertSilence {
    pub(crate) until: Moment,
    pub(crate) by: String,
    pub(crate) why: String,
    /// It holds because this waiver does.
    pub(crate) waiver: Option<u32>,
}

/// One thing that is or was wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AlertRow {
    pub(crate) id: u64,
    #[schema(value_type = String, example = "finding_critical")]
    pub(crate) kind: alert::Kind,
    /// Null: of the whole site.
    pub(crate) host: Option<String>,
    /// The rule, or the receiver that fails.
    pub(crate) subject: Option<String>,
    #[schema(value_type = String, example = "critical")]
    pub(crate) severity: Severity,
    #[schema(value_type = String, example = "open")]
    pub(crate) state: State,
    pub(crate) detail: String,
    /// First and last time that it was so, and how often.
    pub(crate) first: Moment,
    pub(crate) last: Moment,
    pub(crate) count: u64,
    /// How often it came back after it was over.
    pub(crate) reopened: u32,
    pub(crate) acknowledged: Option<AlertStep>,
    pub(crate) silenced: Option<AlertSilence>,
    pub(crate) resolved: Option<AlertStep>,
}

impl From<alert::Step> for AlertStep {
    fn from(step: alert::Step) -> Self {
        Self {
            at: Moment::nanos(step.at),
            by: step.by,
            why: step.why,
        }
    }
}

impl From<Alert> for AlertRow {
    fn from(alert: Alert) -> Self {
        Self {
            id: alert.id,
            kind: alert.key.kind,
            host: alert.key.host,
            subject: alert.key.subject,
            severity: alert.severity,
            state: alert.state,
            detail: alert.detail,
            first: Moment::nanos(alert.first),
            last: Moment::nanos(alert.last),
            count: alert.count,
            reopened: alert.reopened,
            acknowledged: alert.acknowledged.map(Into::into),
            silenced: alert.silenced.map(|silence| AlertSilence {
                until: Moment::nanos(silence.until),
                by: silence.step.by,
                why: silence.step.why,
                waiver: silence.waiver,
            }),
            resolved: alert.resolved.map(Into::into),
        }
    }
}

impl From<alert::Error> for Error {
    fn from(error: alert::Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Conflict => Kind::Conflict,
            ErrorKind::Missing => Kind::Missing,
            ErrorKind::Refused => Kind::Invalid,
            ErrorKind::Storage => Kind::Storage,
        };
        Self::new(kind, error.detail)
    }
}

fn listed(
    reader: &Reader<'_>,
    wanted: &Wanted,
    at: Option<Timestamp>,
) -> Result<Vec<AlertRow>, Error> {
    let mut found = Alerts::new(reader.store.clone())?.list(wanted, at)?;
    if !reader.scope.is_everything() {
        let seen: std::collections::BTreeSet<String> = reader
            .visible(None)?
            .into_iter()
            .map(|host| host.name)
            .collect();
        found.retain(|alert| {
            alert
                .key
                .host
                .as_ref()
                .is_some_and(|host| seen.contains(host))
        });
    }
    Ok(found.into_iter().map(Into::into).collect())
}

/// Every alert, the newest first, now or as it was. Those of the site are for whoever sees everything.
pub(crate) fn alerts(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Vec<AlertRow>, Error> {
    listed(reader, &Wanted::default(), at)
}

/// Which alerts.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlertsAsked {
    /// As it was at this moment: RFC 3339.
    pub(crate) at: Option<String>,
    /// Those that are over too.
    pub(crate) all: Option<bool>,
    /// Of this host.
    pub(crate) host: Option<String>,
    /// Of this kind, as `drift_major`.
    pub(crate) kind: Option<String>,
    /// Of this severity or above: `info`, `medium`, `high`, `critical`.
    pub(crate) minimum: Option<String>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Some of the alerts, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AlertPage {
    pub(crate) alerts: Vec<AlertRow>,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

/// Alerts of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// Those that are asked for, a page of them.
pub(crate) fn alert_page(
    reader: &Reader<'_>,
    asked: &AlertsAsked,
    at: Option<Timestamp>,
) -> Result<AlertPage, Error> {
    let mut wanted = Wanted {
        host: asked.host.clone(),
        ..Wanted::default()
    };
    if asked.all != Some(true) {
        let states = State::ALL.into_iter();
        wanted.states = states.filter(|state| *state != State::Resolved).collect();
    }
    if let Some(name) = &asked.kind {
        let kind = alert::Kind::ALL.into_iter().find(|it| it.name() == name);
        wanted
            .kinds
            .insert(kind.ok_or_else(|| no_word("kind of alert"))?);
    }
    if let Some(name) = &asked.minimum {
        let severity = Severity::ALL.into_iter().find(|it| it.name() == name);
        wanted.minimum = Some(severity.ok_or_else(|| no_word("severity of alerts"))?);
    }
    let before = match &asked.cursor {
        Some(cursor) => cursor.parse().map_err(|_| no_word("cursor of alerts"))?,
        None => u64::MAX,
    };
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let mut alerts = listed(reader, &wanted, at)?;
    alerts.retain(|alert| alert.id < before);
    let is_more = alerts.len() > limit;
    alerts.truncate(limit);
    let last = alerts.last().filter(|_| is_more);
    Ok(AlertPage {
        next: last.map(|alert| alert.id.to_string()),
        alerts,
    })
}

fn no_word(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("that is no {what}"))
}

/// How many nobody has taken notice of, now or at a past moment.
pub(crate) fn open_alerts(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<u64, Error> {
    let wanted = Wanted {
        states: [State::Open].into(),
        ..Wanted::default()
    };
    Ok(listed(reader, &wanted, at)?.len() as u64)
}

/// One alert, now or as it was. Of a host that may not be seen there is none.
pub(crate) fn alert(
    reader: &Reader<'_>,
    id: u64,
    at: Option<Timestamp>,
) -> Result<AlertRow, Error> {
    let missing = || Error::missing("alert", &id.to_string());
    let found = Alerts::new(reader.store.clone())?.get(id, at)?;
    let row: AlertRow = found.ok_or_else(missing)?.into();
    match &row.host {
        Some(host) => drop(reader.must_see(host).map_err(|_| missing())?),
        None if reader.scope.is_everything() => {}
        None => return Err(missing()),
    }
    Ok(row)
}
