//! An event as a record of the journal.
//!
//! Byte map in `docs/format/events.md`; `tests/format.rs` compares the two. The journal's checksum
//! covers the bytes; what is checked here is that they mean what they say, whoever wrote them.

use std::fmt;

use wal::RecordKind;
use world::Timestamp;

use crate::event::{
    BODY_LEN_MAX, Class, NewEvent, PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX, SpanId, TraceId,
};

/// Kind of the records that are events. Readers pass over every other kind.
pub const KIND: RecordKind = RecordKind(1);
/// The version this program writes, and the only one it reads.
pub(crate) const VERSION: u8 = 1;

/// A little-endian number at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) at: usize,
    pub(crate) len: usize,
}

const fn field(name: &'static str, at: usize, len: usize) -> Field {
    Field { name, at, len }
}

pub(crate) const FIELD_VERSION: Field = field("version", 0, 1);
pub(crate) const CLASS: Field = field("class", 1, 1);
pub(crate) const FLAGS: Field = field("flags", 2, 1);
pub(crate) const SOURCE_LEN: Field = field("source length", 4, 2);
pub(crate) const PRODUCER_ID_LEN: Field = field("producer id length", 6, 2);
pub(crate) const BODY_LEN: Field = field("body length", 8, 4);
pub(crate) const RECEIVED: Field = field("received", 16, 8);
pub(crate) const TIME: Field = field("time", 24, 8);
/// Bytes before the first part of varying length.
pub(crate) const HEAD_LEN: usize = 32;
#[cfg(test)]
pub(crate) const MAP: [Field; 8] = [
    FIELD_VERSION,
    CLASS,
    FLAGS,
    SOURCE_LEN,
    PRODUCER_ID_LEN,
    BODY_LEN,
    RECEIVED,
    TIME,
];

/// Places of the head that no field names. Zero, so that a later version can give them a meaning.
const UNUSED: [usize; 5] = [3, 12, 13, 14, 15];

pub(crate) const FLAG_TRACE: u8 = 1;
pub(crate) const FLAG_SPAN: u8 = 2;
pub(crate) const FLAG_PRODUCER_ID: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_TRACE | FLAG_SPAN | FLAG_PRODUCER_ID;

impl Field {
    pub(crate) fn array<const N: usize>(self, head: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&head[self.at..self.at + self.len]);
        array
    }

    pub(crate) fn put(self, head: &mut [u8], bytes: &[u8]) {
        head[self.at..self.at + self.len].copy_from_slice(bytes);
    }
}

/// Number of a class on disk.
pub(crate) const fn class_number(class: Class) -> u8 {
    match class {
        Class::Error => 1,
        Class::Decision => 2,
        Class::Action => 3,
        Class::Lifecycle => 4,
        Class::Other => 5,
    }
}

pub(crate) fn class_of(number: u8) -> Option<Class> {
    Class::ALL
        .into_iter()
        .find(|class| class_number(*class) == number)
}

/// A record is not an event of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub(crate) String);

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Undecodable {}

/// The record of an event that [`NewEvent::check`] passed.
pub fn encode(event: &NewEvent, received: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(event));
    encode_into(&mut out, event, received);
    out
}

/// Appends the record to `out`, so that a batch shares one buffer.
pub fn encode_into(out: &mut Vec<u8>, event: &NewEvent, received: Timestamp) {
    let id = event.producer_id.as_deref();
    let mut flags = 0;
    if event.trace.is_some() {
        flags |= FLAG_TRACE;
    }
    if event.span.is_some() {
        flags |= FLAG_SPAN;
    }
    if id.is_some() {
        flags |= FLAG_PRODUCER_ID;
    }
    let short = |len: usize| u16::try_from(len).expect("checked against its bound");
    let body_len = u32::try_from(event.body.len()).expect("checked against BODY_LEN_MAX");
    let mut head = [0; HEAD_LEN];
    FIELD_VERSION.put(&mut head, &[VERSION]);
    CLASS.put(&mut head, &[class_number(event.class)]);
    FLAGS.put(&mut head, &[flags]);
    SOURCE_LEN.put(&mut head, &short(event.source.len()).to_le_bytes());
    PRODUCER_ID_LEN.put(&mut head, &short(id.map_or(0, str::len)).to_le_bytes());
    BODY_LEN.put(&mut head, &body_len.to_le_bytes());
    RECEIVED.put(&mut head, &received.nanos().to_le_bytes());
    TIME.put(&mut head, &event.time.nanos().to_le_bytes());
    out.extend_from_slice(&head);
    if let Some(TraceId(trace)) = event.trace {
        out.extend_from_slice(&trace);
    }
    if let Some(SpanId(span)) = event.span {
        out.extend_from_slice(&span);
    }
    out.extend_from_slice(event.source.as_bytes());
    out.extend_from_slice(id.unwrap_or_default().as_bytes());
    out.extend_from_slice(event.body.as_bytes());
}

