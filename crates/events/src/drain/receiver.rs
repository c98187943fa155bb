//! Where a drain goes: what a receiver answers, and which receivers there are.
//!
//! A receiver sends one batch and says what became of it; it does not wait, retry or remember.
//! Waiting is the schedule's, remembering the engine's.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use world::{Clock, Disk};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Class, Error, Event, Kind};

mod file;
mod forward;
mod holdfast;
mod http;
mod nats;
mod otlp;

pub use forward::{Forward, Forwarded};

/// How long one send may take, from connecting to the last byte of the answer. Arbitrary: the
/// default of OTLP exporters.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Path of the intake of another Holdfast.
const HOLDFAST_PATH: &str = "/api/v1/events";

/// Bytes of an answer of which the reason is quoted: enough for a sentence.
const REASON_LEN_MAX: usize = 300;

/// Takes batches of one class.
pub trait Receiver: Send + fmt::Debug {
    /// Sends all of `batch`, which is never empty. `Ok`: the receiver has answered for each event,
    /// and none of them needs sending again. `Err`: it took none of them, or that is not known.
    fn send(&mut self, batch: &[Event]) -> Result<Accepted, SendError>;
}

/// What of a batch was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Events that the receiver refused for good, by their place in the batch. All others are its.
    pub refused: Vec<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub index: usize,
    pub why: String,
}

/// Why nothing of a batch counts as taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Expected to pass: no connection, no answer in time, overload.
    Retry {
        /// Not before, as the receiver asked.
        after: Option<Duration>,
        why: String,
    },
    /// The receiver will never take the batch as it is, for what is in it.
    Refused { why: String },
    /// The batch is too large for the receiver.
    Split { why: String },
    /// The receiver is not set up to take anything from us: credentials, address, kind of peer.
    Misconfigured { why: String },
}

impl SendError {
    pub fn why(&self) -> &str {
        match self {
            Self::Retry { why, .. }
            | Self::Refused { why }
            | Self::Split { why }
            | Self::Misconfigured { why } => why,
        }
    }

    fn retry(why: impl fmt::Display) -> Self {
        Self::Retry {
            after: None,
            why: why.to_string(),
        }
    }
}

/// Where to, as written in configuration: `otlp=URL`, `holdfast=URL`, `file=PATH` or `nats=URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// OTLP/HTTP logs. A URL without a path gets `/v1/logs`.
    Otlp(String),
    /// The intake of another Holdfast. A URL without a path gets `/api/v1/events`.
    Holdfast(String),
    /// JSON lines.
    File(PathBuf),
    /// A JetStream stream: `nats://HOST:PORT[/SUBJECT]`; each class has its subject below that one.
    Nats(String),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (kind, place) = text.split_once('=').unwrap_or((text, ""));
        match kind {
            "otlp" => Ok(Self::Otlp(http::with_path(place, "/v1/logs")?)),
            "holdfast" => Ok(Self::Holdfast(http::with_path(place, HOLDFAST_PATH)?)),
            "file" if !place.is_empty() => Ok(Self::File(place.into())),
            "nats" => nats::Place::parse(place).map(|place| Self::Nats(place.to_string())),
            _ => Err(Error::new(
                Kind::Invalid,
                format!(
                    "`{text}` is no receiver; write otlp=URL, holdfast=URL, file=PATH or \
                     nats=nats://HOST:PORT[/SUBJECT]"
                ),
            )),
        }
    }
}

/// Characters of a receiver that a drain's name shows; with the number behind them below the longest
/// name.
const NAME_SHOWN_MAX: usize = 48;

impl Target {
    /// The name of a drain that was given none: what can be read of the receiver, and a number that
    /// keeps those apart that read alike.
    pub fn drain_name(&self) -> String {
        let text = self.to_string();
        let shown: String = text
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => c,
                _ => '-',
            })
            .take(NAME_SHOWN_MAX)
            .collect();
        format!("{shown}-{:08x}", xxh3_64(text.as_bytes()) >> 32)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otlp(url) => write!(f, "otlp={url}"),
            Self::Holdfast(url) => write!(f, "holdfast={url}"),
            Self::File(path) => write!(f, "file={}", path.display()),
            Self::Nats(url) => write!(f, "nats={url}"),
        }
    }
}

/// A header of each request. Its value may be a credential and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: (hidden)", self.name)
    }
}

/// What receivers are made from.
#[derive(Clone, Debug)]
pub struct Receivers {
    pub target: Target,
    pub headers: Vec<Header>,
    pub send_timeout: Duration,
    /// Length beyond which a file is put aside and another begun.
    pub file_len_max: u64,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
}

/// A receiver for the events of one class.
pub(crate) type OfClass = (Class, Box<dyn Receiver>);

impl Receivers {
    pub fn new(target: Target, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        Self {
            target,
            headers: Vec::new(),
            send_timeout: SEND_TIMEOUT,
            file_len_max: file::FILE_LEN_MAX,
            disk,
            clock,
        }
    }

    /// One receiver a class, in the order of priority; no send of one waits for that of another,
    /// except that a file has one end to append to.
    ///
    /// Errors: `Invalid`, a header that cannot be sent; `Io`, `Full`: the file.
    pub(crate) fn open(&self) -> Result<Vec<OfClass>, Error> {
        let mut receivers: Vec<OfClass> = Vec::with_capacity(Class::ALL.len());
        if let Target::File(path) = &self.target {
            let file = Arc::new(file::Lines::open(
                Arc::clone(&self.disk),
                Arc::clone(&self.clock),
                path,
                self.file_len_max,
            )?);
            for class in Class::ALL {
                receivers.push((class, Box::new(file::Receiver::new(Arc::clone(&file)))));
            }
            return Ok(receivers);
        }
        for class in Class::ALL {
            receivers.push((class, self.over_the_network()?));
        }
        Ok(receivers)
    }

    fn over_the_network(&self) -> Result<Box<dyn Receiver>, Error> {
        let post = |url: &str| {
            http::Post::new(
                url,
                &self.headers,
                self.send_timeout,
                Arc::clone(&self.clock),
            )
        };
        Ok(match &self.target {
            Target::Otlp(url) => Box::new(otlp::Receiver::new(post(url)?)),
            Target::Holdfast(url) => Box::new(holdfast::Receiver::new(post(url)?)),
            Target::Nats(url) => Box::new(nats::Receiver::new(
                nats::Place::parse(url)?,
                &self.headers,
                self.send_timeout,
                Arc::clone(&self.clock),
            )?),
            Target::File(_) => unreachable!("files are opened once for all classes"),
        })
    }
}

/// What a receiver said, cut to a sentence and made safe to print in one line.
fn quoted(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_LEN_MAX)
        .collect();
    text.trim().to_owned()
}
