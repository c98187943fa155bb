//! What was recorded: scans, waivers, values of variables, the audit log.

use scan::{
    audit::{self, Audit, Record},
    inventory::Host,
    ledger::ScanRow,
    variable::{Setting, Settings},
    waiver::{Standing, Step, Target, Waiver},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{Error, Moment, Reader, fleet::Counts, moment, page_len};

/// Records of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// A scan as it was applied.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ScanView {
    pub(crate) scan: String,
    pub(crate) host: String,
    pub(crate) started: Moment,
    pub(crate) finished: Moment,
    pub(crate) counts: Counts,
    /// Rules that changed with it.
    pub(crate) changes: u64,
}

impl From<&ScanRow> for ScanView {
    fn from(row: &ScanRow) -> Self {
        Self {
            scan: row.scan_id.clone(),
            host: row.host.clone(),
            started: Moment::nanos(row.started),
            finished: Moment::nanos(row.finished),
            counts: (&row.summary).into(),
            changes: row.changes,
        }
    }
}

/// Some scans.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ScanPage {
    pub(crate) scans: Vec<ScanView>,
}

/// The latest scan of each host by a moment, the newest first.
pub(crate) fn scans(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<ScanPage, Error> {
    let ledger = reader.ledger()?;
    let mut scans = Vec::new();
    for host in reader.visible(at)? {
        if let Some(status) = ledger.status(&host.name, at)? {
            scans.push(ScanView::from(&status.scan));
        }
    }
    scans.sort_by_key(|scan| std::cmp::Reverse(scan.finished));
    Ok(ScanPage { scans })
}

/// Which scans of a host.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HostScansAsked {
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Some of a host's scans, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct HostScanPage {
    pub(crate) scans: Vec<ScanView>,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

/// Every scan of one host.
pub(crate) fn host_scans(
    reader: &Reader<'_>,
    host: &str,
    asked: &HostScansAsked,
) -> Result<HostScanPage, Error> {
    let is_listed = reader.must_see(host)?.is_some();
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let after = asked.cursor.as_deref().map(str::parse).transpose()?;
    let ledger = reader.ledger()?;
    let page = ledger.scans(host, after.as_ref(), limit)?;
    if page.rows.is_empty() && !is_listed && ledger.status(host, None)?.is_none() {
        return Err(Error::no_host(host));
    }
    Ok(HostScanPage {
        scans: page.rows.iter().map(Into::into).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    })
}

/// One scan by its id.
pub(crate) fn scan(reader: &Reader<'_>, id: &str) -> Result<ScanView, Error> {
    let found = match id.is_empty() {
        true => None,
        false => reader.ledger()?.scan(id)?,
    };
    let row = found.ok_or_else(|| Error::missing("scan", id))?;
    let seen = reader.must_see(&row.host);
    seen.map_err(|_| Error::missing("scan", id))?;
    Ok((&row).into())
}

/// A step that somebody took.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    pub(crate) at: Moment,
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl From<&Step> for StepView {
    fn from(step: &Step) -> Self {
        Self {
            at: Moment::nanos(step.at),
            by: step.by.clone(),
            reason: step.reason.clone(),
        }
    }
}

/// A waiver at a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WaiverRow {
    pub(crate) id: u32,
    pub(crate) rule: String,
    /// `host`, `group`, `site` or `tag`.
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) reason: String,
    pub(crate) expires: Moment,
    /// `requested`, `approved`, `revoked` or `expired`.
    pub(crate) standing: &'static str,
    pub(crate) requested: StepView,
    pub(crate) approved: Option<StepView>,
    pub(crate) revoked: Option<StepView>,
}

impl WaiverRow {
    pub(crate) fn of(waiver: &Waiver, standing: Standing) -> Self {
        let (target, name) = match &waiver.target {
            Target::Host(name) => ("host", name),
            Target::Group(name) => ("group", name),
            Target::Site(name) => ("site", name),
            Target::Tag(name) => ("tag", name),
        };
        Self {
            id: waiver.id,
            rule: waiver.rule.clone(),
            target,
            name: name.clone(),
            owner: waiver.owner.clone(),
            reason: waiver.reason.clone(),
            expires: Moment::nanos(waiver.expires),
            standing: standing.name(),
            requested: (&waiver.requested).into(),
            approved: waiver.approved.as_ref().map(Into::into),
            revoked: waiver.revoked.as_ref().map(Into::into),
        }
    }
}

