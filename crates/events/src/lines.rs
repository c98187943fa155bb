//! An event as one line of JSON, both ways; and the line that acknowledges it.
//!
//! A body goes through as the text it is: no key changes its place and no number its digits.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use world::Timestamp;

use crate::{
    event::{
        BODY_LEN_MAX, Class, Event, NewEvent, PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX, SpanId, TraceId,
        Unfit,
    },
    json,
    log::Ack,
};

/// Longest line read, in bytes: a longest body and room for every other field, escaped.
pub const LINE_LEN_MAX: usize = BODY_LEN_MAX + 6 * (PRODUCER_ID_LEN_MAX + SOURCE_LEN_MAX) + 1024;

/// What an event gets where its line says nothing.
#[derive(Clone, Debug)]
pub struct Defaults<'a> {
    /// None: a line without a source is refused.
    pub source: Option<&'a str>,
    pub class: Class,
    pub now: Timestamp,
    /// The lines are those of another Holdfast: an event without a producer's id gets the id it has
    /// there, so that it is kept once however often it is sent.
    pub is_relay: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    id: Option<String>,
    #[serde(rename = "received")]
    _received: Option<String>,
    time: Option<String>,
    source: Option<String>,
    class: Option<String>,
    trace: Option<String>,
    span: Option<String>,
    producer_id: Option<String>,
    #[serde(default, borrow, deserialize_with = "present")]
    body: Option<&'a RawValue>,
}

/// A body that is `null` is a body.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads one line. `id` and `received` are what another log gave the event, and are read only from a
/// relay. Unknown fields are refused: what is not kept is not taken.
pub fn parse(line: &[u8], defaults: &Defaults<'_>) -> Result<NewEvent, Unfit> {
    let unfit = |field, why: &str| Unfit {
        field,
        why: why.to_owned(),
    };
    if line.len() > LINE_LEN_MAX {
        return Err(unfit(
            "line",
            &format!("of {} bytes; at most {LINE_LEN_MAX}", line.len()),
        ));
    }
    let text = str::from_utf8(line).map_err(|_| unfit("line", "is not UTF-8"))?;
    // An array would be read as the fields in their order, which nobody means.
    if !text.trim_start().starts_with('{') {
        return Err(unfit("line", "is not an event: a JSON object is wanted"));
    }
    let found: Line<'_> = serde_json::from_str(text)
        .map_err(|error| unfit("line", &format!("is not an event as JSON: {error}")))?;
    let source = found.source.as_deref().or(defaults.source);
    let event = NewEvent {
        producer_id: found.producer_id.or(found.id.filter(|_| defaults.is_relay)),
        time: match &found.time {
            Some(text) => parse_time(text)
                .ok_or_else(|| unfit("time", "is not RFC 3339, from 1970 to 2554"))?,
            None => defaults.now,
        },
        source: source
            .ok_or_else(|| unfit("source", "is missing"))?
            .to_owned(),
        class: match &found.class {
            Some(text) => Class::parse(text).ok_or_else(|| {
                unfit(
                    "class",
                    "is not error, decision, action, lifecycle or other",
                )
            })?,
            None => defaults.class,
        },
        trace: found
            .trace
            .map(|text| TraceId::parse(&text).ok_or_else(|| unfit("trace", "is not 32 hex digits")))
            .transpose()?,
        span: found
            .span
            .map(|text| SpanId::parse(&text).ok_or_else(|| unfit("span", "is not 16 hex digits")))
            .transpose()?,
        body: found
            .body
            .ok_or_else(|| unfit("body", "is missing"))?
            .get()
            .to_owned(),
    };
    event.check()?;
    Ok(event)
}

/// RFC 3339 with nanoseconds, in UTC.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanos()))
        .map_or_else(|_| at.nanos().to_string(), |at| format!("{at:.9}"))
}

/// Reads RFC 3339 with any offset; what nanoseconds since 1970 cannot say is none.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_nanosecond())
        .ok()
        .map(Timestamp::from_nanos)
}

/// Appends the line of `event` with its line break.
pub fn push(out: &mut String, event: &Event) {
    let (id, received, time) = (event.id, rfc3339(event.received), rfc3339(event.event.time));
    write!(
        out,
        r#"{{"id":"{id}","received":"{received}","time":"{time}","source":"#
    )
    .expect(TO_A_STRING);
    push_fields(out, &event.event);
}

/// Everything from the source's value on.
fn push_fields(out: &mut String, event: &NewEvent) {
    push_string(out, &event.source);
    write!(out, r#","class":"{}""#, event.class).expect(TO_A_STRING);
    if let Some(trace) = event.trace {
        write!(out, r#","trace":"{trace}""#).expect(TO_A_STRING);
    }
    if let Some(span) = event.span {
        write!(out, r#","span":"{span}""#).expect(TO_A_STRING);
    }
    if let Some(id) = &event.producer_id {
        out.push_str(r#","producer_id":"#);
        push_string(out, id);
    }
    out.push_str(r#","body":"#);
    json::push_on_one_line(out, &event.body);
    out.push_str("}\n");
}

/// Appends the line that acknowledges an event, with its line break.
pub fn push_ack(out: &mut String, ack: &Ack) {
    let id = ack.id;
    writeln!(
        out,
        r#"{{"id":"{id}","journal":"{}","generation":{},"lsn":{},"duplicate":{}}}"#,
        id.journal, id.generation.0, id.lsn, ack.is_duplicate
    )
    .expect(TO_A_STRING);
}

const TO_A_STRING: &str = "writing to a string cannot fail";

fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        push_ack(&mut line, self);
        f.write_str(line.trim_end())
    }
}

/// Appends an event that has no id yet as the line that [`parse`] reads back, with its line break.
pub fn push_new(out: &mut String, event: &NewEvent) {
    write!(out, r#"{{"time":"{}","source":"#, rfc3339(event.time)).expect(TO_A_STRING);
    push_fields(out, event);
}

/// Reads a line of [`push`] back: the event with the id it has.
pub fn parse_kept(line: &[u8]) -> Result<Event, Unfit> {
    #[derive(Deserialize)]
    struct Kept {
        id: String,
        received: String,
    }
    let unfit = |field, why: &str| Unfit {
        field,
        why: why.to_owned(),
    };
    let kept: Kept = serde_json::from_slice(line)
        .map_err(|error| unfit("line", &format!("is not an event as JSON: {error}")))?;
    let defaults = Defaults {
        source: None,
        class: Class::Other,
        now: Timestamp::default(),
        is_relay: false,
    };
    Ok(Event {
        id: kept
            .id
            .parse()
            .map_err(|_| unfit("id", "is no event's id"))?,
        received: parse_time(&kept.received)
            .ok_or_else(|| unfit("received", "is not RFC 3339, from 1970 to 2554"))?,
        event: parse(line, &defaults)?,
    })
}
