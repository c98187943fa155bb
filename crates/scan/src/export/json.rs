//! JSON that is written as it comes.

use std::io::{self, Write};

use serde::Serialize;

/// Members of an array, each on a line of its own. The brackets are the caller's.
pub(super) struct Members<'w> {
    out: &'w mut dyn Write,
    is_first: bool,
}

impl<'w> Members<'w> {
    pub(super) fn of(out: &'w mut dyn Write) -> Self {
        Self {
            out,
            is_first: true,
        }
    }

    pub(super) fn push(&mut self, member: &impl Serialize) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(b",")?;
        }
        self.out.write_all(b"\n")?;
        Ok(serde_json::to_writer(&mut self.out, member)?)
    }
}

/// One document on one line.
pub(super) fn line(out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    out.write_all(b"\n")
}
