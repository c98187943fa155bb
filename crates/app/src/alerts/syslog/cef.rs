//! An event as ArcSight's Common Event Format, version 0.
//!
//! `CEF:0|vendor|product|version|signature|name|severity|extension`. In the head `\` and `|` are
//! escaped, in the extension `\` and `=`; a line feed is `\n` in a value and has no place in the head.

use std::fmt::Write as _;

use scan::alert::{Event, Notice, Severity};

use super::words;

/// Characters of a name, as the format has it.
const NAME_CHARS_MAX: usize = 512;
/// Characters of `msg`.
const MESSAGE_CHARS_MAX: usize = 1023;

pub(super) fn event(notice: &Notice, event: &Event) -> String {
    let mut text = head(event.kind.name(), event.kind.name(), event.severity);
    let mut extend = |name: &str, value: &str| {
        write!(text, "{name}={} ", extension(value)).expect("writing to a string cannot fail");
    };
    extend("rt", &millis(notice.at));
    extend("start", &millis(event.first));
    extend("end", &millis(event.last));
    extend("cnt", &event.count.to_string());
    extend("externalId", &event.alert.to_string());
    extend("act", event.event.name());
    extend("outcome", event.state.name());
    if let Some(host) = &notice.host {
        extend("dhost", &host.name);
        extend("cs1Label", "site");
        extend("cs1", &host.site);
    }
    if let Some(subject) = &event.subject {
        extend("cs2Label", "subject");
        extend("cs2", subject);
    }
    extend("cs3Label", "notice");
    extend("cs3", &notice.id);
    let message: String = words::line(event).chars().take(MESSAGE_CHARS_MAX).collect();
    extend("msg", &message);
    text.truncate(text.trim_end().len());
    text
}

/// What a notice only counts.
pub(super) fn more(notice: &Notice, more: u64) -> String {
    let head = head("more", "more alerts", notice.severity());
    format!(
        "{head}rt={} cnt={more} cs3Label=notice cs3={}",
        millis(notice.at),
        extension(&notice.id)
    )
}

fn head(signature: &str, name: &str, severity: Severity) -> String {
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    let severity = match severity {
        Severity::Info => 2,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    };
    format!(
        "CEF:0|Holdfast|Holdfast|{}|{}|{}|{severity}|",
        header(env!("CARGO_PKG_VERSION")),
        header(signature),
        header(&name)
    )
}

pub(super) fn header(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '\\' | '|' => escaped.extend(['\\', char]),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

pub(super) fn extension(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '\\' | '=' => escaped.extend(['\\', char]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

fn millis(nanos: u64) -> String {
    (nanos / 1_000_000).to_string()
}
