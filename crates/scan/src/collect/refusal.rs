//! A program that ran and did not answer: whether for lack of privilege, and in its own words.

use crate::{
    facts::{Reason, Unknown},
    target::Ran,
};

/// How programs say that this user may not ask, in the C locale.
const PRIVILEGE_WORDS: [&str; 5] = [
    "Operation not permitted",
    "Permission denied",
    "must be root",
    "must be run as root",
    "no hostkeys available",
];

/// Longer words are cut: they are read by people.
const WORDS_MAX: usize = 300;

/// Output of a program that ended well.
///
/// # Errors
/// It ended otherwise, or printed what is no text.
pub(crate) fn answer(command: &str, ran: Ran) -> Result<String, Unknown> {
    if ran.status != Some(0) {
        return Err(refusal(command, &ran));
    }
    String::from_utf8(ran.stdout)
        .map_err(|_| Unknown::new(Reason::Malformed, format!("{command}: output is not UTF-8")))
}

fn refusal(command: &str, ran: &Ran) -> Unknown {
    let words = String::from_utf8_lossy(&ran.stderr);
    let reason = if PRIVILEGE_WORDS.iter().any(|known| words.contains(known)) {
        Reason::Privilege
    } else {
        Reason::Unreadable
    };
    // The last line is the fatal one; warnings come before it. Some say it on their output.
    let output = String::from_utf8_lossy(&ran.stdout);
    let lines = || output.lines().chain(words.lines());
    let last = lines().map(str::trim).rfind(|line| !line.is_empty());
    let status = || match ran.status {
        Some(status) => format!("ended with status {status} and no reason"),
        None => "a signal ended it".to_owned(),
    };
    let said = last.map_or_else(status, |line| line.chars().take(WORDS_MAX).collect());
    Unknown::new(reason, format!("{command}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: RUL-4
    #[test]
    fn a_refusal_keeps_the_programs_last_words_and_knows_privilege() {
        for (words, reason, said) in [
            (
                "You must be root to run this program.\n",
                Reason::Privilege,
                "You must be root",
            ),
            (
                "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted\n",
                Reason::Privilege,
                "netlink: Error",
            ),
            (
                "sshd: no hostkeys available -- exiting.\r\n",
                Reason::Privilege,
                "exiting.",
            ),
            (
                "warning: a\n\nMissing directory: /run/sshd\r\n\n",
                Reason::Unreadable,
                "Missing directory: /run/sshd",
            ),
            ("", Reason::Unreadable, "status 4"),
            ("\u{1}\u{1b}[31m\n", Reason::Unreadable, "\u{1}"),
        ] {
            let ran = Ran {
                status: Some(4),
                stdout: Vec::new(),
                stderr: words.as_bytes().to_vec(),
            };
            let unknown = answer("/bin/x -T", ran).unwrap_err();
            assert_eq!(unknown.reason, reason, "{words}");
            assert!(unknown.detail.starts_with("/bin/x -T: "), "{unknown}");
            assert!(unknown.detail.contains(said), "{unknown}");
        }
    }

    #[test]
    fn a_program_that_complains_on_its_output_is_quoted_from_there() {
        let ran = Ran {
            status: Some(1),
            stdout: b"506 Cannot talk to daemon\n".to_vec(),
            stderr: Vec::new(),
        };
        let unknown = answer("chronyc", ran).unwrap_err();
        assert_eq!(unknown.detail, "chronyc: 506 Cannot talk to daemon");
    }

    #[test]
    fn output_that_is_no_text_is_malformed() {
        let ran = Ran {
            status: Some(0),
            stdout: vec![0xff, 0xfe],
            stderr: Vec::new(),
        };
        assert_eq!(answer("x", ran).unwrap_err().reason, Reason::Malformed);
    }
}
