//! What the ledger holds at a moment, in the formats that others read (LED-11).
//!
//! Owns the mapping of hosts, verdicts, evidence, waivers and changes to each format; docs/EXPORTS.md
//! has the tables and what each format loses. [`write()`] is pure but for reading the store: one
//! request over one record gives the same bytes whenever it is asked. Hosts are read and written one
//! at a time, so that memory goes with the largest host and not with the fleet. What was not assessed
//! is never written as a pass, in no format. Where the bytes go, and whether a half-written file is
//! kept, is the caller's.

mod changes;
mod csv;
mod error;
mod html;
mod identity;
mod json;
mod jsonl;
mod junit;
mod ocsf;
mod oscal;
mod sarif;
mod source;
mod text;
mod xccdf;
mod xml;

use std::{
    collections::BTreeSet,
    fmt,
    io::{BufWriter, Write},
};

use store::Store;
use world::Timestamp;

pub use error::{Error, Kind};
use source::Source;

use crate::rule::Rule;

/// Bytes gathered before they are handed to the caller's writer; records are a few hundred each.
const BUFFER_LEN: usize = 1 << 16;

/// A format that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Jsonl,
    Csv,
    Html,
    Oscal,
    Xccdf,
    Sarif,
    Ocsf,
    Junit,
}

/// What a format is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Verdicts as they were at one moment.
    State,
    /// Changes of verdicts between two moments.
    Changes,
    /// Either, as it is asked.
    Both,
}

impl Format {
    pub const ALL: [Self; 8] = [
        Self::Jsonl,
        Self::Csv,
        Self::Html,
        Self::Oscal,
        Self::Xccdf,
        Self::Sarif,
        Self::Ocsf,
        Self::Junit,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Html => "html",
            Self::Oscal => "oscal",
            Self::Xccdf => "xccdf",
            Self::Sarif => "sarif",
            Self::Ocsf => "ocsf",
            Self::Junit => "junit",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// In words, for a list of formats.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Jsonl => "JSON Lines, described by docs/schema/export.json",
            Self::Csv => "comma-separated values, one line a verdict or change",
            Self::Html => "one page that needs nothing else, for reading and printing",
            Self::Oscal => "OSCAL 1.1.3 assessment results, JSON",
            Self::Xccdf => "XCCDF 1.2 benchmark with a TestResult for each host",
            Self::Sarif => "SARIF 2.1.0",
            Self::Ocsf => "OCSF 1.5 compliance findings, one JSON line for each change",
            Self::Junit => "JUnit XML, a suite for each host",
        }
    }

    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Oscal => "application/json",
            Self::Sarif => "application/sarif+json",
            Self::Xccdf | Self::Junit => "application/xml",
        }
    }

    /// End of a file name, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Html => "html",
            Self::Oscal => "oscal.json",
            Self::Xccdf => "xccdf.xml",
            Self::Sarif => "sarif",
            Self::Ocsf => "ocsf.jsonl",
            Self::Junit => "junit.xml",
        }
    }

    pub const fn subject(self) -> Subject {
        match self {
            Self::Jsonl | Self::Csv => Subject::Both,
            Self::Ocsf => Subject::Changes,
            _ => Subject::State,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which hosts. All, where nothing is named; those that several of these name are meant once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    pub hosts: BTreeSet<String>,
    pub groups: BTreeSet<String>,
    pub sites: BTreeSet<String>,
}

impl Chosen {
    fn is_all(&self) -> bool {
        self.hosts.is_empty() && self.groups.is_empty() && self.sites.is_empty()
    }
}

/// What is asked of the record.
#[derive(Clone, Debug)]
pub struct Request {
    pub chosen: Chosen,
    pub asked: Asked,
    /// The time of asking: the moment of a state that is asked for as it is.
    pub now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The state at a moment, or as it is.
    State { at: Option<Timestamp> },
    /// Changes from a moment on (the first one, where none is given) and before another (now).
    Changes {
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    },
}

impl Request {
    /// Everything as it is, or every change, whatever the format is about.
    pub fn of_all(format: Format, now: Timestamp) -> Self {
        let asked = match format.subject() {
            Subject::State | Subject::Both => Asked::State { at: None },
            Subject::Changes => Asked::Changes {
                since: None,
                until: None,
            },
        };
        Self {
            chosen: Chosen::default(),
            asked,
            now,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub hosts: u64,
    /// Verdicts, or changes.
    pub rows: u64,
}

/// Called after each host with how many are done and how many there are; `false` stops.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize) -> bool;

/// Writes what `request` asks for. `rules` give titles, texts and references; verdicts of rules that
/// are not among them are written with what the ledger knows. Whatever was written before an error is
/// worth nothing.
///
/// # Errors
/// A name that is unknown, a format that cannot be asked this way, a store that does not read, a
/// writer that does not take more, or `progress` said no.
pub fn write(
    format: Format,
    store: &Store,
    rules: &[Rule],
    request: &Request,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Written, Error> {
    let mut out = BufWriter::with_capacity(BUFFER_LEN, out);
    let written = match request.asked {
        Asked::State { at } => {
            must_be(format, format.subject() != Subject::Changes)?;
            let mut source = Source::open(store, rules, request, at, progress)?;
            match format {
                Format::Jsonl => jsonl::state(&mut source, &mut out),
                Format::Csv => csv::state(&mut source, &mut out),
                Format::Html => html::write(&mut source, &mut out),
                Format::Oscal => oscal::write(&mut source, &mut out),
                Format::Xccdf => xccdf::write(&mut source, &mut out),
                Format::Sarif => sarif::write(&mut source, &mut out),
                Format::Junit => junit::write(&mut source, &mut out),
                Format::Ocsf => Err(Error::not_this_way(format)),
            }
        }
        Asked::Changes { since, until } => {
            must_be(format, format.subject() != Subject::State)?;
            let mut source = Source::open(store, rules, request, until, progress)?;
            let span = changes::Span { since, until };
            match format {
                Format::Jsonl => jsonl::changes(&mut source, span, &mut out),
                Format::Csv => csv::changes(&mut source, span, &mut out),
                Format::Ocsf => ocsf::write(&mut source, span, &mut out),
                _ => Err(Error::not_this_way(format)),
            }
        }
    }?;
    out.flush()?;
    Ok(written)
}

fn must_be(format: Format, can: bool) -> Result<(), Error> {
    if can {
        Ok(())
    } else {
        Err(Error::not_this_way(format))
    }
}
