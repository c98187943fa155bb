//! `holdfast diff T1 T2`.

use scan::{judge::Outcome, ledger::Difference, rule::Severity};

use crate::{
    cli::{Diff, Output},
    config::Config,
    document::{ChangeRow, Differences},
    exit::{Exit, Refusal},
    moment,
    present::{cause, csv, table},
    screen::Screen,
    site::Site,
};

pub(crate) fn run(diff: &Diff, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let (from, to) = (super::moment(&diff.from)?, super::moment(&diff.to)?);
    if from > to {
        return Err(
            Refusal::new(format!("`{}` is later than `{}`", diff.from, diff.to))
                .next("give the earlier moment first"),
        );
    }
    let host = diff.host.clone().unwrap_or_else(super::this_host);
    let site = Site::open_existing(config, screen)?;
    super::must_be_past(to, &diff.to, &site)?;
    let known = site.ledger().status(&host, Some(to));
    if known.map_err(Site::refused)?.is_none() {
        // Nothing differs where nothing is known, and a misspelt host would read as good news.
        return Err(super::status::nothing_recorded(&site, &host, Some(to)));
    }
    let found = site.ledger().diff(&host, from, to).map_err(Site::refused)?;
    let text = match config.output.value {
        Output::Json => super::json(&Differences {
            changes: found.iter().map(ChangeRow::of_difference).collect(),
        })?,
        Output::Csv => csv::lines(
            [
                "rule",
                "from",
                "to",
                "severity_from",
                "severity_to",
                "reason",
                "because",
            ],
            found.iter().map(cells),
        ),
        Output::Table if found.is_empty() => format!(
            "Nothing differs between {} and {}.",
            moment::local(from),
            moment::local(to)
        ),
        Output::Table => table::rows(
            ["RULE", "FROM", "TO", "CHANGED", "FOUND"],
            found.iter().map(|difference| {
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
            }),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
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
