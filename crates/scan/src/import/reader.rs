//! XCCDF TestResults out of a file of any size, in memory that goes with the results alone.
//!
//! The file is foreign: everything in it is bounded by a named constant, a document type declaration
//! is refused outright (it is what declares entities, small ones that grow and external ones), and a
//! file that ends early is refused as a whole. Elements outside a TestResult are skipped as they
//! pass, but for the titles of rules.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, BufRead, Read},
    rc::Rc,
};

use quick_xml::{
    NsReader, XmlVersion,
    events::{BytesRef, BytesStart, Event},
    name::ResolveResult,
};
use sha2::{Digest, Sha256};
use world::Timestamp;

use super::{
    Error, Kind,
    result::{Counts, Header, RuleResult, TestResult, Word},
};
use crate::{inventory::field, judge::hex};

const NAMESPACES: [&str; 2] = [
    "http://checklists.nist.gov/xccdf/1.1",
    "http://checklists.nist.gov/xccdf/1.2",
];

/// Elements within each other; an ARF report of oscap has about twenty.
const DEPTH_MAX: usize = 200;
/// Bytes of one tag or one text. OVAL results quote a line or a file name; this is room for a file.
const EVENT_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a file. An ARF report of 600 rules has 15 MB.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Rule results of one file: a year of daily scans of one host, or a thousand hosts once.
const RESULTS_MAX: usize = 500_000;
/// Rules of a benchmark whose titles are kept; the largest has fewer than two thousand.
const TITLES_MAX: usize = 20_000;
/// Bytes of an id, a title or a name that are kept; what is longer is refused, a title is cut.
const TEXT_BYTES_MAX: usize = 1024;
/// As the ledger's: 255 bytes are DNS's limit.
const HOST_BYTES_MAX: usize = 255;
/// How far the clock of another machine may be ahead.
const AHEAD_MAX: std::time::Duration = std::time::Duration::from_secs(86_400);

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    pub results: Vec<TestResult>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// Reads all of `input`. `host` stands for the targets that the results name.
///
/// # Errors
/// The file is not well-formed, holds no TestResult, one that is not as XCCDF has it, or is beyond a limit.
pub fn read(input: impl BufRead, host: Option<&str>, now: Timestamp) -> Result<FileContent, Error> {
    if let Some(host) = host {
        check_host(host)?;
    }
    let since_event = Rc::new(Cell::new(0));
    let mut reader = NsReader::from_reader(Metered {
        input,
        since_event: Rc::clone(&since_event),
        total: 0,
        hash: Sha256::new(),
    });
    reader.config_mut().expand_empty_elements = true;
    let mut walk = Walk {
        host: host.map(str::to_owned),
        now,
        ..Walk::default()
    };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        since_event.set(0);
        let at = reader.buffer_position();
        let (namespace, event) = reader
            .read_resolved_event_into(&mut buffer)
            .map_err(|error| unreadable(error, at))?;
        let is_xccdf = match namespace {
            ResolveResult::Bound(namespace) => NAMESPACES.contains(&namespace.0),
            ResolveResult::Unbound | ResolveResult::Unknown(_) => false,
        };
        if matches!(event, Event::Eof) {
            break;
        }
        walk.step(&event, is_xccdf)
            .map_err(|error| placed(error, at))?;
    }
    let results = walk.finish()?;
    let mut metered = reader.into_inner();
    // What follows the last element belongs to the file too.
    io::copy(&mut metered, &mut io::sink()).map_err(|error| unreadable(error.into(), 0))?;
    Ok(FileContent {
        results,
        sha256: hex(&metered.hash.finalize()),
    })
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unreadable(error: quick_xml::Error, at: u64) -> Error {
    if let quick_xml::Error::Io(io) = &error
        && io.kind() != io::ErrorKind::InvalidData
    {
        return Error::new(Kind::Read, "the file cannot be read").with_source(io.to_string());
    }
    Error::invalid(format!("not well-formed at byte {at}: {error}"))
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn placed(error: Error, at: u64) -> Error {
    Error::invalid(format!("{error}, at byte {at}"))
}

/// Counts and hashes what is read, and stops where one event would not end.
struct Metered<R> {
    input: R,
    since_event: Rc<Cell<u64>>,
    total: u64,
    hash: Sha256,
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.since_event.get() > EVENT_BYTES_MAX {
            let message = format!("one tag or text has more than {EVENT_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if self.total > FILE_BYTES_MAX {
            let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // What was filled is there still: this reads nothing.
        if let Ok(filled) = self.input.fill_buf() {
            self.hash.update(&filled[..amount]);
        }
        self.since_event.set(self.since_event.get() + amount as u64);
        self.total += amount as u64;
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.since_event.set(0);
        let filled = self.fill_buf()?;
        let amount = filled.len().min(into.len());
        into[..amount].copy_from_slice(&filled[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// Where the reader is.
#[derive(Default)]
struct Walk {
    host: Option<String>,
    now: Timestamp,
    depth: usize,
    titles: BTreeMap<String, String>,
    /// A rule of a benchmark, and its depth.
    rule: Option<(String, usize)>,
    result: Option<Building>,
    /// A text that is being read, and the depth of its element.
    text: Option<(Field, String, usize)>,
    results: Vec<TestResult>,
    rules: usize,
}

/// A TestResult that has not ended.
struct Building {
    header: Header,
    rules: Vec<RuleResult>,
    hash: Sha256,
    current: Option<(RuleResult, bool)>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Field {
    Title,
    Target,
    Result,
}

impl Walk {
    fn step(&mut self, event: &Event<'_>, is_xccdf: bool) -> Result<(), Error> {
        match event {
            Event::Start(tag) => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    let message = format!("more than {DEPTH_MAX} elements within each other");
                    return Err(Error::invalid(message));
                }
                if is_xccdf { self.open(tag) } else { Ok(()) }
            }
            Event::End(_) => {
                let closed = self.close();
                self.depth = self.depth.saturating_sub(1);
                closed
            }
            Event::Text(text) => {
                self.append(&text.xml10_content());
                Ok(())
            }
            Event::CData(text) => {
                self.append(text);
                Ok(())
            }
            Event::GeneralRef(name) => self.reference(name),
            Event::DocType(_) => Err(Error::invalid(
                "a document type declaration, which results do not need and bombs do",
            )),
            Event::Decl(declared) => match declared.encoding() {
                Some(Ok(name)) if !is_utf8(&name) => Err(Error::invalid(format!(
                    "the encoding `{name}` is not UTF-8"
                ))),
                _ => Ok(()),
            },
            Event::Empty(_) | Event::Comment(_) | Event::PI(_) | Event::Eof => Ok(()),
        }
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), Error> {
        let name = tag.local_name();
        let name = name.as_ref();
        match (&mut self.result, name) {
            (Some(_), "TestResult") => Err(Error::invalid("a TestResult within a TestResult")),
            (Some(building), name) if self.depth == building.depth + 1 => match name {
                "target" if building.header.host.is_empty() => self.begin_text(Field::Target),
                "benchmark" => {
                    let id = attribute(tag, "id")?.filter(|id| !id.is_empty());
                    building.header.benchmark = match id {
                        Some(id) => id,
                        None => attribute(tag, "href")?.unwrap_or_default(),
                    };
                    Ok(())
                }
                "profile" => {
                    building.header.profile = attribute(tag, "idref")?.unwrap_or_default();
                    Ok(())
                }
                "rule-result" => {
                    let rule = attribute(tag, "idref")?
                        .filter(|rule| !rule.is_empty())
                        .ok_or_else(|| Error::invalid("a rule-result without idref"))?;
                    let result = RuleResult {
                        rule,
                        result: Word::Unknown,
                        severity: attribute(tag, "severity")?.unwrap_or_default(),
                        title: String::new(),
                    };
                    building.current = Some((result, false));
                    Ok(())
                }
                _ => Ok(()),
            },
            (Some(building), "result")
                if building.current.is_some() && self.depth == building.depth + 2 =>
            {
                self.begin_text(Field::Result)
            }
            (Some(_), _) => Ok(()),
            (None, "TestResult") => {
                self.result = Some(begin(tag, self.depth, self.host.clone())?);
                Ok(())
            }
            (None, "Rule") => {
                self.rule = attribute(tag, "id")?.map(|id| (id, self.depth));
                Ok(())
            }
            (None, "title")
                if self
                    .rule
                    .as_ref()
                    .is_some_and(|(_, at)| at + 1 == self.depth) =>
            {
                self.begin_text(Field::Title)
            }
            (None, _) => Ok(()),
        }
    }

    fn begin_text(&mut self, field: Field) -> Result<(), Error> {
        self.text = Some((field, String::new(), self.depth));
        Ok(())
    }

    fn append(&mut self, more: &str) {
        if let Some((_, text, _)) = &mut self.text {
            // One beyond the limit is enough to know that it is exceeded.
            let room = (TEXT_BYTES_MAX + 4).saturating_sub(text.len());
            let end = more.floor_char_boundary(room.min(more.len()));
            text.push_str(&more[..end]);
        }
    }

    /// Only the five entities that XML itself has, and characters by number.
    fn reference(&mut self, name: &BytesRef<'_>) -> Result<(), Error> {
        let undeclared = || Error::invalid("an entity that XML does not have");
        let character = name.resolve_char_ref().map_err(|_| undeclared())?;
        if let Some(character) = character {
            self.append(character.encode_utf8(&mut [0; 4]));
            return Ok(());
        }
        let text = quick_xml::escape::resolve_predefined_entity(name).ok_or_else(undeclared)?;
        self.append(text);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        if self.text.as_ref().is_some_and(|(.., at)| *at == self.depth)
            && let Some((field, text, _)) = self.text.take()
        {
            return self.keep(field, text.trim());
        }
        if self.rule.as_ref().is_some_and(|(_, at)| *at == self.depth) {
            self.rule = None;
        }
        let Some(building) = &mut self.result else {
            return Ok(());
        };
        if building.depth == self.depth {
            let building = self.result.take().expect("it is there");
            return self.end(building);
        }
        if building.depth + 1 == self.depth
            && let Some((result, has_word)) = building.current.take()
        {
            if !has_word {
                let message = format!("rule-result {} without a result", result.rule);
                return Err(Error::invalid(message));
            }
            building.take(result);
            self.rules += 1;
            if self.rules > RESULTS_MAX {
                let message = format!("more than {RESULTS_MAX} rule results in one file");
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }

    fn keep(&mut self, field: Field, text: &str) -> Result<(), Error> {
        match (field, &mut self.result) {
            (Field::Title, _) => {
                if let Some((rule, _)) = &self.rule
                    && self.titles.len() < TITLES_MAX
                {
                    let end = text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()));
                    self.titles.insert(rule.clone(), text[..end].to_owned());
                }
            }
            (Field::Target, Some(building)) => {
                check_host(text)?;
                text.clone_into(&mut building.header.host);
            }
            (Field::Result, Some(building)) => {
                if let Some((result, has_word)) = &mut building.current {
                    result.result = Word::named(text).ok_or_else(|| {
                        let shown = text.escape_debug();
                        Error::invalid(format!("`{shown}` is no result of a rule"))
                    })?;
                    *has_word = true;
                }
            }
            (Field::Target | Field::Result, None) => {}
        }
        Ok(())
    }

    fn end(&mut self, mut building: Building) -> Result<(), Error> {
        let header = &mut building.header;
        if header.host.is_empty() {
            return Err(Error::invalid("a TestResult without target"));
        }
        if building.rules.is_empty() && header.counts == Counts::default() {
            return Err(Error::invalid("a TestResult without a rule-result"));
        }
        if header.finished > self.now.plus(AHEAD_MAX).nanos() {
            return Err(Error::invalid("a TestResult that ends in the future"));
        }
        let mut hash = building.hash;
        for part in [
            &header.host,
            &header.test_id,
            &header.benchmark,
            &header.profile,
            &header.tool,
        ] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(header.started.unwrap_or_default().to_be_bytes());
        hash.update(header.finished.to_be_bytes());
        header.id = hex(&hash.finalize());
        for result in &mut building.rules {
            if let Some(title) = self.titles.get(&result.rule) {
                result.title.clone_from(title);
            }
        }
        self.results.push(TestResult {
            header: building.header,
            rules: building.rules,
        });
        Ok(())
    }

    fn finish(self) -> Result<Vec<TestResult>, Error> {
        if self.depth > 0 {
            return Err(Error::invalid(
                "the file ends before its last element does: it is cut off",
            ));
        }
        if self.results.is_empty() {
            return Err(Error::invalid(
                "the file holds no TestResult of XCCDF 1.1 or 1.2",
            ));
        }
        Ok(self.results)
    }
}

impl Building {
    fn take(&mut self, result: RuleResult) {
        self.hash.update(result.rule.as_bytes());
        self.hash.update([0]);
        self.hash.update(result.result.name().as_bytes());
        self.hash.update([0]);
        self.header.counts.add(result.result);
        if result.result != Word::NotSelected {
            self.rules.push(result);
        }
    }
}

fn begin(tag: &BytesStart<'_>, depth: usize, host: Option<String>) -> Result<Building, Error> {
    let ended = attribute(tag, "end-time")?
        .ok_or_else(|| Error::invalid("a TestResult without end-time"))?;
    let (finished, is_zone_assumed) = time(&ended)?;
    let started = attribute(tag, "start-time")?
        .map(|started| time(&started))
        .transpose()?;
    Ok(Building {
        header: Header {
            id: String::new(),
            host: host.unwrap_or_default(),
            test_id: attribute(tag, "id")?.unwrap_or_default(),
            benchmark: String::new(),
            profile: String::new(),
            tool: attribute(tag, "test-system")?.unwrap_or_default(),
            started: started.map(|(started, _)| started),
            finished,
            is_zone_assumed,
            counts: Counts::default(),
            imported: 0,
            by: String::new(),
            file: String::new(),
        },
        rules: Vec::new(),
        hash: Sha256::new(),
        current: None,
        depth,
    })
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, Error> {
    let found = tag
        .try_get_attribute(name)
        .map_err(|error| Error::invalid(format!("an attribute: {error}")))?;
    let Some(found) = found else {
        return Ok(None);
    };
    let value = found
        .normalized_value(XmlVersion::Implicit1_0)
        .map_err(|error| Error::invalid(format!("attribute {name}: {error}")))?;
    if value.len() > TEXT_BYTES_MAX {
        let message = format!("attribute {name} has more than {TEXT_BYTES_MAX} bytes");
        return Err(Error::invalid(message));
    }
    Ok(Some(value.into_owned()))
}

fn check_host(host: &str) -> Result<(), Error> {
    let is_unseen = |c: char| c.is_control() || field::is_invisible(c);
    if host.is_empty() || host.len() > HOST_BYTES_MAX || host.chars().any(is_unseen) {
        let shown: String = host.chars().take(80).collect();
        let message = format!(
            "the target `{}` is no host name: 1 to {HOST_BYTES_MAX} bytes that are all seen",
            shown.escape_debug()
        );
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// Nanoseconds since the epoch, and whether the zone had to be assumed.
fn time(text: &str) -> Result<(u64, bool), Error> {
    let zoned = text.trim().parse::<jiff::Timestamp>();
    let (at, is_assumed) = match zoned {
        Ok(at) => (at, false),
        Err(_) => {
            let civil = text.trim().parse::<jiff::civil::DateTime>().ok();
            let at = civil.and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok());
            let at =
                at.ok_or_else(|| Error::invalid(format!("`{}` is no time", text.escape_debug())))?;
            (at.timestamp(), true)
        }
    };
    let nanos = u64::try_from(at.as_nanosecond())
        .map_err(|_| Error::invalid(format!("{at} is before 1970 or too far ahead")))?;
    Ok((nanos, is_assumed))
}

fn is_utf8(name: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}
