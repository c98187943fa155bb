//! The screen a person sees after a scan: score, failures by severity with their fix, what could
//! not be assessed and why, what changed.

use std::{collections::BTreeMap, fmt::Write};

use scan::{
    judge::{Outcome, Summary as Counts},
    ledger::Change,
    rule::Severity,
};

use super::{Palette, cause, safe, wrapped};

/// Width of the score bar in characters.
const BAR_WIDTH: usize = 30;

/// Columns of a mark and what surrounds it.
const MARKED: usize = 4;

/// Beyond this the top of the summary has left most terminals.
const LINES_ONE_SCREEN: usize = 40;

/// One verdict with what its rule says about mending it.
pub(crate) struct Line {
    pub(crate) rule: String,
    pub(crate) title: String,
    pub(crate) severity: Severity,
    pub(crate) verdict: Outcome,
    pub(crate) reason: String,
    /// Until when and by whom the failure is waived.
    pub(crate) waived: Option<String>,
    pub(crate) fix: String,
}

/// What changed, and since when.
pub(crate) enum ChangesSince {
    /// Not a scan, or nothing to compare with.
    Unasked,
    FirstScan,
    /// The earlier moment, and a line for each change.
    Scan(String, Vec<String>),
}

pub(crate) struct Summary {
    /// Host, system and moment.
    pub(crate) heading: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) lines: Vec<Line>,
    pub(crate) changes: ChangesSince,
    /// Columns of the terminal; none where the text does not go to one.
    pub(crate) width: Option<usize>,
}

const SEVERITIES: [Severity; 4] = [
    Severity::Critical,
    Severity::High,
    Severity::Medium,
    Severity::Low,
];

impl Summary {
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        self.heading(&mut text);
        self.score(&mut text);
        for severity in SEVERITIES {
            self.failures(&mut text, severity);
        }
        self.grouped(
            &mut text,
            Outcome::NotAssessed,
            "COULD NOT BE ASSESSED",
            "?",
        );
        self.grouped(&mut text, Outcome::Error, "ERRORS", "!");
        self.changes(&mut text);
        self.total(&mut text);
        text
    }

    /// The score once more, where the eye is when a long list has scrolled by.
    fn total(&self, text: &mut String) {
        if text.lines().count() < LINES_ONE_SCREEN {
            return;
        }
        let score = self.counts.score.map_or_else(
            || "nothing assessed".to_owned(),
            |score| format!("{score:.1} %"),
        );
        line(text, "");
        line(
            text,
            &format!(
                "{strong}{score}{strong:#}  {} pass, {} fail, {} not assessed",
                self.counts.pass,
                self.counts.fail,
                self.counts.not_assessed,
                strong = Palette::STRONG,
            ),
        );
    }

    fn heading(&self, text: &mut String) {
        let strong = Palette::STRONG;
        let parts: Vec<String> = self.heading.iter().map(|part| safe(part)).collect();
        line(text, &format!("{strong}{}{strong:#}", parts.join("  ·  ")));
    }

    fn score(&self, text: &mut String) {
        let counts = &self.counts;
        let bar = counts.score.map_or_else(
            || format!("{0}nothing could be assessed{0:#}", Palette::DOUBT),
            |score| {
                let style = if score >= 80.0 {
                    Palette::GOOD
                } else if score >= 50.0 {
                    Palette::DOUBT
                } else {
                    Palette::BAD
                };
                let filled = filled_cells(score);
                format!(
                    "{style}{}{style:#}{faint}{}{faint:#}  {strong}{score:.1} %{strong:#}",
                    "█".repeat(filled),
                    "░".repeat(BAR_WIDTH - filled),
                    faint = Palette::FAINT,
                    strong = Palette::STRONG,
                )
            },
        );
        line(text, "");
        line(text, &format!("  {bar}"));
        let mut parts = vec![
            format!("{0}{1} pass{0:#}", Palette::GOOD, counts.pass),
            format!("{0}{1} fail{0:#}", Palette::BAD, counts.fail),
        ];
        if counts.not_assessed > 0 {
            parts.push(format!(
                "{0}{1} not assessed{0:#}",
                Palette::DOUBT,
                counts.not_assessed
            ));
        }
        if counts.error > 0 {
            parts.push(format!("{0}{1} error{0:#}", Palette::DOUBT, counts.error));
        }
        parts.push(format!(
            "{0}{1} not applicable{0:#}",
            Palette::FAINT,
            counts.not_applicable
        ));
        line(text, &format!("  {}", parts.join("  ")));
        self.waived(text);
    }

    /// The score that counts is above; this one leaves out what somebody answers for.
    fn waived(&self, text: &mut String) {
        let waived = self.lines.iter().filter(|line| line.waived.is_some());
        let waived = waived.count();
        if waived == 0 {
            return;
        }
        let counted = self.lines.iter().filter(|line| line.waived.is_none());
        let score = Counts::of(counted.map(|line| line.verdict)).score;
        let score = score.map_or_else(
            || "nothing left".to_owned(),
            |score| format!("{score:.1} %"),
        );
        let faint = Palette::FAINT;
        line(
            text,
            &format!("  {faint}{waived} of the failures waived; without them {score}{faint:#}"),
        );
    }

    fn failures(&self, text: &mut String, severity: Severity) {
        let failing: Vec<&Line> = self
            .lines
            .iter()
            .filter(|line| line.verdict == Outcome::Fail && line.severity == severity)
            .collect();
        if failing.is_empty() {
            return;
        }
        let style = Palette::severity(severity);
        line(text, "");
        line(
            text,
            &format!(
                "{style}{} {}{style:#}",
                severity.name().to_uppercase(),
                failing.len()
            ),
        );
        for failure in failing {
            let (bad, faint, strong) = (Palette::BAD, Palette::FAINT, Palette::STRONG);
            let (title, rule) = (safe(&failure.title), safe(&failure.rule));
            let together = MARKED + title.chars().count() + 2 + rule.chars().count();
            let between = match self.width {
                Some(width) if together > width => "\n    ",
                _ => "  ",
            };
            line(
                text,
                &format!(
                    "  {bad}✗{bad:#} {strong}{}{strong:#}{between}{faint}{rule}{faint:#}",
                    wrapped(&title, MARKED, self.width),
                ),
            );
            self.hanging(text, "      found  ", &safe(&failure.reason));
            if let Some(waived) = &failure.waived {
                self.hanging(text, "      but    ", &safe(waived));
            }
            if !failure.fix.is_empty() {
                self.hanging(text, "      fix    ", &safe(&failure.fix));
            }
        }
    }

    /// Rules with this outcome by reason: one missing privilege often explains dozens of them.
    fn grouped(&self, text: &mut String, outcome: Outcome, heading: &str, mark: &str) {
        let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for found in self.lines.iter().filter(|line| line.verdict == outcome) {
            let rules = groups.entry(safe(&found.reason)).or_default();
            rules.push(&found.rule);
        }
        if groups.is_empty() {
            return;
        }
        let style = Palette::outcome(outcome);
        let count: usize = groups.values().map(Vec::len).sum();
        line(text, "");
        line(text, &format!("{style}{heading} {count}{style:#}"));
        let mut groups: Vec<(String, Vec<&str>)> = groups.into_iter().collect();
        groups.sort_by_key(|(_, rules)| std::cmp::Reverse(rules.len()));
        for (reason, rules) in groups {
            let reason = wrapped(&reason, MARKED, self.width);
            line(text, &format!("  {style}{mark}{style:#} {reason}"));
            let faint = Palette::FAINT;
            let rules = wrapped(&listed(&rules), 6, self.width);
            line(text, &format!("      {faint}{rules}{faint:#}"));
        }
    }

    /// A lead and what hangs right of it.
    fn hanging(&self, text: &mut String, lead: &str, content: &str) {
        let content = wrapped(content, lead.len(), self.width);
        line(text, &format!("{lead}{content}"));
    }

    fn changes(&self, text: &mut String) {
        let strong = Palette::STRONG;
        match &self.changes {
            ChangesSince::Unasked => {}
            ChangesSince::FirstScan => {
                line(text, "");
                line(
                    text,
                    "First scan of this host: later ones will show what changed.",
                );
            }
            ChangesSince::Scan(since, changes) if changes.is_empty() => {
                line(text, "");
                line(text, &format!("Nothing changed since {since}."));
            }
            ChangesSince::Scan(since, changes) => {
                line(text, "");
                line(
                    text,
                    &format!("{strong}CHANGED SINCE {since}  {}{strong:#}", changes.len()),
                );
                for change in changes {
                    line(text, &format!("  {change}"));
                }
            }
        }
    }
}

