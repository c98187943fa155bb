//! Rules, and where one of them fails.

use std::collections::BTreeMap;

use scan::{
    judge::Outcome,
    rule::{Rule, Severity, VariableType},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use world::Timestamp;

use super::{Error, Moment, Reader};

/// A rule in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RuleRow {
    pub(crate) rule: String,
    pub(crate) title: String,
    #[schema(value_type = String, example = "high")]
    pub(crate) severity: Severity,
    pub(crate) category: String,
    pub(crate) platforms: Vec<String>,
    #[schema(value_type = Object)]
    pub(crate) references: BTreeMap<String, Vec<String>>,
}

/// A variable that a rule takes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct VariableView {
    pub(crate) variable: String,
    /// `int`, `string`, `list`, `mode` or `bool`.
    pub(crate) kind: &'static str,
    #[schema(value_type = Value)]
    pub(crate) default: Value,
    pub(crate) description: String,
}

/// The verdict of a rule on one host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OnHost {
    pub(crate) host: String,
    pub(crate) site: String,
    #[schema(value_type = String, example = "fail")]
    pub(crate) verdict: Outcome,
    pub(crate) reason: String,
    pub(crate) evidence: String,
    pub(crate) changed: Moment,
}

/// One rule, and how it stands on the hosts that are watched.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RuleView {
    pub(crate) at: Moment,
    #[serde(flatten)]
    pub(crate) row: RuleRow,
    pub(crate) description: String,
    pub(crate) rationale: String,
    /// What to do, in a line.
    pub(crate) fix: String,
    /// Shown, never run.
    pub(crate) commands: Vec<String>,
    pub(crate) variables: Vec<VariableView>,
    /// SHA-256 of the rule, hexadecimal.
    pub(crate) digest: String,
    /// Hosts by verdict; every verdict is named.
    pub(crate) verdicts: BTreeMap<&'static str, u64>,
    /// What fails first, then what could not be assessed; by host.
    pub(crate) hosts: Vec<OnHost>,
}

fn row(rule: &Rule) -> RuleRow {
    RuleRow {
        rule: rule.id.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        category: rule.category.clone(),
        platforms: rule.platforms.iter().map(ToString::to_string).collect(),
        references: rule.references.clone(),
    }
}

/// Every rule that is judged by.
pub(crate) fn rules(reader: &Reader<'_>) -> Vec<RuleRow> {
    reader.rules.all().iter().map(row).collect()
}

/// One rule, and where it fails, now or at a moment.
pub(crate) fn rule(
    reader: &Reader<'_>,
    id: &str,
    at: Option<Timestamp>,
) -> Result<RuleView, Error> {
    let rule = reader
        .rules
        .get(id)
        .ok_or_else(|| Error::missing("rule", id))?;
    let mut verdicts: BTreeMap<&'static str, u64> =
        Outcome::ALL.map(|verdict| (verdict.name(), 0)).into();
    let mut hosts = Vec::new();
    let overview = super::overview(reader, at)?;
    let watched = overview.rows.iter().filter(|row| row.retired.is_none());
    let watched: Vec<&super::HostRow> = watched.collect();
    let names: Vec<&str> = watched.iter().map(|row| row.host.as_str()).collect();
    let states = reader.ledger()?.states_of_rule(id, &names, at)?;
    for (row, state) in watched.into_iter().zip(states) {
        let Some(state) = state else { continue };
        *verdicts.entry(state.verdict.name()).or_default() += 1;
        hosts.push(OnHost {
            host: row.host.clone(),
            site: row.site.clone(),
            verdict: state.verdict,
            reason: state.reason,
            evidence: state.evidence,
            changed: Moment::nanos(state.changed),
        });
    }
    hosts.sort_by_key(|host| match host.verdict {
        Outcome::Fail => 0,
        Outcome::Error => 1,
        Outcome::NotAssessed => 2,
        Outcome::Pass => 3,
        Outcome::NotApplicable => 4,
    });
    let variables = rule.variables.iter().map(|(name, variable)| VariableView {
        variable: name.clone(),
        kind: match variable.kind {
            VariableType::Int => "int",
            VariableType::String => "string",
            VariableType::List => "list",
            VariableType::Mode => "mode",
            VariableType::Bool => "bool",
        },
        default: variable.default.clone(),
        description: variable.description.clone(),
    });
    Ok(RuleView {
        at: Moment(at.unwrap_or(reader.now)),
        row: row(rule),
        description: rule.description.clone(),
        rationale: rule.rationale.clone(),
        fix: rule.fix.summary.clone(),
        commands: rule.fix.commands.clone(),
        variables: variables.collect(),
        digest: rule.digest.clone(),
        verdicts,
        hosts,
    })
}
