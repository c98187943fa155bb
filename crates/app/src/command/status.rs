//! `holdfast status`: the verdicts as they are, or as they were.

mod fleet;

use scan::{
    judge,
    ledger::{Check, State, Status},
};
use world::Timestamp;

use crate::{
    cli::{self, Output},
    config::Config,
    document::{Report, VerdictRow, WaiverRow},
    exit::{Exit, Refusal},
    moment,
    present::{ChangesSince, Summary, safe, verdicts},
    ruleset::Ruleset,
    screen::{self, Screen},
    site::Site,
    waived::{self, Waived},
};

pub(crate) fn run(asked: &cli::Status, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let at = asked.at.as_deref().map(super::moment).transpose()?;
    let site = Site::open_existing(config, screen)?;
    if let (Some(at), Some(text)) = (at, &asked.at) {
        super::must_be_past(at, text, &site)?;
    }
    let watched = fleet::watched(&site, at)?;
    let is_of_one = asked.host.is_some() || asked.rule.is_some() || watched.len() < 2;
    if asked.all || !is_of_one {
        return fleet::run(&site, &watched, at, config, screen);
    }
    let host = asked.host.clone().unwrap_or_else(super::this_host);
    let status = site
        .ledger()
        .status(&host, at)
        .map_err(Site::refused)?
        .ok_or_else(|| nothing_recorded(&site, &host, at))?;
    if let Some(rule) = &asked.rule {
        let waived = Waived::of(&site, &host, at, super::now())?;
        return show_rule(&site, &status, rule, &waived, config.output.value, screen);
    }
    let mut report = Report::of_status(&status);
    let waived = Waived::of(&site, &host, at, super::now())?;
    waived.beside(&mut report);
    if at.is_none() {
        report.last_attempt_failed = fleet::failed_attempt(&site, &host)?;
    }
    let text = match config.output.value {
        Output::Json => super::json(&report)?,
        Output::Csv => verdicts::csv(&report.verdicts),
        Output::Table => table(&status, &report, at, config),
    };
    screen.result(&text)?;
    let exit = Exit::of_verdicts(&report.summary);
    // Verdicts that are stale say nothing of the host as it is.
    Ok(match report.last_attempt_failed {
        Some(_) => exit.worse(Exit::Incomplete),
        None => exit,
    })
}

pub(crate) use fleet::FailedAttempt;

pub(super) fn nothing_recorded(site: &Site, host: &str, at: Option<Timestamp>) -> Refusal {
    let by = at
        .map(|at| format!(" by {}", moment::local(at)))
        .unwrap_or_default();
    if let (None, Ok(Some(refusal))) = (at, fleet::never_scanned(site, host)) {
        return refusal;
    }
    let refusal = Refusal::new(format!("no scan of host `{host}` is recorded{by}"));
    let known: Vec<String> = site
        .ledger()
        .hosts()
        .unwrap_or_default()
        .into_iter()
        .filter(|known| known.last_scan.is_some() && known.name != host)
        .map(|known| known.name)
        .collect();
    if known.is_empty() {
        refusal.next("run `holdfast scan`, or ask for a later moment")
    } else {
        refusal.next(format!(
            "name one of the hosts with --host: {}",
            known.join(", ")
        ))
    }
}

fn table(status: &Status, report: &Report, at: Option<Timestamp>, config: &Config) -> String {
    let mut heading = vec![
        status.host.name.clone(),
        format!(
            "scanned {}",
            moment::local(Timestamp::from_nanos(status.scan.finished))
        ),
    ];
    if let Some(at) = at {
        heading.push(format!("as it was at {}", moment::local(at)));
    }
    if let Some(failed) = &report.last_attempt_failed {
        heading.push(format!(
            "stale: the last attempt failed at {}: {}",
            failed.time, failed.reason
        ));
    }
    Summary {
        heading,
        counts: report.summary.clone(),
        lines: verdicts::lines(&report.verdicts, &Ruleset::known(config)),
        changes: ChangesSince::Unasked,
        width: screen::width().map(usize::from),
    }
    .render()
}

/// One rule with the evidence that its verdict rests on.
fn show_rule(
    site: &Site,
    status: &Status,
    rule: &str,
    waived: &Waived,
    output: Output,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let state = status
        .states
        .iter()
        .find(|state| state.rule == rule)
        .ok_or_else(|| {
            Refusal::new(format!(
                "rule `{rule}` was not judged on host `{}` then",
                status.host.name
            ))
            .next("`holdfast status` lists the rules that were")
        })?;
    let evidence = site
        .ledger()
        .evidence(&state.evidence)
        .map_err(Site::refused)?;
    let evidence: serde_json::Value = evidence
        .as_deref()
        .map(serde_json::from_slice)
        .transpose()
        .map_err(|error| Refusal::new(format!("evidence {}", state.evidence)).source(error))?
        .unwrap_or_default();
    let check = site
        .ledger()
        .check(&status.host.name, rule)
        .map_err(Site::refused)?;
    let waiver = waived.row(rule, &status.host.name, state.verdict);
    let text = match output {
        Output::Json => {
            let mut document = rule_document(state, check.as_ref(), &evidence);
            if let Some(waiver) = &waiver {
                document["waiver"] = serde_json::json!(waiver);
            }
            super::json(&document)?
        }
        Output::Csv => verdicts::csv(&[VerdictRow {
            waiver,
            ..VerdictRow::of_state(state)
        }]),
        Output::Table => rule_words(
            state,
            waiver.as_ref(),
            check.as_ref(),
            &super::json(&evidence)?,
        ),
    };
    screen.result(&text)?;
    Ok(Exit::of_verdicts(&judge::Summary::of([state.verdict])))
}

fn rule_document(
    state: &State,
    check: Option<&Check>,
    evidence: &serde_json::Value,
) -> serde_json::Value {
    serde_json::json!({
        "rule": state.rule,
        "severity": state.severity,
        "verdict": state.verdict,
        "reason": state.reason,
        "evidence": state.evidence,
        "variables": state.variables,
        "evidence_document": evidence,
        "first_seen": moment::rfc3339(Timestamp::from_nanos(state.first_seen)),
        "changed": moment::rfc3339(Timestamp::from_nanos(state.changed)),
        "checks": check.map(|check| check.count),
    })
}

fn rule_words(
    state: &State,
    waiver: Option<&WaiverRow>,
    check: Option<&Check>,
    evidence: &str,
) -> String {
    let waiver = waiver.map_or_else(String::new, |waiver| {
        format!("but       {}\n", safe(&waived::words(waiver)))
    });
    let values: Vec<String> = state
        .variables
        .iter()
        .map(|(name, value)| safe(&format!("{name} = {value}")))
        .collect();
    let variables = if values.is_empty() {
        String::new()
    } else {
        format!("variables {}\n", values.join(", "))
    };
    let checks = check.map_or_else(String::new, |check| {
        format!(
            "checked   {} times, last {}\n",
            check.count,
            moment::local(Timestamp::from_nanos(check.last_checked))
        )
    });
    format!(
        "{}  {}  {}\nfound     {}\n{waiver}{variables}changed   {}\nfirst     {}\n{checks}evidence  {}\n{evidence}\n",
        state.rule,
        state.severity.name(),
        state.verdict.name(),
        safe(&state.reason),
        moment::local(Timestamp::from_nanos(state.changed)),
        moment::local(Timestamp::from_nanos(state.first_seen)),
        state.evidence,
    )
}
