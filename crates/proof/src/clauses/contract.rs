//! The clauses as the contract's documents state them.

use super::ClauseId;

/// Characters of a promise the matrix shows: a table cell, not the clause.
const PROMISE_LEN_MAX: usize = 110;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) id: ClauseId,
    pub(super) path: String,
    pub(super) line: usize,
    /// Its first sentence, cut where it is long.
    pub(super) promise: String,
    /// Kept so that its number never changes meaning.
    pub(super) given_up: bool,
}

/// The clauses of one document: bullets that start with an id, with the indented lines after them.
pub(super) fn clauses(path: &str, text: &str) -> Vec<Clause> {
    let mut found: Vec<(ClauseId, usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some((id, rest)) = bullet(line) {
            found.push((id, number, rest.to_owned()));
            inside = true;
        } else if inside && line.starts_with("  ") {
            let (_, _, clause) = found.last_mut().expect("inside one");
            clause.push(' ');
            clause.push_str(line.trim());
        } else {
            inside = false;
        }
    }
    let clauses = found.into_iter().map(|(id, line, text)| Clause {
        id,
        path: path.to_owned(),
        line,
        promise: short(&text),
        given_up: text.starts_with("(given up)"),
    });
    clauses.collect()
}

fn bullet(line: &str) -> Option<(ClauseId, &str)> {
    let (id, rest) = line.strip_prefix("- ")?.split_once(' ')?;
    Some((id.parse().ok()?, rest))
}

/// The first sentence, or as many whole words of it as fit.
fn short(text: &str) -> String {
    let end = text
        .match_indices(['.', ';'])
        .map(|(at, _)| at)
        .find(|at| text[at + 1..].is_empty() || text[at + 1..].starts_with(' '));
    let sentence = &text[..end.unwrap_or(text.len())];
    if sentence.chars().count() <= PROMISE_LEN_MAX {
        return sentence.to_owned();
    }
    let mut kept = String::new();
    for word in sentence.split(' ') {
        if kept.chars().count() + word.chars().count() >= PROMISE_LEN_MAX {
            break;
        }
        kept.push_str(word);
        kept.push(' ');
    }
    let kept = kept.trim_end_matches([' ', ',', ':', '(']);
    format!("{kept} …")
}

/// Why a clause is not proved, or not wholly.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// It has tests, and they leave out what the reason names.
    pub(super) partly: bool,
    pub(super) reason: String,
}

/// `ABC-1: reason` or `ABC-1 partly: reason`. `None` for empty lines and comments.
pub(super) fn pending_line(line: &str) -> Option<Result<(ClauseId, Pending), &'static str>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let read = line.split_once(':').and_then(|(id, reason)| {
        let partly = id.ends_with(" partly");
        let id = id.trim_end_matches(" partly").parse().ok()?;
        let reason = reason.trim().to_owned();
        (!reason.is_empty()).then_some((id, Pending { partly, reason }))
    });
    Some(read.ok_or("a line is `CLAUSE: reason` or `CLAUSE partly: reason`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_bullets_with_an_id_and_their_indented_lines() {
        let text = "- JRN-1 First\n  goes on. Second.\n\n  no longer\n- JRN-02 no id\n- JR-1 no\nSee JRN-3.\n- PRF-10 (given up) gone\n";
        let found: Vec<(String, usize, String, bool)> = clauses("a.md", text)
            .into_iter()
            .map(|c| (c.id.to_string(), c.line, c.promise, c.given_up))
            .collect();
        assert_eq!(
            found,
            [
                ("JRN-1".to_owned(), 1, "First goes on".to_owned(), false),
                ("PRF-10".to_owned(), 8, "(given up) gone".to_owned(), true),
            ]
        );
    }

    #[test]
    fn a_promise_is_its_first_sentence_cut_between_words() {
        for (text, expected) in [
            ("Opens docs/x.md once; more. End.", "Opens docs/x.md once"),
            ("No full stop", "No full stop"),
            (
                &format!("{}beyond the cell", "word, ".repeat(20)),
                &format!("{}word …", "word, ".repeat(17)),
            ),
        ] {
            assert_eq!(short(text), expected);
        }
    }
}