/// Length of the record of `event`.
pub(crate) fn encoded_len(event: &NewEvent) -> usize {
    HEAD_LEN
        + event.trace.map_or(0, |_| 16)
        + event.span.map_or(0, |_| 8)
        + event.source.len()
        + event.producer_id.as_ref().map_or(0, String::len)
        + event.body.len()
}

/// The parts of a record, borrowed from it: what a filter and the index of ids look at, without a
/// copy of the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) received: Timestamp,
    pub(crate) time: Timestamp,
    pub(crate) class: Class,
    pub(crate) trace: Option<TraceId>,
    pub(crate) span: Option<SpanId>,
    pub(crate) source: &'a str,
    pub(crate) producer_id: Option<&'a str>,
    pub(crate) body: &'a str,
}

impl<'a> View<'a> {
    pub(crate) fn of(record: &'a [u8]) -> Result<Self, Undecodable> {
        let refuse = |why: String| Err(Undecodable(why));
        // Before the length: a later version may have a shorter head.
        match record.first() {
            Some(&VERSION) => {}
            Some(version) => {
                return refuse(format!(
                    "event of version {version}, this program reads {VERSION}; use the program that wrote it"
                ));
            }
            None => return refuse("event of no bytes".to_owned()),
        }
        if record.len() < HEAD_LEN {
            return refuse(format!(
                "event of {} bytes; at least {HEAD_LEN}",
                record.len()
            ));
        }
        let (head, mut rest) = record.split_at(HEAD_LEN);
        let [number] = CLASS.array(head);
        let Some(class) = class_of(number) else {
            return refuse(format!("event of class {number}, which there is not"));
        };
        let [flags] = FLAGS.array(head);
        if flags & !FLAGS_KNOWN != 0 {
            return refuse(format!(
                "event with flags {flags:#04x}, which there are not"
            ));
        }
        let source_len = usize::from(u16::from_le_bytes(SOURCE_LEN.array(head)));
        let id_len = usize::from(u16::from_le_bytes(PRODUCER_ID_LEN.array(head)));
        let body_len =
            usize::try_from(u32::from_le_bytes(BODY_LEN.array(head))).unwrap_or(usize::MAX);
        let has_id = flags & FLAG_PRODUCER_ID != 0;
        if source_len > SOURCE_LEN_MAX
            || id_len > PRODUCER_ID_LEN_MAX
            || body_len > BODY_LEN_MAX
            || (id_len > 0) != has_id
        {
            return refuse(format!(
                "event with lengths {source_len}, {id_len}, {body_len}, which no event has"
            ));
        }
        if UNUSED.iter().any(|&at| head[at] != 0) {
            return refuse("event with bytes where there are none".to_owned());
        }
        let trace = take_array(&mut rest, flags & FLAG_TRACE != 0)?.map(TraceId);
        let span = take_array(&mut rest, flags & FLAG_SPAN != 0)?.map(SpanId);
        let source = take_text(&mut rest, source_len)?;
        let id = take_text(&mut rest, id_len)?;
        let body = take_text(&mut rest, body_len)?;
        if !rest.is_empty() {
            return refuse(format!("event with {} bytes behind its body", rest.len()));
        }
        Ok(Self {
            received: Timestamp::from_nanos(u64::from_le_bytes(RECEIVED.array(head))),
            time: Timestamp::from_nanos(u64::from_le_bytes(TIME.array(head))),
            class,
            trace,
            span,
            source,
            producer_id: has_id.then_some(id),
            body,
        })
    }

    pub(crate) fn to_event(self) -> NewEvent {
        NewEvent {
            producer_id: self.producer_id.map(str::to_owned),
            time: self.time,
            source: self.source.to_owned(),
            class: self.class,
            trace: self.trace,
            span: self.span,
            body: self.body.to_owned(),
        }
    }
}

/// The event of a record, and when it was received.
pub fn decode(record: &[u8]) -> Result<(NewEvent, Timestamp), Undecodable> {
    let view = View::of(record)?;
    Ok((view.to_event(), view.received))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Undecodable> {
    match rest.split_at_checked(len) {
        Some((taken, left)) => {
            *rest = left;
            Ok(taken)
        }
        None => Err(Undecodable(format!(
            "event that ends {} bytes early",
            len - rest.len()
        ))),
    }
}

fn take_array<const N: usize>(
    rest: &mut &[u8],
    is_there: bool,
) -> Result<Option<[u8; N]>, Undecodable> {
    if !is_there {
        return Ok(None);
    }
    let mut array = [0; N];
    array.copy_from_slice(take(rest, N)?);
    Ok(Some(array))
}

fn take_text<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a str, Undecodable> {
    str::from_utf8(take(rest, len)?)
        .map_err(|_| Undecodable("event with text that is not UTF-8".to_owned()))
}
