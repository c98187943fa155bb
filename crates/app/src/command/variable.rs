//! `holdfast variable`: values that a site gives to the variables of rules.

use scan::{
    inventory::Inventory,
    rule::{Rule, VariableType},
    variable::{self, Error, Place, Setting, Settings},
};
use serde_json::{Value, json};
use world::Timestamp;

use crate::{
    cli::{
        Output,
        variable::{Action, Scope, Which},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, table},
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site},
};

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Set {
            which,
            value,
            scope,
            rules_dir,
        } => {
            let rules = Ruleset::load(config, rules_dir.as_deref())?;
            let rule = known(&rules, &which.rule)?;
            let setting = setting(which, scope, value_of(rule, &which.variable, value));
            set(rule, &setting, config, screen)
        }
        Action::List { host } => list(host.as_deref(), config, screen),
        Action::Unset { which, scope } => {
            let setting = setting(which, scope, Value::Null);
            let was = with_site(config, screen, |site| {
                let settings = Settings::new(site.store().clone()).map_err(refusal)?;
                settings.unset(&setting).map_err(refusal)
            })?;
            if !was {
                return Err(Refusal::new(format!(
                    "`{}` of rule `{}` is not set {}",
                    which.variable,
                    which.rule,
                    whose(&setting.scope)
                ))
                .next("`holdfast variable list` shows what is set"));
            }
            site::changed(config.data_dir()?, screen);
            Ok(Exit::Clean)
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn refusal(error: Error) -> Refusal {
    Refusal::new(error.detail).next(error.next)
}

/// Runs `work` on the open data directory, and closes it whatever comes of it.
fn with_site<T>(
    config: &Config,
    screen: Screen,
    work: impl FnOnce(&Site) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let site = Site::open(config, screen)?;
    let done = work(&site);
    site.close(screen);
    done
}

pub(super) fn known<'r>(rules: &'r Ruleset, id: &str) -> Result<&'r Rule, Refusal> {
    rules.get(id).ok_or_else(|| {
        Refusal::new(format!("no rule `{id}`")).next("`holdfast rules list` prints every rule")
    })
}

fn setting(which: &Which, scope: &Scope, value: Value) -> Setting {
    let scope = match (&scope.host, &scope.group, &scope.site) {
        (Some(host), ..) => variable::Scope::Host(host.clone()),
        (_, Some(group), _) => variable::Scope::Group(group.clone()),
        (.., Some(site)) => variable::Scope::Site(site.clone()),
        _ => variable::Scope::Everywhere,
    };
    Setting {
        rule: which.rule.clone(),
        variable: which.variable.clone(),
        scope,
        value,
        set_at: super::now().nanos(),
        set_by: super::actor(),
    }
}

/// The text as the type that the rule declares; what does not read as one stays text, and is refused
/// as such by the rule's own check.
fn value_of(rule: &Rule, name: &str, text: &str) -> Value {
    let text_value = || Value::from(text);
    match rule.variables.get(name).map(|variable| variable.kind) {
        Some(VariableType::Int) => text
            .parse::<i64>()
            .map_or_else(|_| text_value(), Value::from),
        Some(VariableType::Bool) => text
            .parse::<bool>()
            .map_or_else(|_| text_value(), Value::from),
        Some(VariableType::List) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).unwrap_or_else(|_| text_value())
        }
        Some(VariableType::List) => text
            .split(',')
            .map(|item| Value::from(item.trim()))
            .collect(),
        Some(VariableType::String | VariableType::Mode) | None => text_value(),
    }
}

fn set(rule: &Rule, setting: &Setting, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let overruled = with_site(config, screen, |site| {
        let settings = Settings::new(site.store().clone()).map_err(refusal)?;
        settings.set(rule, setting).map_err(refusal)?;
        let all = settings.list().map_err(refusal)?;
        Ok(disagreements(site, &all, setting))
    })?;
    site::changed(config.data_dir()?, screen);
    screen.remark(format_args!(
        "`{}` of rule `{}` is {} {}, from the next scan on",
        setting.variable,
        setting.rule,
        setting.value,
        whose(&setting.scope)
    ));
    for words in overruled {
        screen.remark(words);
    }
    Ok(Exit::Clean)
}

