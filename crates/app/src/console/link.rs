//! Addresses within the console: every link keeps the moment that the page is of.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use world::Timestamp;

use crate::moment;

/// What RFC 3986 leaves as it is.
const KEPT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A path and its query, made piece by piece; nothing in it needs escaping any more.
#[derive(Clone, Debug)]
pub(super) struct Link {
    text: String,
    has_query: bool,
}

impl Link {
    /// A path of the console's own.
    pub(super) fn to(path: &str) -> Self {
        Self {
            text: path.to_owned(),
            has_query: false,
        }
    }

    /// One more segment of the path. A name of dots alone would be taken for a step upwards.
    pub(super) fn segment(mut self, name: &str) -> Self {
        self.text.push('/');
        self.text.push_str(&encoded(name));
        self
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.push_str(&encoded(value));
        self
    }

    pub(super) fn with_any(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.with(name, value),
            _ => self,
        }
    }

    pub(super) fn at(self, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.with("at", &moment::rfc3339(at)),
            None => self,
        }
    }
}

impl maud::Render for Link {
    fn render_to(&self, buffer: &mut String) {
        self.text.as_str().render_to(buffer);
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.text
    }
}

fn encoded(text: &str) -> String {
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(text, &KEPT).to_string(),
    }
}

/// A path of the console's own that a form may send back to; another address is none.
pub(super) fn own(path: &str) -> Option<&str> {
    let is_own = path.starts_with('/')
        && !path.starts_with("//")
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    is_own.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_whatever_is_in_them() {
        for (name, expected) in [
            ("web-1", "/hosts/web-1"),
            ("a/b?c#d", "/hosts/a%2Fb%3Fc%23d"),
            ("<i>\"x\"", "/hosts/%3Ci%3E%22x%22"),
            ("..", "/hosts/%2E%2E"),
            ("ä", "/hosts/%C3%A4"),
        ] {
            assert_eq!(String::from(Link::to("/hosts").segment(name)), expected);
        }
    }

    #[test]
    fn the_moment_is_kept_beside_what_else_is_asked() {
        let at = Timestamp::from_nanos(1_768_464_000_000_000_000);
        let link = Link::to("/").with("state", "critical").at(Some(at));
        assert_eq!(
            String::from(link),
            "/?state=critical&at=2026-01-15T08%3A00%3A00.000Z"
        );
        assert_eq!(String::from(Link::to("/").at(None)), "/");
    }

    #[test]
    fn nobody_is_sent_to_another_site() {
        for path in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "",
            "x",
            "/a\nb",
        ] {
            assert_eq!(own(path), None, "{path}");
        }
        assert_eq!(own("/hosts/a?at=1"), Some("/hosts/a?at=1"));
    }
}
