//! `holdfast audit`: who did what to what, and when.

use scan::{
    audit::{self, Filter, Record},
    seal::{Asked, Kind},
};

use super::schedule::{local, rfc3339};
use crate::{
    cli::{
        Output,
        ledger::{AuditAction, AuditExport},
        schedule::{Audit, Records},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, table},
    screen::Screen,
    site::Site,
};

pub(crate) fn run(asked: &Audit, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match &asked.action {
        Some(AuditAction::Verify(asked)) => {
            return super::ledger::verify(asked, Kind::Audit, config, screen);
        }
        Some(AuditAction::Export(asked)) => return export(asked, config, screen),
        None => {}
    }
    let filter = filter(&asked.which)?;
    let limit = usize::try_from(asked.lines).unwrap_or(usize::MAX);
    let site = Site::open_existing(config, screen)?;
    let found = audit::Audit::of(site.store())
        .and_then(|audit| audit.list(site.store(), &filter, limit))
        .map_err(Site::store_refused);
    site.close(screen);
    let mut records = found?;
    records.reverse();
    let text = match config.output.value {
        Output::Json => super::json(&serde_json::json!({
            "records": records.iter().map(document).collect::<Vec<_>>(),
        }))?,
        Output::Csv => csv::lines(
            ["time", "actor", "action", "object", "detail"],
            records.iter().map(|record| {
                [
                    rfc3339(record.at),
                    record.actor.clone(),
                    record.action.clone(),
                    record.object.clone(),
                    record.detail.to_string(),
                ]
            }),
        ),
        Output::Table if records.is_empty() => "nothing of that is recorded\n".to_owned(),
        Output::Table => table::rows(
            ["WHEN", "WHO", "DID", "TO", "WHAT"],
            records.iter().map(|record| {
                [
                    local(record.at),
                    record.actor.clone(),
                    record.action.clone(),
                    record.object.clone(),
                    words(&moment::readable(&record.detail)),
                ]
            }),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn filter(which: &Records) -> Result<Filter, Refusal> {
    let time = |text: &Option<String>| text.as_deref().map(super::moment).transpose();
    Ok(Filter {
        since: time(&which.since)?,
        until: time(&which.until)?,
        actor: which.actor.clone(),
        action: which.action.clone(),
        object: which.object.clone(),
    })
}

fn export(asked: &AuditExport, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let wanted = Asked {
        kind: Kind::Audit,
        only: None,
        filter: filter(&asked.which)?,
        with_evidence: true,
    };
    super::ledger::write_export(&asked.target, &wanted, config, screen)
}

fn document(record: &Record) -> serde_json::Value {
    serde_json::json!({
        "time": rfc3339(record.at),
        "actor": record.actor,
        "action": record.action,
        "object": record.object,
        "detail": record.detail,
    })
}

/// What a line of a table has room for: of a change, its kind and the fields that differ; of anything
/// else, each field. `--output json` has all of it.
fn words(detail: &serde_json::Value) -> String {
    let Some(fields) = detail.as_object() else {
        return detail.to_string();
    };
    let (before, after) = (fields.get("before"), fields.get("after"));
    let mut words = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("before" | "after", _) | (_, serde_json::Value::Null) => {}
            ("kind", kind) => words.push(plain(kind)),
            (name, value) => words.push(format!("{name}={}", plain(value))),
        }
    }
    if let Some(after) = after.and_then(serde_json::Value::as_object) {
        for (name, value) in after {
            let was = before.and_then(|before| before.get(name));
            let is_empty = value.is_null() || *value == serde_json::json!("");
            if was != Some(value) && !(was.is_none() && is_empty) {
                words.push(format!("{name}={}", plain(value)));
            }
        }
    }
    words.join(" ")
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
