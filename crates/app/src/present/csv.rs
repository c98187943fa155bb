//! Comma-separated values as of RFC 4180, with LF line ends, one line a row.

use super::safe;

/// A header line and one line a row.
pub(crate) fn lines<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut text = header.join(",");
    text.push('\n');
    for row in rows {
        text.push_str(&row.map(|field| quoted(&field)).join(","));
        text.push('\n');
    }
    text
}

/// Quoted where RFC 4180 asks for it. Fields hold text that a scanned host chose: control characters
/// are escaped, since this is read on terminals too (JSON has the exact bytes), and what a
/// spreadsheet would run as a formula gets a leading apostrophe.
fn quoted(field: &str) -> String {
    let mut field = safe(field);
    if field.starts_with(['=', '+', '-', '@']) {
        field.insert(0, '\'');
    }
    if field.contains([',', '"']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn fields_survive_commas_quotes_spreadsheets_and_terminals() {
        let rows = [["a,b", "say \"x\""], ["=1+1", "two\n\u{1b}[2Jlines"]];
        let text = lines(["one", "two"], rows.map(|row| row.map(str::to_owned)));
        assert_eq!(
            text,
            "one,two\n\"a,b\",\"say \"\"x\"\"\"\n'=1+1,two\\n\\u{1b}[2Jlines\n"
        );
    }
}
