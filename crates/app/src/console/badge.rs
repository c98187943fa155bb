//! Verdicts, severities and states as a glyph, a word and a colour; the colour is never alone.

use maud::{Markup, PreEscaped, html};
use scan::{judge::Outcome, policy::ComplianceState, rule::Severity};

/// The shapes, once a page; `use` takes them from there. Drawn, since no font can be relied on.
const SHAPES: &str = concat!(
    r#"<symbol id="g-tick" viewBox="0 0 16 16"><path d="M2.5 8.5l4 4 7-9" fill="none" stroke="currentColor" stroke-width="2.4"/></symbol>"#,
    r#"<symbol id="g-cross" viewBox="0 0 16 16"><path d="M3 3l10 10M13 3L3 13" fill="none" stroke="currentColor" stroke-width="2.4"/></symbol>"#,
    r#"<symbol id="g-ask" viewBox="0 0 16 16"><path d="M4.5 5.2C4.5 3 6 2 8 2s3.5 1.100 3.500 3.100C11.500 7.500 8 7.500 8 10.300M8 12.200v2.200" fill="none" stroke="currentColor" stroke-width="2.2"/></symbol>"#,
    r#"<symbol id="g-dash" viewBox="0 0 16 16"><path d="M3 8h10" fill="none" stroke="currentColor" stroke-width="2.4"/></symbol>"#,
    r#"<symbol id="g-bang" viewBox="0 0 16 16"><path d="M8 1.500v8M8 12v2.400" fill="none" stroke="currentColor" stroke-width="2.6"/></symbol>"#,
    r#"<symbol id="g-full" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6.200" fill="currentColor"/></symbol>"#,
    r#"<symbol id="g-half" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.600" fill="none" stroke="currentColor" stroke-width="1.800"/><path d="M8 2.400a5.600 5.600 0 0 0 0 11.200z" fill="currentColor"/></symbol>"#,
    r#"<symbol id="g-ring" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.600" fill="none" stroke="currentColor" stroke-width="1.800"/></symbol>"#,
    r#"<symbol id="g-diamond" viewBox="0 0 16 16"><path d="M8 .8L15.200 8 8 15.200.8 8z" fill="currentColor"/></symbol>"#,
    r#"<symbol id="g-dots" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.600" fill="none" stroke="currentColor" stroke-width="1.800" stroke-dasharray="2.200 2.200"/></symbol>"#,
    r#"<symbol id="g-1" viewBox="0 0 16 16"><path d="M2 10h2.400v4H2z" fill="currentColor"/><path d="M5.300 7.500h2.400V14H5.300zM8.600 5H11v9H8.600zM11.900 2h2.400v12h-2.400z" fill="currentColor" opacity=".25"/></symbol>"#,
    r#"<symbol id="g-2" viewBox="0 0 16 16"><path d="M2 10h2.400v4H2zM5.300 7.500h2.400V14H5.300z" fill="currentColor"/><path d="M8.600 5H11v9H8.600zM11.900 2h2.400v12h-2.400z" fill="currentColor" opacity=".25"/></symbol>"#,
    r#"<symbol id="g-3" viewBox="0 0 16 16"><path d="M2 10h2.400v4H2zM5.300 7.500h2.400V14H5.300zM8.600 5H11v9H8.600z" fill="currentColor"/><path d="M11.900 2h2.400v12h-2.400z" fill="currentColor" opacity=".25"/></symbol>"#,
    r#"<symbol id="g-4" viewBox="0 0 16 16"><path d="M2 10h2.400v4H2zM5.300 7.500h2.400V14H5.300zM8.600 5H11v9H8.600zM11.900 2h2.400v12h-2.400z" fill="currentColor"/></symbol>"#,
    r#"<symbol id="g-mark" viewBox="0 0 16 16"><path d="M4 2v12M12 2v12M4 8h8" fill="none" stroke="currentColor" stroke-width="2.600"/></symbol>"#,
);

/// Goes before the first glyph of a page.
pub(super) fn shapes() -> Markup {
    html! { svg class="unseen" aria-hidden="true" width="0" height="0" { (PreEscaped(SHAPES)) } }
}

pub(super) fn glyph(shape: &str) -> Markup {
    html! { svg aria-hidden="true" focusable="false" width="16" height="16" { use href=(format!("#g-{shape}")) {} } }
}

pub(super) fn badge(colour: &str, shape: &str, word: &str) -> Markup {
    html! { span class={ "badge " (colour) } { (glyph(shape)) span { (word) } } }
}

/// The word of a verdict on a page.
pub(super) const fn verdict_word(verdict: Outcome) -> &'static str {
    match verdict {
        Outcome::Pass => "passes",
        Outcome::Fail => "fails",
        Outcome::NotApplicable => "does not apply",
        Outcome::NotAssessed => "not assessed",
        Outcome::Error => "rule error",
    }
}

pub(super) fn verdict(verdict: Outcome) -> Markup {
    let (colour, shape) = match verdict {
        Outcome::Pass => ("good", "tick"),
        Outcome::Fail => ("bad", "cross"),
        Outcome::NotApplicable => ("idle", "dash"),
        Outcome::NotAssessed => ("doubt", "ask"),
        Outcome::Error => ("fault", "bang"),
    };
    badge(colour, shape, verdict_word(verdict))
}

pub(super) fn severity(severity: Severity) -> Markup {
    let (colour, shape) = match severity {
        Severity::Critical => ("dire", "4"),
        Severity::High => ("bad", "3"),
        Severity::Medium => ("doubt", "2"),
        Severity::Low => ("idle", "1"),
    };
    badge(colour, shape, severity.name())
}

/// The word of a state on a page.
pub(super) const fn state_word(state: ComplianceState) -> &'static str {
    match state {
        ComplianceState::Unknown => "unknown",
        ComplianceState::Critical => "critical",
        ComplianceState::NonCompliant => "non-compliant",
        ComplianceState::Partial => "partial",
        ComplianceState::Compliant => "compliant",
    }
}

pub(super) fn state(state: ComplianceState) -> Markup {
    let (colour, shape) = match state {
        ComplianceState::Unknown => ("idle", "dots"),
        ComplianceState::Critical => ("dire", "diamond"),
        ComplianceState::NonCompliant => ("bad", "ring"),
        ComplianceState::Partial => ("doubt", "half"),
        ComplianceState::Compliant => ("good", "full"),
    };
    badge(colour, shape, state_word(state))
}
