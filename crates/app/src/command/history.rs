//! `holdfast history RULE`.

use scan::{
    import::{Header, Imports, RuleResult},
    ledger::Change,
};
use world::Timestamp;

use crate::{
    cli::{History, Output},
    config::Config,
    document::{self, HistoryRow, ImportedRow},
    exit::{Exit, Refusal},
    moment,
    present::{cause, csv, table},
    screen::Screen,
    site::Site,
};

use super::chosen::{Chosen, with_host};

pub(crate) fn run(history: &History, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let text = match Chosen::of(&history.of, &site)? {
        Chosen::One(host) => of_one(&site, host, &history.rule, config.output.value)?,
        Chosen::Several(hosts) => of_several(&site, hosts, &history.rule, config.output.value)?,
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn of_one(site: &Site, host: String, rule: &str, output: Output) -> Result<String, Refusal> {
    let changes = site.ledger().history(&host, rule).map_err(Site::refused)?;
    let imported = Imports::new(site.store().clone())
        .and_then(|imports| imports.of_rule(&host, rule))
        .map_err(|error| {
            Refusal::new(error.to_string()).next("run `holdfast doctor` to check the record")
        })?;
    if changes.is_empty() && imported.is_empty() {
        return Err(unknown_rule(site, &host, rule)?);
    }
    Ok(match output {
        Output::Json => super::json(&document::History {
            imported: imported.iter().map(imported_row).collect(),
            ..document(host, rule, &changes)
        })?,
        Output::Csv => csv::lines(CSV, changes.iter().map(csv_row)),
        Output::Table => {
            let mut text = table::rows(TABLE, changes.iter().map(table_row));
            text.push_str(&imported_words(&imported));
            text
        }
    })
}

fn imported_words(imported: &[(Header, RuleResult)]) -> String {
    if imported.is_empty() {
        return String::new();
    }
    let rows = table::rows(
        ["WHEN", "SAID", "ITS RULE", "IMPORT"],
        imported.iter().map(|(header, said)| {
            [
                moment::local(Timestamp::from_nanos(header.finished)),
                said.result.name().to_owned(),
                said.rule.clone(),
                header.id.chars().take(12).collect(),
            ]
        }),
    );
    format!("\nIMPORTED: what other tools said of the same subject\n{rows}")
}

fn imported_row((header, said): &(Header, RuleResult)) -> ImportedRow {
    ImportedRow {
        time: moment::rfc3339(Timestamp::from_nanos(header.finished)),
        rule: said.rule.clone(),
        result: said.result,
        verdict: said.result.verdict(),
        tool: header.tool.clone(),
        import: header.id.clone(),
    }
}

/// Hosts on which the rule was never judged are left out; that it was on none is an error.
fn of_several(
    site: &Site,
    hosts: Vec<String>,
    rule: &str,
    output: Output,
) -> Result<String, Refusal> {
    let mut found: Vec<(String, Vec<Change>)> = Vec::new();
    for host in hosts {
        let changes = site.ledger().history(&host, rule).map_err(Site::refused)?;
        if !changes.is_empty() {
            found.push((host, changes));
        }
    }
    if found.is_empty() {
        return Err(Refusal::new(format!(
            "rule `{rule}` was never judged on any of these hosts"
        ))
        .next("`holdfast rules list` prints every rule"));
    }
    let rows = found
        .iter()
        .flat_map(|(host, changes)| changes.iter().map(move |change| (host, change)));
    Ok(match output {
        Output::Json => {
            let hosts = found
                .iter()
                .map(|(host, changes)| document(host.clone(), rule, changes));
            super::json(&document::HistoryOfHosts {
                hosts: hosts.collect(),
            })?
        }
        Output::Csv => csv::lines::<9>(
            with_host("host", CSV),
            rows.map(|(host, change)| with_host(host, csv_row(change))),
        ),
        Output::Table => table::rows::<7>(
            with_host("HOST", TABLE),
            rows.map(|(host, change)| with_host(host, table_row(change))),
        ),
    })
}

const CSV: [&str; 8] = [
    "time", "from", "to", "severity", "reason", "evidence", "scan_id", "because",
];
const TABLE: [&str; 6] = ["WHEN", "FROM", "TO", "SEVERITY", "CHANGED", "FOUND"];

fn document(host: String, rule: &str, changes: &[Change]) -> document::History {
    document::History {
        host,
        rule: rule.to_owned(),
        changes: changes.iter().map(HistoryRow::of_change).collect(),
        imported: Vec::new(),
    }
}

fn table_row(change: &Change) -> [String; 6] {
    let [_, from, to, severity, reason, ..] = csv_row(change);
    let when = moment::local(Timestamp::from_nanos(change.occurred));
    let from = if from.is_empty() {
        "first seen".to_owned()
    } else {
        from
    };
    let because = cause::listed(&change.because);
    [when, from, to, severity, because, reason]
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
