//! Long lines broken at words, so that what hangs below a mark stays below it.

/// Room below which breaking would shred the text more than the terminal does.
const ROOM_MIN: usize = 20;

/// `text`, which stands in column `indent`, broken for a terminal of `width` columns. Counts
/// characters: a line of double-width ones is still broken by the terminal. No width, no breaks.
pub(crate) fn wrapped(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(room) = width
        .map(|width| width.saturating_sub(indent))
        .filter(|room| *room >= ROOM_MIN)
    else {
        return text.to_owned();
    };
    let mut broken = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > room {
            broken.push('\n');
            broken.extend(std::iter::repeat_n(' ', indent));
            column = 0;
        } else if column > 0 {
            broken.push(' ');
            column += 1;
        }
        broken.push_str(word);
        column += len;
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_break_at_words_and_hang_under_their_first_word() {
        let text = "one two three four five six seven";
        assert_eq!(
            wrapped(text, 4, Some(24)),
            "one two three four\n    five six seven"
        );
        assert_eq!(wrapped(text, 4, None), text);
        assert_eq!(wrapped(text, 4, Some(10)), text, "too narrow to help");
    }
}
