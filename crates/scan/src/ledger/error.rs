//! Why an apply or a query of the ledger did not happen.

use std::{error, fmt};

/// What kind of failure, as `apply.failed` reports it. Codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request breaks a rule of the ledger: a retired host, a rule named twice.
    Constraint,
    /// Another apply for the same host won every attempt; try again.
    Conflict,
    EvidenceOversize,
    EvidenceInvalid,
    /// The store could not read or write; the source says why.
    Storage,
    /// The moment asked for is outside the retained history.
    OutOfRange,
    Unknown,
}

impl Class {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Constraint => "constraint",
            Self::Conflict => "conflict",
            Self::EvidenceOversize => "evidence_oversize",
            Self::EvidenceInvalid => "evidence_invalid",
            Self::Storage => "storage",
            Self::OutOfRange => "out_of_range",
            Self::Unknown => "unknown",
        }
    }
}

/// A request that left nothing behind.
#[derive(Debug)]
pub struct Error {
    class: Class,
    message: String,
    rule: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            rule: None,
            source: None,
        }
    }

    pub(crate) fn with_rule(mut self, rule: &str) -> Self {
        self.rule = Some(rule.to_owned());
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn class(&self) -> Class {
        self.class
    }

    /// The rule that made the whole batch fail, if one did.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let class = match error.kind() {
            store::Kind::Conflict => Class::Conflict,
            store::Kind::OutOfRange => Class::OutOfRange,
            _ => Class::Storage,
        };
        Self::new(class, "the store refused").with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(rule) = &self.rule {
            write!(f, ", rule {rule}")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn error::Error + 'static))
    }
}
