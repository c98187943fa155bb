//! Comma-separated values as of RFC 4180, with LF line ends.

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

/// Quoted where RFC 4180 asks for it. A field that a spreadsheet would run as a formula gets a
/// leading apostrophe, since fields hold text that a scanned host chose.
fn quoted(field: &str) -> String {
    let field = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{field}")
    } else {
        field.to_owned()
    };
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn fields_survive_commas_quotes_and_spreadsheets() {
        let rows = [["a,b", "say \"x\""], ["=1+1", "plain"]];
        let text = lines(["one", "two"], rows.map(|row| row.map(str::to_owned)));
        assert_eq!(text, "one,two\n\"a,b\",\"say \"\"x\"\"\"\n'=1+1,plain\n");
    }
}
