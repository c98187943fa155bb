//! Numbers and reasons as people read them.

use scan::failure::Reason;

use crate::{present::counted, view::BySeverity};

pub(super) fn score(score: f64) -> String {
    // Cut, not rounded: 100 means all of them.
    format!("{:.1}", (score * 10.0).floor() / 10.0)
}

pub(super) fn score_of(found: Option<f64>) -> String {
    found.map_or_else(
        || "no score".to_owned(),
        |found| format!("{} %", score(found)),
    )
}

/// `12 345`, with a space that does not break.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `2 critical and 5 high failures`.
pub(super) fn failing(by: &BySeverity) -> String {
    let parts = [
        (by.critical, "critical"),
        (by.high, "high"),
        (by.medium, "medium"),
        (by.low, "low"),
    ];
    let mut told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match told.pop() {
        None => "nothing fails".to_owned(),
        Some(last) if told.is_empty() => last,
        Some(last) => format!("{} and {last}", told.join(", ")),
    }
}

/// `100 of 250 hosts`, or `250 hosts`.
pub(super) fn shown(shown: usize, of: usize, what: &str) -> String {
    let all = counted(of as u64, what);
    if shown == of {
        all
    } else {
        format!("{shown} of {all}")
    }
}

/// Why a scan came to nothing, after a host's name.
pub(super) const fn failure(reason: Reason) -> &'static str {
    match reason {
        Reason::HostUnreachable => "cannot be reached",
        Reason::HostKeyUnknown => "not trusted yet: its key is unknown",
        Reason::HostKeyChanged => "refused: its key changed",
        Reason::AuthFailed => "let nobody log in",
        Reason::CredentialMissing => "without a credential",
        Reason::CredentialDecryptionFailed => "whose credential cannot be opened",
        Reason::HostBusy => "busy with another scan",
        Reason::Timeout => "took too long",
        Reason::EvidenceOversize => "sent more than a scan may bring back",
        Reason::Cancelled => "whose scan was stopped",
        Reason::Internal => "failed by an internal error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_be_read() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1\u{202f}000"),
            (1_234_567, "1\u{202f}234\u{202f}567"),
        ] {
            assert_eq!(thousands(number), expected);
        }
        assert_eq!(score(99.99), "99.9");
        assert_eq!(score(100.0), "100.0");
        let by = |critical, high, medium, low| {
            failing(&BySeverity {
                critical,
                high,
                medium,
                low,
            })
        };
        assert_eq!(by(0, 0, 0, 0), "nothing fails");
        assert_eq!(by(0, 2, 0, 0), "2 high");
        assert_eq!(by(1, 2, 0, 3), "1 critical, 2 high and 3 low");
        assert_eq!(shown(100, 250, "host"), "100 of 250 hosts");
    }
}