/// `rule  pass → fail`, coloured by where it went, and whether it was another thing than the host.
pub(crate) fn change_line(change: &Change) -> String {
    let (style, faint) = (Palette::outcome(change.to), Palette::FAINT);
    let from = change.from.map_or("first seen", Outcome::name);
    let line = format!(
        "{}  {from} → {style}{}{style:#}",
        safe(&change.rule),
        change.to.name()
    );
    match cause::remark(&change.because) {
        remark if remark.is_empty() => line,
        remark => format!("{line}  {faint}{remark}{faint:#}"),
    }
}

fn listed(rules: &[&str]) -> String {
    const SHOWN: usize = 6;
    let mut shown: Vec<String> = rules.iter().take(SHOWN).map(|rule| safe(rule)).collect();
    if rules.len() > SHOWN {
        shown.push(format!("and {} more", rules.len() - SHOWN));
    }
    shown.join(", ")
}

/// Full only at 100, empty only at 0: the bar never rounds a remaining failure away.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a score is within 0..=100 and the bar a few cells wide"
)]
fn filled_cells(score: f64) -> usize {
    let cells = (score.clamp(0.0, 100.0) / 100.0 * BAR_WIDTH as f64) as usize;
    if score > 0.0 {
        cells.clamp(1, BAR_WIDTH)
    } else {
        0
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::filled_cells;

    #[test]
    fn the_bar_is_full_only_at_a_hundred_and_empty_only_at_zero() {
        assert_eq!(filled_cells(0.0), 0);
        assert_eq!(filled_cells(0.1), 1);
        assert_eq!(filled_cells(99.9), 29);
        assert_eq!(filled_cells(100.0), 30);
    }
}
