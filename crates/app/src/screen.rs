//! Standard output and standard error: data to the one, talk to the other.
//!
//! Colour and progress appear only where a terminal is at the other end and NO_COLOR is not set. A
//! reader that goes away (a closed pager, `head`) is not an error: what is left is not written.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use crate::{cli::Global, exit::Refusal, present::safe};

/// How much is told beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Talk {
    Quiet,
    Normal,
    Verbose,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    talk: Talk,
}

impl Screen {
    pub(crate) fn new(global: &Global) -> Self {
        let talk = match (global.quiet, global.verbose) {
            (true, _) => Talk::Quiet,
            (false, true) => Talk::Verbose,
            (false, false) => Talk::Normal,
        };
        Self { talk }
    }

    /// Says nothing beside results.
    pub(crate) const fn silent() -> Self {
        Self { talk: Talk::Quiet }
    }

    /// Writes a result to standard output.
    pub(crate) fn result(self, text: &str) -> Result<(), Refusal> {
        self.offer(text).map(drop)
    }

    /// Writes a part of a result, and tells whether there is a reader for more.
    pub(crate) fn offer(self, text: &str) -> Result<bool, Refusal> {
        let mut out = anstream::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| {
            if text.ends_with('\n') {
                Ok(())
            } else {
                out.write_all(b"\n")
            }
        });
        let written = written.and_then(|()| out.flush());
        let has_reader = written.is_ok();
        ignore_closed(written)?;
        Ok(has_reader)
    }

    /// Writes a result as it is.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut out = io::stdout().lock();
        ignore_closed(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// A remark on standard error, left out with --quiet.
    pub(crate) fn remark(self, text: impl fmt::Display) {
        if self.talk >= Talk::Normal {
            tell(&text);
        }
    }

    /// A question, whatever the talk; the cursor stays behind it.
    pub(crate) fn ask(self, question: impl fmt::Display) {
        let question = question.to_string();
        let lines: Vec<String> = question.split('\n').map(safe).collect();
        let mut err = anstream::stderr().lock();
        drop(write!(err, "{}", lines.join("\n")).and_then(|()| err.flush()));
    }

    /// What is being done, with --verbose only.
    pub(crate) fn step(self, text: impl fmt::Display) {
        if self.talk == Talk::Verbose {
            tell(&text);
        }
    }

    /// Whether a progress bar has somewhere to be.
    pub(crate) fn shows_progress(self) -> bool {
        self.talk >= Talk::Normal && io::stderr().is_terminal()
    }
}

/// Columns of the terminal that standard output is; none when it is something else.
pub(crate) fn width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// An error, whatever the talk.
pub(crate) fn complain(text: &dyn fmt::Display) {
    tell(&format_args!("error: {text}"));
}

/// Errors quote paths, files and what hosts sent: only their line breaks reach the terminal as such.
fn tell(text: &dyn fmt::Display) {
    let text = text.to_string();
    let lines: Vec<String> = text.split('\n').map(safe).collect();
    // Standard error gone means that nobody is left to be told.
    drop(writeln!(anstream::stderr().lock(), "{}", lines.join("\n")));
}

/// A reader that has gone away is no fault of the command.
pub(crate) fn ignore_closed(written: io::Result<()>) -> Result<(), Refusal> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Refusal::new("standard output cannot be written").source(error)),
        Ok(()) => Ok(()),
    }
}
