//! XML 1.0 that is written as it comes, escaped by construction.

use std::io::{self, Write};

use super::text::visible;

/// Escaped for an element or an attribute in double quotes.
pub(super) fn escaped(text: &str) -> String {
    quick_xml::escape::escape(visible(text).as_ref()).into_owned()
}

/// Elements, each on its own line.
pub(super) struct Xml<'w> {
    out: &'w mut dyn Write,
    open: Vec<&'static str>,
}

impl<'w> Xml<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> io::Result<Self> {
        out.write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
        Ok(Self {
            out,
            open: Vec::new(),
        })
    }

    fn begin(&mut self, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
        write!(self.out, "{:width$}<{name}", "", width = self.open.len())?;
        for (key, value) in attributes {
            write!(self.out, " {key}=\"{}\"", escaped(value))?;
        }
        Ok(())
    }

    pub(super) fn open(
        &mut self,
        name: &'static str,
        attributes: &[(&str, &str)],
    ) -> io::Result<()> {
        self.begin(name, attributes)?;
        self.open.push(name);
        self.out.write_all(b">\n")
    }

    /// Ends the element that was opened last.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let name = self.open.pop().expect("an element is closed once");
        writeln!(self.out, "{:width$}</{name}>", "", width = self.open.len())
    }

    pub(super) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
        self.begin(name, attributes)?;
        self.out.write_all(b"/>\n")
    }

    /// As it is, but for what XML cannot hold: for names that programs compare.
    pub(super) fn name(&mut self, element: &str, name: &str) -> io::Result<()> {
        let mut legal = String::with_capacity(name.len());
        for c in name.chars() {
            if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
                legal.extend(c.escape_default());
            } else {
                legal.push(c);
            }
        }
        self.begin(element, &[])?;
        let text = quick_xml::escape::escape(legal.as_str());
        writeln!(self.out, ">{text}</{element}>")
    }

    pub(super) fn text(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        text: &str,
    ) -> io::Result<()> {
        self.begin(name, attributes)?;
        writeln!(self.out, ">{}</{name}>", escaped(text))
    }
}
