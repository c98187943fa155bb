//! Charts as SVG, drawn here: attributes only, since the Content-Security-Policy takes no inline style.
//! Each says in words what it shows; a screen reader needs no picture.

use std::fmt::Write as _;

use maud::{Markup, html};
use scan::policy::ComplianceState;
use world::Timestamp;

use super::{badge, when};

/// Units across; the view box is stretched to the width that there is.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// A score from 0 to 100 as a bar.
pub(super) fn gauge(score: f64) -> Markup {
    html! {
        svg class="chart gauge" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class="f-track" width="1000" height="10" rx="2" {}
            rect class="f-accent" width=(number(share(score))) height="10" rx="2" {}
        }
    }
}

/// The same within a row of a table.
pub(super) fn bar(score: f64) -> Markup {
    html! {
        svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class="f-track" width="1000" height="10" {}
            rect class="f-accent" width=(number(share(score))) height="10" {}
        }
    }
}

fn share(score: f64) -> f64 {
    score.clamp(0.0, 100.0) * WIDTH / 100.0
}

pub(super) const fn fill(state: ComplianceState) -> &'static str {
    match state {
        ComplianceState::Compliant => "f-good",
        ComplianceState::Partial => "f-part",
        ComplianceState::NonCompliant => "f-bad",
        ComplianceState::Critical => "f-dire",
        ComplianceState::Unknown => "f-idle",
    }
}

/// How many hosts are in each state, side by side. The counts in words stand beside it.
pub(super) fn stack(counts: &[(ComplianceState, u64)]) -> Markup {
    const BETWEEN: f64 = 4.0;
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut from = 0.0;
    let parts: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|&(state, count)| {
            let whole = WIDTH * quotient(count, total);
            let drawn = if whole > 2.0 * BETWEEN {
                whole - BETWEEN
            } else {
                whole
            };
            let part = (state, from, drawn);
            from += whole;
            part
        })
        .collect();
    html! {
        svg class="chart stack" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true" {
            @if parts.is_empty() { rect class="f-track" width="1000" height="20" {} }
            @for (state, x, width) in parts {
                rect class=(fill(state)) x=(number(x)) width=(number(width)) height="20" {}
            }
        }
    }
}

/// `part / whole` for drawing.
pub(super) fn quotient(part: u64, whole: u64) -> f64 {
    // Exact to 2^53, and a chart has a thousand pixels.
    #[allow(clippy::cast_precision_loss, reason = "for drawing only")]
    let quotient = part as f64 / whole as f64;
    quotient
}

/// A score over time. Between two scans it is what it was: steps, no slopes that nobody measured.
pub(super) fn trend(
    points: &[(Timestamp, f64)],
    from: Timestamp,
    to: Timestamp,
    what: &str,
) -> Markup {
    let Some((&(first_at, first), &(_, last))) = points.first().zip(points.last()) else {
        return html! { p class="empty" { "Nothing was scored in this time." } };
    };
    let lowest = points.iter().map(|point| point.1).fold(100.0, f64::min);
    let highest = points.iter().map(|point| point.1).fold(0.0, f64::max);
    // At least ten points high, or a tenth of a point would look like a cliff.
    let floor = ((lowest - 2.0).min(highest - 10.0)).max(0.0).floor();
    let ceiling = (highest + 2.0).max(floor + 10.0).min(100.0).ceil();
    let x = |at: Timestamp| {
        let span = to.nanos().saturating_sub(from.nanos()).max(1);
        WIDTH
            * quotient(
                at.nanos().clamp(from.nanos(), to.nanos()) - from.nanos(),
                span,
            )
    };
    let y = |score: f64| HEIGHT - HEIGHT * (score - floor) / (ceiling - floor);
    let mut line = format!("M{} {}", number(x(first_at)), number(y(first)));
    for &(at, score) in &points[1..] {
        write!(line, "H{}V{}", number(x(at)), number(y(score))).expect("a string takes all");
    }
    write!(line, "H{}", number(WIDTH)).expect("a string takes all");
    let area = format!("{line}V{HEIGHT}H{}Z", number(x(first_at)));
    let told = format!(
        "{what}: {first:.1} % on {}, {last:.1} % on {}; lowest {lowest:.1} %, highest {highest:.1} %",
        when::words(first_at),
        when::words(to),
    );
    html! {
        figure class="plot" role="img" aria-label=(told) {
            svg class="chart" viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true" {
                path class="f-area" d=(area) {}
                path class="s-grid" d="M0 0H1000M0 50H1000M0 100H1000" {}
                path class="s-line" d=(line) {}
            }
            span class="level top" { (format!("{ceiling:.0}")) }
            span class="level foot" { (format!("{floor:.0}")) }
        }
        div class="axis" aria-hidden="true" { (when::short(from, to)) (when::short(to, to)) }
    }
}

/// One host as a cell: its colour is its state, and so are the strokes over it; how much is filled is
/// its score.
pub(super) fn cell(state: ComplianceState, score: Option<f64>) -> Markup {
    let height = 20.0 * score.unwrap_or(100.0).clamp(12.0, 100.0) / 100.0;
    html! {
        svg viewBox="0 0 20 20" preserveAspectRatio="none" aria-hidden="true" {
            rect class="f-track" width="20" height="20" {}
            rect class=(fill(state)) y=(number(20.0 - height)) width="20" height=(number(height)) {}
            @match state {
                ComplianceState::Critical => path class="over" d="M5 5l10 10M15 5L5 15" {},
                ComplianceState::NonCompliant => path class="over" d="M4 16L16 4" {},
                ComplianceState::Unknown => path class="over" d="M6 10h.1M10 10h.1M14 10h.1" {},
                ComplianceState::Partial | ComplianceState::Compliant => {},
            }
        }
    }
}

/// What the cells mean.
pub(super) fn legend(counts: &[(ComplianceState, u64)]) -> Markup {
    html! {
        @for &(state, count) in counts {
            span { (badge::state(state)) " " (count) }
        }
    }
}

/// Two decimals and no more: the pages are sent often.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(1_768_464_000_000_000_000 + second * 1_000_000_000)
    }

    #[test]
    fn a_trend_is_told_in_words_and_drawn_in_steps() {
        let points = [(at(0), 80.0), (at(50), 60.0), (at(100), 90.0)];
        let drawn = trend(&points, at(0), at(100), "Score of the fleet").into_string();
        assert!(
            drawn.contains("80.0 % on 15 Jan 2026, 08:00 UTC"),
            "{drawn}"
        );
        assert!(drawn.contains("lowest 60.0 %, highest 90.0 %"), "{drawn}");
        assert!(
            drawn.contains("M0 35.29H500V94.12H1000V5.88H1000"),
            "{drawn}"
        );
    }

    #[test]
    fn a_chart_of_one_point_or_none_or_of_one_moment_is_drawn_too() {
        for points in [
            vec![],
            vec![(at(5), 100.0)],
            vec![(at(5), 0.0), (at(5), 0.0)],
        ] {
            let drawn = trend(&points, at(5), at(5), "x").into_string();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
        assert!(
            !stack(&[(ComplianceState::Critical, 0)])
                .into_string()
                .contains("NaN")
        );
    }
}
