//! What is wrong with a rule file, where, and what to do about it.

use std::{error, fmt};

/// A place in a YAML file, both numbers from 1; 0 when the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// One thing wrong with one rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// As it was named when it was opened.
    pub file: String,
    pub place: Place,
    /// What is wrong, naming the object. Lower case, no full stop.
    pub what: String,
    /// The next step, or empty.
    pub next: String,
}

impl Fault {
    /// The file is named later, by [`Fault::in_file`]: the decoder does not know it.
    pub(crate) fn at(place: Place, what: impl Into<String>) -> Self {
        Self {
            file: String::new(),
            place,
            what: what.into(),
            next: String::new(),
        }
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    pub(crate) fn in_file(mut self, file: &str) -> Self {
        if self.file.is_empty() {
            file.clone_into(&mut self.file);
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}", self.file)?;
            if self.place.line > 0 {
                write!(f, ":{}:{}", self.place.line, self.place.column)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)?;
        if !self.next.is_empty() {
            write!(f, "; {}", self.next)?;
        }
        Ok(())
    }
}

impl error::Error for Fault {}

/// Names in an error: two lines of a terminal.
const LISTED_MAX: usize = 24;

/// `did you mean ...` with the nearest of `known`, or the whole list when nothing is near.
pub(crate) fn suggestion(wrong: &str, known: &[&str]) -> String {
    // More than two edits in a short word is another word.
    let limit = if wrong.len() <= 4 {
        1
    } else {
        2 + wrong.len() / 8
    };
    let nearest = known.iter().map(|name| (distance(wrong, name), name)).min();
    match nearest {
        Some((edits, name)) if edits <= limit => format!("did you mean `{name}`?"),
        _ if known.len() > LISTED_MAX => {
            format!("{} names are known here, none like it", known.len())
        }
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// Levenshtein distance in characters; a file's names are short, so the quadratic form is enough.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_lists_what_is_known() {
        assert_eq!(
            suggestion("equal", &["equals", "matches"]),
            "did you mean `equals`?"
        );
        assert_eq!(
            suggestion("zzz", &["equals", "matches"]),
            "known here: equals, matches"
        );
    }

    #[test]
    fn a_fault_names_file_line_and_column() {
        let fault = Fault::at(Place { line: 3, column: 7 }, "unknown field `chek`")
            .next("did you mean `check`?")
            .in_file("a.yaml");
        assert_eq!(
            fault.to_string(),
            "a.yaml:3:7: unknown field `chek`; did you mean `check`?"
        );
    }
}