/// Every waiver there was by a moment, ended ones too, by id; of those that are for a host that may be
/// seen.
pub(crate) fn waivers(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Vec<WaiverRow>, Error> {
    let moment = at.unwrap_or(reader.now);
    let mut all = reader.waivers()?.list()?;
    if !reader.scope.is_everything() {
        let seen = reader.visible(at)?;
        all.retain(|waiver| {
            let is_for = |host: &Host| waiver.is_for(&waiver.rule, &host.name, Some(host));
            seen.iter().any(is_for)
        });
    }
    Ok(all
        .iter()
        .filter_map(|waiver| Some(WaiverRow::of(waiver, waiver.standing(moment)?)))
        .collect())
}

/// One waiver as it is, with the row that its version is made of.
pub(crate) fn waiver(reader: &Reader<'_>, id: u32) -> Result<(WaiverRow, Waiver), Error> {
    let found = reader
        .waivers()?
        .list()?
        .into_iter()
        .find(|waiver| waiver.id == id);
    let waiver = found.ok_or_else(|| Error::missing("waiver", &id.to_string()))?;
    let standing = waiver.standing(reader.now).unwrap_or(Standing::Requested);
    Ok((WaiverRow::of(&waiver, standing), waiver))
}

/// A value of a variable.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SettingRow {
    pub(crate) rule: String,
    pub(crate) variable: String,
    /// `everywhere`, `site`, `group` or `host`.
    pub(crate) scope: String,
    /// Which one; null for everywhere.
    pub(crate) of: Option<String>,
    #[schema(value_type = Value)]
    pub(crate) value: Value,
    pub(crate) set_at: Moment,
    pub(crate) set_by: String,
}

impl From<&Setting> for SettingRow {
    fn from(setting: &Setting) -> Self {
        let of = setting.scope.of();
        Self {
            rule: setting.rule.clone(),
            variable: setting.variable.clone(),
            scope: setting.scope.kind().to_owned(),
            of: (!of.is_empty()).then(|| of.to_owned()),
            value: setting.value.clone(),
            set_at: Moment::nanos(setting.set_at),
            set_by: setting.set_by.clone(),
        }
    }
}

/// The values that the site gave to variables of rules.
pub(crate) fn settings(reader: &Reader<'_>) -> Result<Vec<SettingRow>, Error> {
    let all = Settings::new(reader.store.clone())?.list()?;
    Ok(all.iter().map(Into::into).collect())
}

/// One thing that was done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditRow {
    pub(crate) at: Moment,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) object: String,
    #[schema(value_type = Object)]
    pub(crate) detail: Value,
}

impl From<Record> for AuditRow {
    fn from(record: Record) -> Self {
        Self {
            at: Moment::nanos(record.at),
            actor: record.actor,
            action: record.action,
            object: record.object,
            detail: record.detail,
        }
    }
}

/// Which records of the audit log.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditAsked {
    /// At this moment or later: RFC 3339.
    pub(crate) since: Option<String>,
    /// Before this moment.
    pub(crate) until: Option<String>,
    pub(crate) actor: Option<String>,
    /// This action, or all that begin with it and a dot.
    pub(crate) action: Option<String>,
    pub(crate) object: Option<String>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Some records, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditPage {
    pub(crate) records: Vec<AuditRow>,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

/// The audit log, the newest first. A cursor is the time of the last record told and how many of that
/// time were told: records are never removed, and later ones are newer.
pub(crate) fn audit(reader: &Reader<'_>, asked: &AuditAsked) -> Result<AuditPage, Error> {
    let moment = |text: &Option<String>| {
        let read = text.as_deref().map(|text| moment::parse(text, reader.now));
        read.transpose()
    };
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let (since, mut until) = (moment(&asked.since)?, moment(&asked.until)?);
    let mut told = 0;
    if let Some(cursor) = &asked.cursor {
        let read = cursor
            .split_once('.')
            .and_then(|(at, told)| Some((at.parse::<u64>().ok()?, told.parse::<usize>().ok()?)));
        let (at, before) = read.ok_or_else(|| {
            Error::new(
                super::Kind::Invalid,
                "the cursor is not one that was given out",
            )
        })?;
        let end = Timestamp::from_nanos(at.saturating_add(1));
        until = Some(until.map_or(end, |until| until.min(end)));
        told = before.min(audit::LIST_MAX);
    }
    if since
        .zip(until)
        .is_some_and(|(since, until)| since >= until)
    {
        let records = Vec::new();
        return Ok(AuditPage {
            records,
            next: None,
        });
    }
    let filter = audit::Filter {
        since,
        until,
        actor: asked.actor.clone(),
        action: asked.action.clone(),
        object: asked.object.clone(),
    };
    let log = Audit::of(reader.store)?;
    let mut found = log.list(reader.store, &filter, told + limit + 1)?;
    let more = found.len() > told + limit;
    found.truncate(told + limit);
    let next = found.last().filter(|_| more).map(|last| {
        let same = found.iter().rev().take_while(|record| record.at == last.at);
        format!("{}.{}", last.at, same.count())
    });
    let records = found.into_iter().skip(told).map(Into::into).collect();
    Ok(AuditPage { records, next })
}