fn whose(scope: &variable::Scope) -> String {
    match scope {
        variable::Scope::Everywhere => "everywhere".to_owned(),
        named => format!("for {named}"),
    }
}

/// Hosts told of in one go; the rest is in `variable list --host`.
const DISAGREEMENTS_SHOWN: usize = 5;

/// Hosts in two groups that differ on what was just set.
fn disagreements(site: &Site, all: &[Setting], set: &Setting) -> Vec<String> {
    let hosts = Inventory::new(site.store().clone()).and_then(|inventory| inventory.list(None));
    let hosts = hosts.unwrap_or_default();
    let mut words = Vec::new();
    for host in &hosts {
        let held = variable::in_force(all, &Place::of(&host.name, Some(host)));
        let held = held.get(&(set.rule.as_str(), set.variable.as_str()));
        if let Some(held) = held.filter(|held| !held.overruled.is_empty()) {
            words.push(format!(
                "{}: its groups differ, {} wins as the first by name; one set with --host would decide",
                host.name, held.setting.scope
            ));
        }
    }
    words.truncate(DISAGREEMENTS_SHOWN);
    words
}

fn list(host: Option<&str>, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let (all, labels) = with_site(config, screen, |site| {
        let settings = Settings::new(site.store().clone()).map_err(refusal)?;
        let all = settings.list().map_err(refusal)?;
        let inventory = Inventory::new(site.store().clone());
        let labels = match (host, inventory) {
            (Some(host), Ok(inventory)) => inventory.get(host).ok().flatten(),
            _ => None,
        };
        Ok((all, labels))
    })?;
    let shown: Vec<(&Setting, String)> = match host {
        None => all.iter().map(|setting| (setting, String::new())).collect(),
        Some(name) => variable::in_force(&all, &Place::of(name, labels.as_ref()))
            .into_values()
            .map(|held| {
                let over = held.overruled.iter();
                let over: Vec<String> = over
                    .map(|other| format!("{} of {}", other.value, other.scope))
                    .collect();
                (held.setting, over.join(", "))
            })
            .collect(),
    };
    let text = rendered(&shown, config.output.value)?;
    screen.result(&text)?;
    if shown.is_empty() {
        screen.remark("every variable has its default; `holdfast rules show RULE` tells it");
    }
    Ok(Exit::Clean)
}

fn rendered(shown: &[(&Setting, String)], output: Output) -> Result<String, Refusal> {
    let at = |setting: &Setting| Timestamp::from_nanos(setting.set_at);
    let cells = |(setting, over): &(&Setting, String), time: String| {
        [
            setting.rule.clone(),
            setting.variable.clone(),
            setting.value.to_string(),
            setting.scope.to_string(),
            over.clone(),
            time,
            setting.set_by.clone(),
        ]
    };
    Ok(match output {
        Output::Table => table::rows(
            ["RULE", "VARIABLE", "VALUE", "FOR", "OVERRULES", "SET", "BY"],
            shown.iter().map(|row| cells(row, moment::local(at(row.0)))),
        ),
        Output::Csv => csv::lines(
            [
                "rule",
                "variable",
                "value",
                "for",
                "overrules",
                "set_at",
                "set_by",
            ],
            shown
                .iter()
                .map(|row| cells(row, moment::rfc3339(at(row.0)))),
        ),
        Output::Json => {
            let rows: Vec<Value> = shown
                .iter()
                .map(|(setting, over)| {
                    json!({
                        "rule": setting.rule,
                        "variable": setting.variable,
                        "value": setting.value,
                        "scope": setting.scope.kind(),
                        "of": setting.scope.of(),
                        "overrules": over,
                        "set_at": moment::rfc3339(at(setting)),
                        "set_by": setting.set_by,
                    })
                })
                .collect();
            super::json(&rows)?
        }
    })
}
