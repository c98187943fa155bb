//! A request in protobuf as events.

use std::fmt::Write;

use world::Timestamp;

use super::{
    Error, Fault, MARK, Malformed, SHAPE,
    value::{Pair, repeated, write_pairs, write_text, write_value},
    wire::Fields,
};
use crate::event::{
    BODY_LEN_MAX, Class, NewEvent, PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX, SpanId, TraceId,
};

/// Reasons told of records that were refused; the others are counted.
pub const REFUSALS_TOLD_MAX: usize = 10;

/// Source of records whose resource names no service: what the specification tells SDKs to send.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Lowest severity number of ERROR.
const SEVERITY_ERROR: i32 = 17;

const WRITES: &str = "writing to a string cannot fail";

/// Asked before an event of so many bytes is kept; false stops the decoding.
pub type Grant<'a> = &'a mut dyn FnMut(usize) -> bool;

/// What a request held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// In the order of the request.
    pub events: Vec<NewEvent>,
    /// The first [`REFUSALS_TOLD_MAX`] of `refused_count`.
    pub refused: Vec<Refused>,
    pub refused_count: usize,
}

/// A record that can never be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Counted from 0 over the whole request.
    pub index: usize,
    pub reason: String,
}

/// Decodes an `ExportLogsServiceRequest`. `now` dates records that carry no time.
pub fn decode_protobuf(request: &[u8], now: Timestamp, grant: Grant<'_>) -> Result<Decoded, Error> {
    let mut decoder = Decoder {
        now,
        grant,
        index: 0,
        decoded: Decoded::default(),
    };
    for resource_logs in repeated(request, 1) {
        decoder.resource_logs(resource_logs?)?;
    }
    Ok(decoder.decoded)
}

struct Decoder<'a> {
    now: Timestamp,
    grant: Grant<'a>,
    index: usize,
    decoded: Decoded,
}

/// What the records of a scope have in common.
struct Shared<'a> {
    source: &'a str,
    /// The body up to the record's own fields.
    prefix: String,
}

impl Decoder<'_> {
    fn resource_logs(&mut self, message: &[u8]) -> Result<(), Error> {
        let mut resource = None;
        let mut schema = "";
        for field in Fields::of(message) {
            match field? {
                (1, value) => resource = Some(value.bytes()?),
                (3, value) => schema = value.text()?,
                _ => {}
            }
        }
        let mut shared = Shared {
            source: UNKNOWN_SERVICE,
            prefix: format!("{{\"{MARK}\":{SHAPE}"),
        };
        if let Some(resource) = resource {
            shared.source = service_name(resource)?.unwrap_or(UNKNOWN_SERVICE);
            write_resource(&mut shared.prefix, resource).map_err(whole)?;
        }
        write_schema(&mut shared.prefix, "resource_schema_url", schema);
        for scope_logs in repeated(message, 2) {
            self.scope_logs(scope_logs?, &shared)?;
        }
        Ok(())
    }

    fn scope_logs(&mut self, message: &[u8], of_resource: &Shared<'_>) -> Result<(), Error> {
        let mut scope = None;
        let mut schema = "";
        for field in Fields::of(message) {
            match field? {
                (1, value) => scope = Some(value.bytes()?),
                (3, value) => schema = value.text()?,
                _ => {}
            }
        }
        let mut shared = Shared {
            source: of_resource.source,
            prefix: of_resource.prefix.clone(),
        };
        if let Some(scope) = scope {
            write_scope(&mut shared.prefix, scope).map_err(whole)?;
        }
        write_schema(&mut shared.prefix, "scope_schema_url", schema);
        for record in repeated(message, 2) {
            self.record(record?, &shared)?;
        }
        Ok(())
    }

    fn record(&mut self, message: &[u8], shared: &Shared<'_>) -> Result<(), Error> {
        let index = self.index;
        self.index += 1;
        // What a refused record costs is bounded by the request; what a kept one costs is granted
        // before its body is made. JSON is at most six times as long as what it escapes.
        let len = shared.prefix.len() + message.len();
        if !(self.grant)(size_of::<NewEvent>() + len) {
            return Err(Error::NotGranted);
        }
        let reason = match event(message, shared, self.now) {
            Ok(event) => {
                let more = event.body.len().saturating_sub(len);
                if !(self.grant)(more) {
                    return Err(Error::NotGranted);
                }
                self.decoded.events.push(event);
                return Ok(());
            }
            Err(Fault::Malformed(malformed)) => return Err(malformed.into()),
            Err(Fault::Refused(reason)) => reason,
        };
        self.decoded.refused_count += 1;
        if self.decoded.refused.len() < REFUSALS_TOLD_MAX {
            self.decoded.refused.push(Refused { index, reason });
        }
        Ok(())
    }
}

