//! Stanzas of a Debian control file, read piece by piece: `status` of dpkg and `Packages` of apt.
//!
//! A list of Debian is 50 MB of text of which four fields matter. Only the line that a piece ends
//! in is kept.

/// Fields of interest are below 300 bytes; what is longer is skipped, not kept.
const LINE_BYTES_MAX: usize = 4 << 10;

/// The fields of one stanza, empty where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) arch: String,
    pub(super) status: String,
}

pub(super) struct Stanzas<F: FnMut(&Stanza)> {
    sink: F,
    stanza: Stanza,
    /// The beginning of the line that the last piece ended in.
    line: Vec<u8>,
    bytes: u64,
}

impl<F: FnMut(&Stanza)> Stanzas<F> {
    pub(super) fn new(sink: F) -> Self {
        Self {
            sink,
            stanza: Stanza::default(),
            line: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        self.bytes += u64::try_from(piece.len()).expect("a slice is shorter than 2^64");
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            if self.line.is_empty() {
                self.line_is_whole(line);
            } else {
                self.keep(line);
                let line = std::mem::take(&mut self.line);
                self.line_is_whole(&line);
            }
        }
        self.keep(rest);
    }

    /// Ends the last stanza. How many bytes there were.
    pub(super) fn finish(mut self) -> u64 {
        let line = std::mem::take(&mut self.line);
        self.line_is_whole(&line);
        self.line_is_whole(b"");
        self.bytes
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn line_is_whole(&mut self, line: &[u8]) {
        let stanza = &mut self.stanza;
        let (field, name) = match line.first() {
            None => {
                if !stanza.package.is_empty() {
                    (self.sink)(stanza);
                }
                stanza.package.clear();
                stanza.version.clear();
                stanza.arch.clear();
                stanza.status.clear();
                return;
            }
            Some(b'P') => (&mut stanza.package, &b"Package:"[..]),
            Some(b'V') => (&mut stanza.version, &b"Version:"[..]),
            Some(b'A') => (&mut stanza.arch, &b"Architecture:"[..]),
            Some(b'S') => (&mut stanza.status, &b"Status:"[..]),
            Some(_) => return,
        };
        if let Some(value) = line.strip_prefix(name) {
            field.clear();
            field.push_str(String::from_utf8_lossy(value).trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanzas(text: &[u8], piece: usize) -> (Vec<Stanza>, u64) {
        let mut found = Vec::new();
        let mut reader = Stanzas::new(|stanza: &Stanza| found.push(stanza.clone()));
        for piece in text.chunks(piece) {
            reader.take(piece);
        }
        let bytes = reader.finish();
        (found, bytes)
    }

    #[test]
    fn stanzas_are_the_same_in_pieces_of_any_size() {
        let long = format!("Description: {}", "x".repeat(10_000));
        let text = format!(
            "\n\nPackage: a\nVersion: 1:2-3\nArchitecture: amd64\n{long}\n Package: no\nPriority: x\nStatus: install ok installed\n\n\
             Version: 9\n\nPackage: b\nVersion: 2"
        );
        let stanza = |package: &str, version: &str, arch: &str, status: &str| Stanza {
            package: package.to_owned(),
            version: version.to_owned(),
            arch: arch.to_owned(),
            status: status.to_owned(),
        };
        let expected = vec![
            stanza("a", "1:2-3", "amd64", "install ok installed"),
            stanza("b", "2", "", ""),
        ];
        let bytes = u64::try_from(text.len()).unwrap();
        for piece in [1, 2, 13, 4096, 100_000] {
            assert_eq!(
                stanzas(text.as_bytes(), piece),
                (expected.clone(), bytes),
                "{piece}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_break_nothing() {
        let (found, _) = stanzas(b"Package: \xff\xfe\0\nVersion:\n\n\0\0\n\x80", 3);
        assert_eq!(found.len(), 1);
        assert_eq!(stanzas(b"", 1), (Vec::new(), 0));
    }
}
