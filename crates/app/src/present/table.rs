//! Tables for people.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

use crate::screen;

/// Longest word that is never broken over lines: a date, a state, a moment of an id. Beyond the
/// width of the terminal a line is longer than it instead. Arbitrary.
const WORD_MAX: usize = 16;

/// Columns of blanks around a cell.
const PADDING: usize = 2;

/// Columns under a header, fitted to the terminal, without rules that would hinder copying.
pub(crate) fn rows<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    fitted(screen::width(), header, rows)
}

fn fitted<const N: usize>(
    width: Option<u16>,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    if let Some(width) = width {
        table.set_width(width);
    }
    let mut words = header.map(longest_word);
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for row in rows {
        let row = row.map(|cell| super::safe(&cell));
        for (longest, cell) in words.iter_mut().zip(&row) {
            *longest = longest_word(cell).max(*longest);
        }
        table.add_row(row);
    }
    for (column, longest) in table.column_iter_mut().zip(words) {
        let least = u16::try_from(longest.min(WORD_MAX) + PADDING).expect("it has a small bound");
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    // Ids are copied from the first column; broken in two they would be no ids.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

fn longest_word(text: &str) -> usize {
    let words = text.split_whitespace();
    words.map(|word| word.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal of 40 columns once showed a table of eight as columns of single letters.
    #[test]
    fn a_narrow_terminal_breaks_no_short_word() {
        let row = [
            "web1.example.org",
            "non-compliant",
            "64.6",
            "190",
            "104",
            "2026-11-21 10:49:09 UTC",
            "see that it is up and answers; `holdfast host check web1.example.org` tries at once",
        ];
        let header = ["HOST", "STATE", "SCORE", "PASS", "FAIL", "ASSESSED", "NEXT"];
        for width in [1, 20, 40, 60, 80, 120, 1000] {
            let text = fitted(Some(width), header, [row.map(str::to_owned)]);
            for word in [
                "non-compliant",
                "SCORE",
                "64.6",
                "190",
                "2026-11-21",
                "10:49:09",
            ] {
                assert!(text.contains(word), "{word} at {width} columns:\n{text}");
            }
        }
    }
}
