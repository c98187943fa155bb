//! What happened, step by step: for a reader, or as one number that tells two runs apart.

use std::fmt::{self, Write};

use replica::machine::{Durable, Effect, Event};

use super::{agenda::Moment, net::Host};

#[derive(Debug)]
pub(crate) enum Trace {
    /// Nothing: the fastest.
    Off,
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "two runs of a seed are compared by tests")
    )]
    Hash(Hash),
    /// To standard output.
    Print,
}

/// FNV-1a over the text of every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        match self {
            Self::Off => {}
            Self::Hash(hash) => hash.write_fmt(line).expect("a number takes any text"),
            Self::Print => println!("{}", readable(&line.to_string())),
        }
    }

    pub(crate) fn event(&mut self, now: Moment, host: Host, event: &Event) {
        self.line(format_args!("{} {host} < {event:?}", Clock(now)));
    }

    pub(crate) fn effect(&mut self, effect: &Effect) {
        self.line(format_args!("              > {effect:?}"));
    }

    pub(crate) fn start(&mut self, now: Moment, host: Host, durable: &Durable) {
        self.line(format_args!("{} {host} starts on {durable:?}", Clock(now)));
    }

    pub(crate) fn note(&mut self, now: Moment, host: Host, text: &str) {
        self.line(format_args!("{} {host} # {text}", Clock(now)));
    }

    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) {
        self.line(format_args!("              # {text}"));
    }

    pub(crate) fn hash(&self) -> Option<u64> {
        match self {
            Self::Hash(hash) => Some(hash.0),
            _ => None,
        }
    }
}

/// Without what is the same everywhere, and what nobody reads.
fn readable(line: &str) -> String {
    let mut left = line;
    let mut text = String::with_capacity(line.len());
    'all: while !left.is_empty() {
        for (begin, end, instead) in [
            ("bytes: [", "]", "bytes"),
            ("(RecordKind(1), [", "])", "record"),
            ("header: Header { ", "from: ", "from "),
            ("NodeId(", ")", ""),
            ("SessionId(", ")", ""),
            ("EpochId(", ")", ""),
            ("Epoch(", ")", ""),
            ("Lsn(", ")", ""),
        ] {
            let Some(rest) = left.strip_prefix(begin) else {
                continue;
            };
            let Some((inner, rest)) = rest.split_once(end) else {
                continue;
            };
            text.push_str(if instead.is_empty() { inner } else { instead });
            left = rest;
            continue 'all;
        }
        let mut chars = left.chars();
        text.extend(chars.next());
        left = chars.as_str();
    }
    text
}

/// Seconds to the microsecond.
struct Clock(Moment);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
