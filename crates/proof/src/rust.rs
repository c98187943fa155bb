//! Rust source read closely enough to judge it: code apart from comments and literals, which
//! lines are tests, how long each function is. Not a parser: it needs files that compile.

/// A source file in two layers that keep its lines and columns.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Comments and the inside of literals are blank.
    pub(crate) code: String,
    /// All but comments is blank.
    pub(crate) comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Of its `fn`, from 1.
    pub(crate) line: usize,
    /// Lines of its body that hold code, its braces left out, as clippy counts them.
    pub(crate) code_lines: usize,
    /// Carries an `allow` of clippy's `too_many_lines`, which the lints want a reason for.
    pub(crate) may_be_long: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Layer {
    Code,
    Comment,
    Literal,
}

struct Splitter<'a> {
    text: &'a [char],
    at: usize,
    code: String,
    comments: String,
}

/// Splits `text` into its layers.
pub(crate) fn layers(text: &str) -> Layers {
    let chars: Vec<char> = text.chars().collect();
    let mut splitter = Splitter {
        text: &chars,
        at: 0,
        code: String::with_capacity(text.len()),
        comments: String::with_capacity(text.len()),
    };
    while splitter.at < chars.len() {
        splitter.step();
    }
    Layers {
        code: splitter.code,
        comments: splitter.comments,
    }
}

impl Splitter<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn take(&mut self, count: usize, layer: Layer) {
        for _ in 0..count {
            let Some(char) = self.text.get(self.at).copied() else {
                return;
            };
            self.at += 1;
            let blank = if char == '\n' { '\n' } else { ' ' };
            self.code
                .push(if layer == Layer::Code { char } else { blank });
            self.comments
                .push(if layer == Layer::Comment { char } else { blank });
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while self.at < self.text.len() && self.peek(0) != '\n' {
                    self.take(1, Layer::Comment);
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.in_word() => self.raw_string(),
            ('b' | 'c', 'r') if !self.in_word() && matches!(self.peek(2), '"' | '#') => {
                self.take(1, Layer::Code);
                self.raw_string();
            }
            ('\'', _) => self.quote(),
            _ => self.take(1, Layer::Code),
        }
    }

    fn in_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.text.get(at));
        before.is_some_and(|char| is_word(*char))
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.take(2, Layer::Comment);
                }
                ('*', '/') => {
                    depth -= 1;
                    self.take(2, Layer::Comment);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.take(1, Layer::Comment),
            }
        }
    }

    fn string(&mut self) {
        self.take(1, Layer::Code);
        while self.at < self.text.len() && self.peek(0) != '"' {
            let escaped = usize::from(self.peek(0) == '\\');
            self.take(1 + escaped, Layer::Literal);
        }
        self.take(1, Layer::Code);
    }

    /// At the `r` of `r"…"`, `r#"…"#`, or of a raw identifier.
    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(1 + hashes) == '#' {
            hashes += 1;
        }
        if self.peek(1 + hashes) != '"' {
            return self.take(1, Layer::Code);
        }
        self.take(hashes + 2, Layer::Code);
        while self.at < self.text.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|n| self.peek(n) == '#');
            if closes {
                return self.take(hashes + 1, Layer::Code);
            }
            self.take(1, Layer::Literal);
        }
    }

    /// A character literal, or the tick of a lifetime.
    fn quote(&mut self) {
        if self.peek(1) == '\\' {
            self.take(1, Layer::Code);
            self.take(2, Layer::Literal);
            while self.at < self.text.len() && self.peek(0) != '\'' {
                self.take(1, Layer::Literal);
            }
            self.take(1, Layer::Code);
        } else if self.peek(2) == '\'' {
            self.take(1, Layer::Code);
            self.take(1, Layer::Literal);
            self.take(1, Layer::Code);
        } else {
            self.take(1, Layer::Code);
        }
    }
}

