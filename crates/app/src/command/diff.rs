//! `holdfast diff T1 T2`.

use scan::{judge::Outcome, ledger::Difference, rule::Severity};
use world::Timestamp;

use crate::{
    cli::{Diff, Output},
    config::Config,
    document::{ChangeRow, Differences, DifferencesOfHosts, HostDifferences},
    exit::{Exit, Refusal},
    moment,
    present::{cause, csv, table},
    screen::Screen,
    site::Site,
};

use super::chosen::{Chosen, with_host};

pub(crate) fn run(diff: &Diff, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let (from, to) = (super::moment(&diff.from)?, super::moment(&diff.to)?);
    if from > to {
        return Err(
            Refusal::new(format!("`{}` is later than `{}`", diff.from, diff.to))
                .next("give the earlier moment first"),
        );
    }
    let site = Site::open_existing(config, screen)?;
    super::must_be_past(to, &diff.to, &site)?;
    let text = match Chosen::of(&diff.of, &site)? {
        Chosen::One(host) => {
            let known = site.ledger().status(&host, Some(to));
            if known.map_err(Site::refused)?.is_none() {
                // Nothing differs where nothing is known, and a misspelt host would read as good news.
                return Err(super::status::nothing_recorded(&site, &host, Some(to)));
            }
            let found = site.ledger().diff(&host, from, to).map_err(Site::refused)?;
            of_one(&found, (from, to), config.output.value)?
        }
        Chosen::Several(hosts) => of_several(&site, hosts, (from, to), config.output.value)?,
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

type Moments = (Timestamp, Timestamp);

fn of_one(found: &[Difference], moments: Moments, output: Output) -> Result<String, Refusal> {
    Ok(match output {
        Output::Json => super::json(&document(found))?,
        Output::Csv => csv::lines(CSV, found.iter().map(cells)),
        Output::Table if found.is_empty() => nothing_differs(moments),
        Output::Table => table::rows(TABLE, found.iter().map(table_row)),
    })
}

/// Hosts without a record by then are left out.
fn of_several(
    site: &Site,
    hosts: Vec<String>,
    moments: Moments,
    output: Output,
) -> Result<String, Refusal> {
    let mut found: Vec<(String, Vec<Difference>)> = Vec::new();
    for host in hosts {
        let differences = site.ledger().diff(&host, moments.0, moments.1);
        found.push((host, differences.map_err(Site::refused)?));
    }
    let rows = found
        .iter()
        .flat_map(|(host, found)| found.iter().map(move |difference| (host, difference)));
    Ok(match output {
        Output::Json => {
            let hosts = found.iter().map(|(host, found)| HostDifferences {
                host: host.clone(),
                changes: document(found).changes,
            });
            super::json(&DifferencesOfHosts {
                hosts: hosts.collect(),
            })?
        }
        Output::Csv => csv::lines::<8>(
            with_host("host", CSV),
            rows.map(|(host, difference)| with_host(host, cells(difference))),
        ),
        Output::Table if found.iter().all(|(_, found)| found.is_empty()) => {
            nothing_differs(moments)
        }
        Output::Table => table::rows::<6>(
            with_host("HOST", TABLE),
            rows.map(|(host, difference)| with_host(host, table_row(difference))),
        ),
    })
}

const CSV: [&str; 7] = [
    "rule",
    "from",
    "to",
    "severity_from",
    "severity_to",
    "reason",
    "because",
];
const TABLE: [&str; 5] = ["RULE", "FROM", "TO", "CHANGED", "FOUND"];

fn document(found: &[Difference]) -> Differences {
    Differences {
        changes: found.iter().map(ChangeRow::of_difference).collect(),
    }
}

fn nothing_differs((from, to): Moments) -> String {
    format!(
        "Nothing differs between {} and {}.",
        moment::local(from),
        moment::local(to)
    )
}

fn table_row(difference: &Difference) -> [String; 5] {
    let [rule, from, to, .., reason, because] = cells(difference);
    let or = |text: String, other: &str| {
        if text.is_empty() {
            other.to_owned()
        } else {
            text
        }
    };
    [
        rule,
        or(from, "not judged"),
        or(to, "no longer judged"),
        because,
        reason,
    ]
}

fn cells(difference: &Difference) -> [String; 7] {
    let outcome = |side: Option<(Outcome, Severity)>| {
        side.map_or("", |(outcome, _)| outcome.name()).to_owned()
    };
    let severity = |side: Option<(Outcome, Severity)>| {
        side.map_or("", |(_, severity)| severity.name()).to_owned()
    };
    [
        difference.rule.clone(),
        outcome(difference.from),
        outcome(difference.to),
        severity(difference.from),
        severity(difference.to),
        difference.reason.clone(),
        cause::listed(&difference.because),
    ]
}
