//! `holdfast history RULE`.

use scan::ledger::Change;
use world::Timestamp;

use crate::{
    cli::{History, Output},
    config::Config,
    document::{self, HistoryRow},
    exit::{Exit, Refusal},
    moment,
    present::{cause, csv, table},
    screen::Screen,
    site::Site,
};

pub(crate) fn run(history: &History, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let host = history.host.clone().unwrap_or_else(super::this_host);
    let site = Site::open_existing(config, screen)?;
    let changes = site
        .ledger()
        .history(&host, &history.rule)
        .map_err(Site::refused)?;
    if changes.is_empty() {
        return Err(unknown_rule(&site, &host, &history.rule)?);
    }
    let text = match config.output.value {
        Output::Json => super::json(&document::History {
            host,
            rule: history.rule.clone(),
            changes: changes.iter().map(HistoryRow::of_change).collect(),
        })?,
        Output::Csv => csv::lines(
            [
                "time", "from", "to", "severity", "reason", "evidence", "scan_id", "because",
            ],
            changes.iter().map(csv_row),
        ),
        Output::Table => table::rows(
            ["WHEN", "FROM", "TO", "SEVERITY", "CHANGED", "FOUND"],
            changes.iter().map(|change| {
                let [_, from, to, severity, reason, ..] = csv_row(change);
                let when = moment::local(Timestamp::from_nanos(change.occurred));
                let from = if from.is_empty() {
                    "first seen".to_owned()
                } else {
                    from
                };
                [
                    when,
                    from,
                    to,
                    severity,
                    cause::listed(&change.because),
                    reason,
                ]
            }),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn csv_row(change: &Change) -> [String; 8] {
    [
        moment::rfc3339(Timestamp::from_nanos(change.occurred)),
        change
            .from
            .map_or("", scan::judge::Outcome::name)
            .to_owned(),
        change.to.name().to_owned(),
        change.severity.name().to_owned(),
        change.reason.clone(),
        change.evidence.clone(),
        change.scan_id.clone(),
        cause::listed(&change.because),
    ]
}

/// Says whether the host or the rule is the one without a record.
fn unknown_rule(site: &Site, host: &str, rule: &str) -> Result<Refusal, Refusal> {
    let judged = site.ledger().status(host, None).map_err(Site::refused)?;
    Ok(if judged.is_none() {
        super::status::nothing_recorded(site, host, None)
    } else {
        Refusal::new(format!("rule `{rule}` was never judged on host `{host}`"))
            .next("`holdfast rules list` prints every rule")
    })
}
