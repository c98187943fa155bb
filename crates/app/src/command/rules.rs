//! `holdfast rules`: list, show, test, lint, new, coverage.

mod coverage;
mod new;

use std::fmt::Write;

use scan::rule::{Failure, Rule};
use serde::Serialize;

use crate::{
    cli::{Output, RulesAction},
    config::Config,
    exit::{Exit, Refusal},
    present::{Palette, csv, safe, table},
    ruleset::Ruleset,
    screen::Screen,
};

pub(crate) fn run(action: &RulesAction, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let output = config.output.value;
    match action {
        RulesAction::List(place) => list(
            &Ruleset::load(config, place.rules_dir.as_deref())?,
            output,
            screen,
        ),
        RulesAction::Show { rule, place } => show(
            &Ruleset::load(config, place.rules_dir.as_deref())?,
            rule,
            output,
            screen,
        ),
        RulesAction::Test(chosen) => {
            let rules = match &chosen.only {
                Some(dir) => Ruleset::only(dir)?.usable()?,
                None => Ruleset::load(config, chosen.place.rules_dir.as_deref())?,
            };
            test(&rules, output, screen)
        }
        RulesAction::Lint(chosen) => {
            let rules = match &chosen.only {
                Some(dir) => Ruleset::only(dir)?,
                None => Ruleset::load_with_faults(config, chosen.place.rules_dir.as_deref())?,
            };
            lint_all(&rules, output, screen)
        }
        RulesAction::New(asked) => new::run(asked, config, screen),
        RulesAction::Coverage(asked) => coverage::run(asked, config, screen),
    }
}

/// One rule as `rules list` and `rules show` print it.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    title: &'a str,
    severity: scan::rule::Severity,
    category: &'a str,
    platforms: Vec<String>,
    references: &'a std::collections::BTreeMap<String, Vec<String>>,
    description: &'a str,
    rationale: &'a str,
    fix: &'a str,
    commands: &'a [String],
    tests: usize,
    digest: &'a str,
}

impl<'a> Document<'a> {
    fn of(rule: &'a Rule) -> Self {
        Self {
            id: &rule.id,
            title: &rule.title,
            severity: rule.severity,
            category: &rule.category,
            platforms: rule
                .platforms
                .iter()
                .map(|platform| format!("{}-{}", platform.id, platform.version))
                .collect(),
            references: &rule.references,
            description: &rule.description,
            rationale: &rule.rationale,
            fix: &rule.fix.summary,
            commands: &rule.fix.commands,
            tests: rule.tests().len(),
            digest: &rule.digest,
        }
    }
}

fn list(rules: &Ruleset, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let text = match output {
        Output::Json => super::json(&rules.all().iter().map(Document::of).collect::<Vec<_>>())?,
        Output::Csv => csv_lines(rules.all()),
        Output::Table => table::rows(
            ["RULE", "SEVERITY", "CATEGORY", "TITLE"],
            rules.all().iter().map(cells),
        ),
    };
    screen.result(&text)?;
    screen.remark(format_args!("{} rules", rules.all().len()));
    Ok(Exit::Clean)
}

fn csv_lines<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    csv::lines(
        ["id", "severity", "category", "title"],
        rules.into_iter().map(cells),
    )
}

fn cells(rule: &Rule) -> [String; 4] {
    [
        rule.id.clone(),
        rule.severity.name().to_owned(),
        rule.category.clone(),
        rule.title.clone(),
    ]
}

