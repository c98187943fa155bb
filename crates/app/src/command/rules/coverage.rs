//! `holdfast rules coverage`: what rules say they serve.

use scan::rule::{self, KNOWN_PLATFORMS};

use crate::{
    cli::{
        Output,
        rules::{Coverage, Framework},
    },
    config::Config,
    exit::{Exit, Refusal},
    present::{csv, table},
    ruleset::Ruleset,
    screen::Screen,
};

impl From<Framework> for rule::Framework {
    fn from(framework: Framework) -> Self {
        match framework {
            Framework::Cis => Self::Cis,
            Framework::Stig => Self::Stig,
            Framework::Nist => Self::Nist,
            Framework::Pci => Self::Pci,
            Framework::Anssi => Self::Anssi,
        }
    }
}

pub(super) fn run(asked: &Coverage, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let rules = Ruleset::load(config, asked.place.rules_dir.as_deref())?;
    let platform = asked.platform.as_deref();
    if let Some(name) = platform {
        let of_a_rule = rules.all().iter().flat_map(|rule| &rule.platforms);
        let known = KNOWN_PLATFORMS.contains(&name)
            || of_a_rule.map(ToString::to_string).any(|one| one == name);
        if !known {
            return Err(Refusal::new(format!("unknown platform `{name}`"))
                .next(format!("one of {}", KNOWN_PLATFORMS.join(", "))));
        }
    }
    let found = rule::coverage(rules.all(), asked.framework.into(), platform);
    let text = match config.output.value {
        Output::Json => super::super::json(&found)?,
        Output::Csv => csv::lines(["reference", "control", "rule", "platforms"], rows(&found)),
        Output::Table => words(&found),
    };
    screen.result(&text)?;
    screen.remark(format_args!(
        "Counted is what rules name. How much of {} that is, only the framework's own list can tell.",
        found.framework.name()
    ));
    Ok(Exit::Clean)
}

/// One row a control and rule; a rule that names no control has one with neither.
fn rows(found: &rule::Coverage) -> Vec<[String; 4]> {
    let named = found.controls.iter().flat_map(|control| {
        control.rules.iter().map(|rule| {
            [
                control.reference.clone(),
                control.control.clone(),
                rule.clone(),
                String::new(),
            ]
        })
    });
    let without = found.without.iter().map(|one| {
        [
            String::new(),
            String::new(),
            one.rule.clone(),
            one.platforms.join(" "),
        ]
    });
    named.chain(without).collect()
}

fn words(found: &rule::Coverage) -> String {
    let mut text = table::rows(
        ["PLATFORM", "RULES", "WITH A CONTROL", "CONTROLS"],
        found.platforms.iter().map(|one| {
            [
                one.platform.clone(),
                one.rules.to_string(),
                one.rules_with_reference.to_string(),
                one.controls.to_string(),
            ]
        }),
    );
    if !found.controls.is_empty() {
        text.push('\n');
        text.push_str(&table::rows(
            ["CONTROL", "REFERENCE", "RULES"],
            found.controls.iter().map(|one| {
                [
                    one.control.clone(),
                    one.reference.clone(),
                    one.rules.join(" "),
                ]
            }),
        ));
    }
    if !found.without.is_empty() {
        text.push('\n');
        text.push_str(&table::rows(
            ["RULE WITHOUT A CONTROL", "PLATFORMS"],
            found
                .without
                .iter()
                .map(|one| [one.rule.clone(), one.platforms.join(" ")]),
        ));
    }
    text
}
