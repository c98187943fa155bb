//! A notice in words, for people.

use std::fmt::Write as _;

use scan::alert::{Event, Notice, What};
use world::Timestamp;

use crate::moment::rfc3339;

/// Characters of a subject: what lists of mails show.
const SUBJECT_CHARS_MAX: usize = 120;

/// One line, without control characters.
pub(super) fn subject(notice: &Notice) -> String {
    let whose = notice.host.as_ref().map_or("the site", |host| &host.name);
    let text = match (&notice.left_out, &notice.events[..]) {
        (Some(left_out), _) => format!("{} more alerts were not sent one by one", left_out.events),
        (None, [one]) => format!("{whose}: {}", line(one)),
        (None, events) => {
            let is_over = |event: &&Event| event.event == What::Resolved;
            let over = events.iter().filter(is_over).count() as u64;
            match notice.total.saturating_sub(over) {
                0 => format!("{whose}: {} alerts are over", notice.total),
                open if over == 0 => format!("{whose}: {open} alerts"),
                open => format!("{whose}: {open} alerts, {over} over"),
            }
        }
    };
    let marked = format!("[{}] {text}", notice.severity());
    let plain = marked
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    plain.take(SUBJECT_CHARS_MAX).collect()
}

/// The body of a mail.
pub(super) fn body(notice: &Notice) -> String {
    let mut lines = Vec::new();
    if let Some(host) = &notice.host {
        let mut of = format!("Host {}", host.name);
        if !host.site.is_empty() {
            write!(of, ", site {}", host.site).expect("writing to a string cannot fail");
        }
        for group in &host.groups {
            write!(of, ", group {group}").expect("writing to a string cannot fail");
        }
        lines.extend([of, String::new()]);
    }
    for event in &notice.events {
        lines.push(format!("{:8} {}", event.severity, line(event)));
        if event.event != What::Test {
            let since = rfc3339(Timestamp::from_nanos(event.first));
            let (count, alert) = (event.count, event.alert);
            lines.push(format!(
                "         since {since}, count {count}; `holdfast alert show {alert}`"
            ));
        }
    }
    let named = notice.events.len() as u64;
    if notice.left_out.is_none() && notice.total > named {
        lines.push(format!("... and {} more", notice.total - named));
    }
    if let Some(left_out) = &notice.left_out {
        lines.push(format!(
            "{} alerts came while this receiver did not answer or was too slow:",
            left_out.events
        ));
        for (severity, count) in left_out.by_severity.iter().rev() {
            lines.push(format!("  {count} {severity}"));
        }
    }
    lines.push(String::new());
    lines.push("`holdfast alert list` shows what is open.".to_owned());
    lines.push(format!("Notice {}", notice.id));
    lines.join("\n") + "\n"
}

/// One event in a line.
pub(super) fn line(event: &Event) -> String {
    let what = match event.event {
        What::Opened => "",
        What::Reopened => "again: ",
        What::SilenceEnded => "still: ",
        What::Resolved => "over: ",
        What::Test => return event.detail.clone(),
    };
    format!("{what}{}: {}", event.kind, event.detail)
}