/// What is wrong with a resource or a scope is wrong with all its records.
fn whole(fault: Fault) -> Error {
    match fault {
        Fault::Malformed(malformed) => malformed.into(),
        Fault::Refused(why) => Malformed::new(why).into(),
    }
}

fn service_name(resource: &[u8]) -> Result<Option<&str>, Malformed> {
    for attribute in repeated(resource, 1) {
        let pair = Pair::read(attribute?)?;
        if pair.key == "service.name" {
            let name = pair.text().filter(|name| !name.is_empty());
            return Ok(name.map(|name| cut(name, SOURCE_LEN_MAX)));
        }
    }
    Ok(None)
}

/// The column is cut, the body keeps the name whole.
fn cut(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

fn write_schema(out: &mut String, key: &str, schema: &str) {
    if !schema.is_empty() {
        write!(out, ",\"{key}\":").expect(WRITES);
        write_text(out, schema);
    }
}

fn write_resource(out: &mut String, message: &[u8]) -> Result<(), Fault> {
    let mut dropped = 0;
    for field in Fields::of(message) {
        if let (2, value) = field? {
            dropped = value.uint32()?;
        }
    }
    out.push_str(",\"resource\":");
    write_pairs(out, repeated(message, 1), 1)?;
    if dropped > 0 {
        write!(out, ",\"resource_dropped_attributes_count\":{dropped}").expect(WRITES);
    }
    let mut refs = repeated(message, 3).peekable();
    if refs.peek().is_none() {
        return Ok(());
    }
    out.push_str(",\"resource_entity_refs\":[");
    for (at, entity) in refs.enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_entity_ref(out, entity?)?;
    }
    out.push(']');
    Ok(())
}

fn write_entity_ref(out: &mut String, message: &[u8]) -> Result<(), Malformed> {
    let mut schema = "";
    let mut kind = "";
    for field in Fields::of(message) {
        match field? {
            (1, value) => schema = value.text()?,
            (2, value) => kind = value.text()?,
            _ => {}
        }
    }
    out.push_str("{\"schema_url\":");
    write_text(out, schema);
    out.push_str(",\"type\":");
    write_text(out, kind);
    for (number, key) in [(3, "id_keys"), (4, "description_keys")] {
        write!(out, ",\"{key}\":[").expect(WRITES);
        for (at, text) in repeated(message, number).enumerate() {
            if at > 0 {
                out.push(',');
            }
            let text = std::str::from_utf8(text?);
            write_text(
                out,
                text.map_err(|_| Malformed::new("a string is not UTF-8"))?,
            );
        }
        out.push(']');
    }
    out.push('}');
    Ok(())
}

fn write_scope(out: &mut String, message: &[u8]) -> Result<(), Fault> {
    let mut name = "";
    let mut version = "";
    let mut dropped = 0;
    for field in Fields::of(message) {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => version = value.text()?,
            (4, value) => dropped = value.uint32()?,
            _ => {}
        }
    }
    out.push_str(",\"scope\":{\"name\":");
    write_text(out, name);
    if !version.is_empty() {
        out.push_str(",\"version\":");
        write_text(out, version);
    }
    write_attributes(out, message, 3, dropped, 2)?;
    out.push('}');
    Ok(())
}

/// Attributes of a scope or a record, when there are any, and how many its producer dropped.
fn write_attributes(
    out: &mut String,
    message: &[u8],
    number: u64,
    dropped: u32,
    open: usize,
) -> Result<(), Fault> {
    let attributes = repeated(message, number);
    if attributes.clone().next().is_some() {
        out.push_str(",\"attributes\":");
        write_pairs(out, attributes, open)?;
    }
    if dropped > 0 {
        write!(out, ",\"dropped_attributes_count\":{dropped}").expect(WRITES);
    }
    Ok(())
}

/// The fields of a log record, attributes left where they are.
#[derive(Default)]
struct Record<'a> {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: &'a str,
    body: Option<&'a [u8]>,
    dropped: u32,
    flags: u32,
    trace: &'a [u8],
    span: &'a [u8],
    event_name: &'a str,
}

/// What the attributes of a record say of the event.
#[derive(Default)]
struct Said<'a> {
    class: Option<Class>,
    kind: Option<&'a str>,
    producer_id: Option<&'a str>,
}

