//! Alerts: what somebody should know of, now or at a past moment.

use scan::alert::{self, Alert, Alerts, ErrorKind, Severity, State, Wanted};
use serde::Serialize;
use utoipa::ToSchema;
use world::Timestamp;

use super::{Error, Kind, Moment, Reader};

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

/// How many nobody has taken notice of.
pub(crate) fn open_alerts(reader: &Reader<'_>) -> Result<u64, Error> {
    let wanted = Wanted {
        states: [State::Open].into(),
        ..Wanted::default()
    };
    Ok(listed(reader, &wanted, None)?.len() as u64)
}

/// One alert. Of a host that may not be seen there is none.
pub(crate) fn alert(reader: &Reader<'_>, id: u64) -> Result<AlertRow, Error> {
    let missing = || Error::missing("alert", &id.to_string());
    let found = Alerts::new(reader.store.clone())?.get(id, None)?;
    let row: AlertRow = found.ok_or_else(missing)?.into();
    match &row.host {
        Some(host) => drop(reader.must_see(host).map_err(|_| missing())?),
        None if reader.scope.is_everything() => {}
        None => return Err(missing()),
    }
    Ok(row)
}
