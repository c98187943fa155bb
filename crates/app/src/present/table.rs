//! Tables for people.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::screen;

/// Columns under a header, fitted to the terminal, without rules that would hinder copying.
pub(crate) fn rows<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    if let Some(width) = screen::width() {
        table.set_width(width);
    }
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    // Ids are copied from the first column; broken in two they would be no ids.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    for row in rows {
        table.add_row(row.map(|cell| super::safe(&cell)));
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
