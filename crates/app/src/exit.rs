//! How a command ends: the exit codes of RUL-5, and errors that say what to do next.

use std::{error, fmt};

use scan::judge::Summary;

/// What the process tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that applies was looked at and passes.
    Clean,
    /// At least one rule fails, or what was compared is not what it should be.
    Findings,
    /// Nothing fails, but something could not be assessed.
    Incomplete,
    /// As it was at the server that carried the command out.
    Elsewhere(u8),
}

impl Exit {
    /// The exit code of RUL-5 for a scan, or for what one recorded.
    pub(crate) fn of_verdicts(summary: &Summary) -> Self {
        if summary.fail > 0 {
            Self::Findings
        } else if summary.not_assessed > 0 || summary.error > 0 || summary.pass == 0 {
            Self::Incomplete
        } else {
            Self::Clean
        }
    }

    /// How a command about several hosts ends: what fails outweighs what could not be looked at.
    pub(crate) fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Findings, _) | (_, Self::Findings) => Self::Findings,
            (Self::Incomplete, _) | (_, Self::Incomplete) => Self::Incomplete,
            (Self::Elsewhere(code), _) | (_, Self::Elsewhere(code)) => Self::Elsewhere(code),
            (Self::Clean, Self::Clean) => Self::Clean,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Findings => 1,
            Self::Incomplete => 3,
            Self::Elsewhere(code) => code,
        }
    }
}

/// Exit code of a command that could not be carried out.
pub(crate) const REFUSED: u8 = 2;

/// Why a command could not be carried out, and what to do next. Exits with [`REFUSED`].
#[derive(Debug)]
pub(crate) struct Refusal {
    message: String,
    next: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            next: None,
            source: None,
        }
    }

    /// The next step for whoever reads the error.
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    pub(crate) fn source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl Refusal {
    /// What was refused and why, and the next step, for whoever lays them out otherwise.
    pub(crate) fn into_parts(self) -> (String, Option<String>) {
        let what = match self.source {
            Some(source) => format!("{}: {source}", self.message),
            None => self.message,
        };
        (what, self.next)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl error::Error for Refusal {}
