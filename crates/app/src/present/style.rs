//! Colours and marks by meaning.

use anstyle::{AnsiColor, Color, Style};
use scan::{inventory::field, judge::Outcome, rule::Severity};

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// The few styles in use. Every meaning is also in words or a mark: colour is never the only carrier.
pub(crate) struct Palette;

impl Palette {
    pub(crate) const STRONG: Style = Style::new().bold();
    pub(crate) const FAINT: Style = Style::new().dimmed();
    pub(crate) const GOOD: Style = colour(AnsiColor::Green);
    pub(crate) const BAD: Style = colour(AnsiColor::Red);
    pub(crate) const DOUBT: Style = colour(AnsiColor::Yellow);
    pub(crate) const NOTE: Style = colour(AnsiColor::Cyan);

    pub(crate) const fn severity(severity: Severity) -> Style {
        match severity {
            Severity::Critical => colour(AnsiColor::Red).bold(),
            Severity::High => Self::BAD,
            Severity::Medium => Self::DOUBT,
            Severity::Low => Self::NOTE,
        }
    }

    pub(crate) const fn outcome(outcome: Outcome) -> Style {
        match outcome {
            Outcome::Pass => Self::GOOD,
            Outcome::Fail => Self::BAD,
            Outcome::NotApplicable => Self::FAINT,
            Outcome::NotAssessed | Outcome::Error => Self::DOUBT,
        }
    }
}

/// Text from a host, made fit for a terminal: control characters cannot move its cursor, and
/// invisible ones cannot reorder or hide what stands beside them.
pub(crate) fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || field::is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_cannot_move_the_cursor_of_whoever_reads_its_findings() {
        assert_eq!(super::safe("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(super::safe("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(super::safe("grün /tmp/x"), "grün /tmp/x");
    }
}
