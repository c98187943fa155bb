//! Frames: from what a host sends to the sections of one answer.
//!
//! An answer is `\nMARK B NUMBER z\n`, a body, `\nMARK E NUMBER\n`; the body is compressed (`z`) or
//! plain (`p`), and is made of sections `\nMARK NAME QUESTION\n…`. The mark is 128 random bits that
//! went to the host on its standard input. Everything is counted before it is kept.

use std::{collections::HashMap, io::Read, time::Duration};

use flate2::read::GzDecoder;
use memchr::memmem;
use world::Clock;

use super::{Exchange, Limits, Rounds};
use crate::failure::{Failure, Reason};

/// What login scripts print before the first answer, and whatever gets between answers.
const STRAY_BYTES_MAX: usize = 64 << 10;

/// Sections of one answer: a question has at most six, and one round asks a few hundred at once.
const SECTIONS_MAX: usize = 100_000;

/// Beginning of what a host said instead of an answer.
const WORDS_MAX: usize = 200;

/// One section: its name and where it is in the body.
pub(super) type Sections<'b> = HashMap<&'b [u8], Vec<(u8, &'b [u8])>>;

pub(super) struct Session<'a> {
    exchange: &'a mut dyn Exchange,
    clock: &'a dyn Clock,
    limits: &'a Limits,
    pub(super) mark: String,
    pub(super) rounds: Rounds,
    inflated: u64,
    end: Duration,
    buffer: Vec<u8>,
    stray: usize,
    words: Vec<u8>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        exchange: &'a mut dyn Exchange,
        clock: &'a dyn Clock,
        limits: &'a Limits,
        mark: String,
    ) -> Self {
        Self {
            end: clock.monotonic() + limits.deadline,
            exchange,
            clock,
            limits,
            mark,
            rounds: Rounds::default(),
            inflated: 0,
            buffer: Vec::new(),
            stray: 0,
            words: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, script: &str) -> Result<(), Failure> {
        self.exchange.send(script.as_bytes())?;
        self.rounds.bytes_sent += script.len() as u64;
        self.within()
    }

    /// The body of answer `number`, inflated.
    pub(super) fn answer(&mut self, number: u32) -> Result<Vec<u8>, Failure> {
        self.rounds.round_trips += 1;
        let begin = format!("\n{} B {number} ", self.mark);
        self.skip_to(begin.as_bytes())?;
        // The kind and a line break.
        while self.buffer.len() < 2 {
            self.more()?;
        }
        let kind = self.buffer[0];
        self.buffer.drain(..2);
        let end = format!("\n{} E {number}\n", self.mark);
        let mut searched = 0;
        let at = loop {
            if let Some(at) = memmem::find(&self.buffer[searched..], end.as_bytes()) {
                break searched + at;
            }
            searched = self.buffer.len().saturating_sub(end.len());
            self.more()?;
        };
        let rest = self.buffer.split_off(at + end.len());
        let mut body = std::mem::replace(&mut self.buffer, rest);
        body.truncate(at);
        if kind == b'z' {
            self.inflate(&body)
        } else {
            self.count(body)
        }
    }

    fn inflate(&mut self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let left = self.limits.session_bytes_max.saturating_sub(self.inflated);
        let mut plain = Vec::new();
        GzDecoder::new(body)
            .take(left.saturating_add(1))
            .read_to_end(&mut plain)
            .map_err(|error| {
                Failure::new(
                    Reason::Internal,
                    format!("inflate an answer of the host: {error}"),
                )
            })?;
        self.count(plain)
    }

    fn count(&mut self, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.inflated += body.len() as u64;
        self.within()?;
        Ok(body)
    }

    fn skip_to(&mut self, begin: &[u8]) -> Result<(), Failure> {
        loop {
            if let Some(at) = memmem::find(&self.buffer, begin) {
                self.skipped(at)?;
                self.buffer.drain(..at + begin.len());
                return Ok(());
            }
            let passed = self.buffer.len().saturating_sub(begin.len());
            self.skipped(passed)?;
            self.buffer.drain(..passed);
            self.more()?;
        }
    }

    fn skipped(&mut self, count: usize) -> Result<(), Failure> {
        self.stray += count;
        let room = WORDS_MAX.saturating_sub(self.words.len()).min(count);
        self.words.extend_from_slice(&self.buffer[..room]);
        if self.stray > STRAY_BYTES_MAX {
            return Err(Failure::new(
                Reason::EvidenceOversize,
                format!(
                    "over {STRAY_BYTES_MAX} bytes before an answer: {}",
                    self.said()
                ),
            ));
        }
        Ok(())
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.words).trim().to_owned()
    }

    fn more(&mut self) -> Result<(), Failure> {
        let Some(bytes) = self.exchange.receive()? else {
            let left = self.buffer.len().min(WORDS_MAX);
            self.words.extend_from_slice(&self.buffer[..left]);
            return Err(Failure::new(
                Reason::HostUnreachable,
                format!(
                    "the host closed the session within an answer: {}",
                    self.said()
                ),
            ));
        };
        self.rounds.bytes_received += bytes.len() as u64;
        self.within()?;
        self.buffer.extend_from_slice(&bytes);
        Ok(())
    }

    fn within(&self) -> Result<(), Failure> {
        if self.clock.monotonic() >= self.end {
            return Err(Failure::new(
                Reason::Timeout,
                format!("no end after {:?}", self.limits.deadline),
            ));
        }
        let max = self.limits.session_bytes_max;
        let most = self
            .inflated
            .max(self.rounds.bytes_received)
            .max(self.rounds.bytes_sent);
        if most > max {
            return Err(Failure::new(
                Reason::EvidenceOversize,
                format!("over {max} bytes in one session"),
            ));
        }
        Ok(())
    }
}

/// The sections of a body by question. What has no heading, or too many of them, is left out: its
/// questions are not answered.
pub(super) fn sections<'b>(mark: &str, body: &'b [u8]) -> Sections<'b> {
    let heading = format!("\n{mark} ");
    let mut sections: Sections<'b> = HashMap::new();
    let starts: Vec<usize> = memmem::find_iter(body, heading.as_bytes())
        .take(SECTIONS_MAX)
        .collect();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(body.len());
        let section = &body[start + heading.len()..end];
        let Some(line) = section.iter().position(|&byte| byte == b'\n') else {
            continue;
        };
        let (head, content) = (&section[..line], &section[line + 1..]);
        if let [name, b' ', question @ ..] = head {
            sections.entry(question).or_default().push((*name, content));
        }
    }
    sections
}