pub(crate) fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether a file as a whole is tests, by its path.
pub(crate) fn is_test_path(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.split('/')
        .any(|part| part == "tests" || part == "benches")
        || name == "tests.rs"
}

/// For each line whether it is inside something that only exists in tests.
pub(crate) fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if is_test_path(path) || code.contains("#![cfg(test)]") {
        return vec![true; count];
    }
    let mut lines = vec![false; count];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let Some(end) = item_end(code, at) else {
            continue;
        };
        let (first, last) = (line_of(code, at), line_of(code, end));
        lines[first - 1..last].fill(true);
    }
    lines
}

/// The line, from 1, of the byte at `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where the item that starts at or after `at` ends: at its closing brace or its semicolon.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let open = at + body_or_end(&code[at..])?;
    if code[open..].starts_with(';') {
        Some(open)
    } else {
        Some(open + closing_brace(&code[open..])?)
    }
}

/// The first `{` or `;` outside parentheses and brackets.
fn body_or_end(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, char) in code.char_indices() {
        match char {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' | ';' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Where the brace that `code` starts with is closed.
fn closing_brace(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, char) in code.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The functions of a file with a body, nested ones too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
        let Some(open) = body_or_end(&code[at..]).map(|open| at + open) else {
            continue;
        };
        if name.is_empty() || code[open..].starts_with(';') {
            continue;
        }
        let Some(close) = closing_brace(&code[open..]).map(|close| open + close) else {
            continue;
        };
        let body = &code[open + 1..close];
        let before = code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1);
        found.push(Function {
            name,
            line: line_of(code, at),
            code_lines: body.lines().filter(|line| !line.trim().is_empty()).count(),
            may_be_long: code[before..at].contains("too_many_lines"),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_comments_and_literals() {
        for (text, code, comments) in [
            ("a // b\nc", "a     \nc", "  // b\n "),
            (
                "a /* b /* c */ d */ e",
                "a                   e",
                "  /* b /* c */ d */  ",
            ),
            ("f(\"// no\")", "f(\"     \")", "          "),
            ("\"a\\\"b\" // c", "\"    \"     ", "       // c"),
            ("r#\"a\"b\"# x", "r#\"   \"# x", "          "),
            ("br\"//\" x", "br\"  \" x", "        "),
            ("'\"' '\\'' &'a x", "' ' '  ' &'a x", "              "),
            ("var\"x\" r#type", "var\" \" r#type", "             "),
            ("\"two\nlines\" {", "\"   \n     \" {", "    \n        "),
        ] {
            let layers = layers(text);
            assert_eq!(layers.code, code, "{text}");
            assert_eq!(layers.comments, comments, "{text}");
        }
    }

    #[test]
    fn lines_that_exist_only_in_tests_are_known() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}\n";
        let expected = [false, true, true, true, true, false, true, true, false];
        assert_eq!(test_lines("crates/x/src/a.rs", code), expected);
        assert_eq!(test_lines("crates/x/tests/a.rs", "fn a() {}\n"), [true]);
        assert_eq!(test_lines("crates/x/src/a/tests.rs", "fn a() {}\n"), [true]);
        assert_eq!(test_lines("a.rs", "#![cfg(test)]\nfn a() {}\n"), [true; 2]);
    }

    #[test]
    fn a_function_is_as_long_as_the_code_lines_of_its_body() {
        let code = "pub fn a(x: [u8; 4]) -> u8 {\n\n    one;\n    two;\n}\ntrait T {\n    fn no_body(&self);\n}\n\
            #[allow(clippy::too_many_lines, reason = \"\")]\nfn b() {\n    { x }\n}\nlet f: fn (u8);\n";
        let function = |name: &str, line, code_lines, may_be_long| Function {
            name: name.to_owned(),
            line,
            code_lines,
            may_be_long,
        };
        assert_eq!(
            functions(code),
            [function("a", 1, 2, false), function("b", 10, 1, true)]
        );
    }
}