fn record(message: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut record = Record::default();
    for field in Fields::of(message) {
        match field? {
            (1, value) => record.time = value.fixed64()?,
            (2, value) => record.severity = value.int32()?,
            (3, value) => record.severity_text = value.text()?,
            (5, value) => record.body = Some(value.bytes()?),
            (7, value) => record.dropped = value.uint32()?,
            (8, value) => record.flags = value.fixed32()?,
            (9, value) => record.trace = value.bytes()?,
            (10, value) => record.span = value.bytes()?,
            (11, value) => record.observed = value.fixed64()?,
            (12, value) => record.event_name = value.text()?,
            _ => {}
        }
    }
    Ok(record)
}

fn said(message: &[u8]) -> Result<Said<'_>, Malformed> {
    let mut said = Said::default();
    for attribute in repeated(message, 6) {
        let pair = Pair::read(attribute?)?;
        match pair.key {
            "holdfast.class" => said.class = pair.text().and_then(Class::parse).or(said.class),
            "event.class" => said.class = said.class.or(pair.text().and_then(Class::parse)),
            "event.kind" => said.kind = pair.text(),
            "log.record.uid" => said.producer_id = pair.text().filter(|id| !id.is_empty()),
            _ => {}
        }
    }
    Ok(said)
}

fn event(message: &[u8], shared: &Shared<'_>, now: Timestamp) -> Result<NewEvent, Fault> {
    let record = record(message)?;
    let said = said(message)?;
    if let Some(id) = said.producer_id
        && id.len() > PRODUCER_ID_LEN_MAX
    {
        return Err(Fault::Refused(format!(
            "log.record.uid of {} bytes; at most {PRODUCER_ID_LEN_MAX}",
            id.len()
        )));
    }
    let trace = identifier(record.trace);
    let span = identifier(record.span);
    let mut body = String::with_capacity(shared.prefix.len() + message.len() + 128);
    body.push_str(&shared.prefix);
    write_record(&mut body, &record, trace.is_none(), span.is_none());
    write_attributes(&mut body, message, 6, record.dropped, 1)?;
    if let Some(value) = record.body {
        body.push_str(",\"body\":");
        write_value(&mut body, value, 1)?;
    }
    body.push('}');
    if body.len() > BODY_LEN_MAX {
        return Err(Fault::Refused(format!(
            "an event of {} bytes; at most {BODY_LEN_MAX}",
            body.len()
        )));
    }
    let time = [record.time, record.observed, now.nanos()];
    let time = time.into_iter().find(|time| *time != 0).unwrap_or(0);
    Ok(NewEvent {
        producer_id: said.producer_id.map(str::to_owned),
        time: Timestamp::from_nanos(time),
        source: shared.source.to_owned(),
        class: class(&record, &said),
        trace: trace.map(TraceId),
        span: span.map(SpanId),
        body,
    })
}

/// An id of the wrong length, or of zeros only, is none; the body keeps its bytes.
fn identifier<const LEN: usize>(bytes: &[u8]) -> Option<[u8; LEN]> {
    let id: [u8; LEN] = bytes.try_into().ok()?;
    (id != [0; LEN]).then_some(id)
}

fn class(record: &Record<'_>, said: &Said<'_>) -> Class {
    if let Some(class) = said.class {
        return class;
    }
    if record.severity >= SEVERITY_ERROR {
        return Class::Error;
    }
    let named = [Some(record.event_name), said.kind].into_iter().flatten();
    named
        .filter_map(Class::parse)
        .find(|class| matches!(class, Class::Decision | Class::Action | Class::Lifecycle))
        .unwrap_or(Class::Other)
}

fn write_record(out: &mut String, record: &Record<'_>, keeps_trace: bool, keeps_span: bool) {
    if record.time == 0 {
        out.push_str(",\"time_unknown\":true");
    }
    if record.observed > 0 {
        // As text: it is more than a double holds.
        let observed = record.observed;
        write!(out, ",\"observed_time_unix_nano\":\"{observed}\"").expect(WRITES);
    }
    if record.severity != 0 {
        write!(out, ",\"severity_number\":{}", record.severity).expect(WRITES);
    }
    for (key, text) in [
        ("severity_text", record.severity_text),
        ("event_name", record.event_name),
    ] {
        if !text.is_empty() {
            write!(out, ",\"{key}\":").expect(WRITES);
            write_text(out, text);
        }
    }
    if record.flags > 0 {
        write!(out, ",\"flags\":{}", record.flags).expect(WRITES);
    }
    for (key, bytes, is_kept) in [
        ("trace_id", record.trace, keeps_trace),
        ("span_id", record.span, keeps_span),
    ] {
        if is_kept && !bytes.is_empty() {
            write!(out, ",\"{key}\":\"").expect(WRITES);
            for byte in bytes {
                write!(out, "{byte:02x}").expect(WRITES);
            }
            out.push('"');
        }
    }
}