fn show(rules: &Ruleset, id: &str, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let rule = rules.get(id).ok_or_else(|| {
        let near: Vec<&str> = rules
            .all()
            .iter()
            .map(|rule| rule.id.as_str())
            .filter(|known| near(id, known))
            .take(3)
            .collect();
        let refusal = Refusal::new(format!("no rule `{id}`"));
        if near.is_empty() {
            refusal.next("`holdfast rules list` prints every rule")
        } else {
            refusal.next(format!("perhaps {}", near.join(", ")))
        }
    })?;
    let text = match output {
        Output::Json => super::json(&Document::of(rule))?,
        Output::Csv => csv_lines([rule]),
        Output::Table => words(rule),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

/// Whether two ids share more than one word. Shorter ones are in nearly every id.
fn near(id: &str, known: &str) -> bool {
    let words = id.split('-').filter(|word| word.len() > 2);
    words.filter(|word| known.contains(word)).count() > 1
}

fn words(rule: &Rule) -> String {
    let strong = Palette::STRONG;
    let severity = Palette::severity(rule.severity);
    let mut text = format!(
        "{strong}{}{strong:#}\n{}  {severity}{}{severity:#}  {}\n\n{}\n\nWhy\n{}\n\nFix\n  {}\n",
        safe(&rule.title),
        safe(&rule.id),
        rule.severity.name(),
        Document::of(rule).platforms.join(", "),
        indented(&rule.description),
        indented(&rule.rationale),
        safe(&rule.fix.summary),
    );
    let mut line = |content: String| {
        writeln!(text, "{content}").expect("writing to a string cannot fail");
    };
    for command in &rule.fix.commands {
        line(format!("    {}", safe(command)));
    }
    if !rule.references.is_empty() {
        line("\nReferences".to_owned());
        for (framework, ids) in &rule.references {
            line(safe(&format!("  {framework}: {}", ids.join(", "))));
        }
    }
    for (name, variable) in &rule.variables {
        line(format!(
            "\nVariable {} = {}\n  {}",
            safe(name),
            safe(&variable.default.to_string()),
            safe(&variable.description)
        ));
    }
    line(format!(
        "\n{} tests, file {}",
        rule.tests().len(),
        rule.file
    ));
    text
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text
        .trim()
        .lines()
        .map(|line| format!("  {}", safe(line)))
        .collect();
    lines.join("\n")
}

fn test(rules: &Ruleset, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let report = rules.test();
    let text = match output {
        Output::Json => super::json(&serde_json::json!({
            "rules": report.rules,
            "tests": report.tests,
            "failures": report.failures,
        }))?,
        Output::Csv => csv::lines(
            ["rule", "test", "expected", "actual", "reason"],
            report.failures.iter().map(failure_cells),
        ),
        Output::Table => {
            let mut text = String::new();
            for failure in &report.failures {
                let [rule, test, expected, actual, reason] = failure_cells(failure);
                let line = format!(
                    "{}:{}: {rule}: test `{test}` expected {expected}, got {actual}: {reason}",
                    failure.file, failure.line
                );
                text.push_str(&safe(&line));
                text.push('\n');
            }
            text.push_str(&format!(
                "{} tests of {} rules, {} failed\n",
                report.tests,
                report.rules,
                report.failures.len()
            ));
            text
        }
    };
    screen.result(&text)?;
    Ok(if report.failures.is_empty() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

fn failure_cells(failure: &Failure) -> [String; 5] {
    [
        failure.rule.clone(),
        failure.test.clone(),
        failure.expected.name().to_owned(),
        failure
            .actual
            .map_or("no verdict", scan::judge::Outcome::name)
            .to_owned(),
        failure.reason.clone(),
    ]
}

fn lint_all(rules: &Ruleset, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let faults = rules.lint();
    let text = match output {
        Output::Json => super::json(&faults)?,
        Output::Csv => csv::lines(["fault"], faults.iter().map(|fault| [fault.clone()])),
        Output::Table => {
            let mut text: String = faults
                .iter()
                .map(|fault| format!("{}\n", safe(fault)))
                .collect();
            text.push_str(&format!(
                "{} rules, {} faults\n",
                rules.all().len(),
                faults.len()
            ));
            text
        }
    };
    screen.result(&text)?;
    Ok(if faults.is_empty() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}
