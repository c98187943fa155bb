//! An event: what it has, what it is called, and what is asked of it before it is taken.
//!
//! Nothing here touches a disk. How an event lies in its record is in `record.rs`.

use std::{fmt, str::FromStr};

use wal::{Generation, JournalId, Lsn};
use world::Timestamp;

use crate::json;
pub use crate::record::{KIND, Undecodable, decode, encode, encode_into};

/// Longest id that a producer may give, in bytes. UUIDs have 36; the rest is for prefixed ones.
pub const PRODUCER_ID_LEN_MAX: usize = 256;
/// Longest source, in bytes. OpenTelemetry sets no limit on `service.name`; longer ones are mistakes.
pub const SOURCE_LEN_MAX: usize = 256;
/// Longest body, in bytes. Large enough for a stack trace with its attributes; beyond it a document
/// belongs into a table, and one event could take a whole batch.
pub const BODY_LEN_MAX: usize = 1 << 20;
/// Deepest nesting of a body. Below what the common JSON readers follow (serde_json stops at 128),
/// so that whoever is sent an event can read it.
pub const BODY_DEPTH_MAX: usize = 64;

/// What an event is about, in the order in which events are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Error,
    Decision,
    Action,
    Lifecycle,
    Other,
}

impl Class {
    /// In order of priority.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Decision,
        Self::Action,
        Self::Lifecycle,
        Self::Other,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Decision => "decision",
            Self::Action => "action",
            Self::Lifecycle => "lifecycle",
            Self::Other => "other",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`, so that a width in the format string holds.
        f.pad(self.as_str())
    }
}

/// Of W3C trace context. All zeros means none there, and is not kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Of W3C trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Reads 32 hex digits of either case.
    pub fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }
}

impl SpanId {
    /// Reads 16 hex digits of either case.
    pub fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The name of an event for ever: `{journal}:{generation}:{lsn}`, 32 hex digits and two decimals.
/// A journal is random and a generation is never taken twice, so no reset makes an id again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub journal: JournalId,
    pub generation: Generation,
    pub lsn: Lsn,
}

impl EventId {
    pub fn new(identity: wal::Identity, lsn: Lsn) -> Self {
        Self {
            journal: identity.journal,
            generation: identity.generation,
            lsn,
        }
    }

    pub fn identity(self) -> wal::Identity {
        wal::Identity {
            journal: self.journal,
            generation: self.generation,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.journal, self.generation.0, self.lsn)
    }
}

/// The text is not an event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEventId;

impl fmt::Display for NotAnEventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event's id is {journal}:{generation}:{lsn}, 32 hex digits and two numbers")
    }
}

impl std::error::Error for NotAnEventId {}

impl FromStr for EventId {
    type Err = NotAnEventId;

    /// Reads only what `Display` writes: one id has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAnEventId> {
        let parsed = || {
            let mut parts = text.split(':');
            let id = Self {
                journal: JournalId(hex(parts.next()?)?),
                generation: Generation(parts.next()?.parse().ok()?),
                lsn: Lsn::new(parts.next()?.parse().ok()?),
            };
            parts.next().is_none().then_some(id)
        };
        parsed()
            .filter(|id| id.to_string() == text)
            .ok_or(NotAnEventId)
    }
}

/// An event as a producer gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The producer's own id: seen again from the same source within the retained range, the event is
    /// acknowledged and not kept twice.
    pub producer_id: Option<String>,
    /// When it happened, by the producer's clock; intake gives its own where the producer gave none.
    pub time: Timestamp,
    /// Who says so: `service.name` in OTLP.
    pub source: String,
    pub class: Class,
    pub trace: Option<TraceId>,
    pub span: Option<SpanId>,
    /// One JSON value, kept byte for byte.
    pub body: String,
}

/// An event as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    /// When it was taken, by this machine's clock. The order of events is that of their positions,
    /// not of this: the clock may be set back.
    pub received: Timestamp,
    pub event: NewEvent,
}

/// Why an event is not taken: which part of it, and what about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub field: &'static str,
    pub why: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.why)
    }
}

impl std::error::Error for Unfit {}

impl NewEvent {
    /// What [`crate::Log::append`] asks of each event; an intake that refuses events one by one asks
    /// before.
    pub fn check(&self) -> Result<(), Unfit> {
        self.check_lengths()?;
        json::check(&self.body, BODY_DEPTH_MAX).map_err(|why| Unfit { field: "body", why })
    }

    fn check_lengths(&self) -> Result<(), Unfit> {
        let unfit = |field, why| Err(Unfit { field, why });
        let too_long = |len, max| format!("of {len} bytes; at most {max}");
        if self.source.is_empty() {
            return unfit("source", "is empty".to_owned());
        }
        if self.source.len() > SOURCE_LEN_MAX {
            return unfit("source", too_long(self.source.len(), SOURCE_LEN_MAX));
        }
        if let Some(id) = &self.producer_id {
            if id.is_empty() {
                return unfit("producer_id", "is empty".to_owned());
            }
            if id.len() > PRODUCER_ID_LEN_MAX {
                return unfit("producer_id", too_long(id.len(), PRODUCER_ID_LEN_MAX));
            }
        }
        if self.body.len() > BODY_LEN_MAX {
            return unfit("body", too_long(self.body.len(), BODY_LEN_MAX));
        }
        Ok(())
    }

    /// Bytes that it occupies in memory.
    pub fn weight(&self) -> usize {
        let id = self.producer_id.as_ref().map_or(0, String::len);
        size_of::<Self>() + id + self.source.len() + self.body.len()
    }
}
