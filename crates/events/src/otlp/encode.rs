//! Events as a request.
//!
//! An event that came as OTLP becomes the record it was. Any other becomes a record whose body is
//! the event's and whose resource names its source.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use serde_json::{Map, Value as Json};

use super::{
    MARK, SHAPE,
    value::{any_value, key_values},
};
use crate::event::{Class, Event};

/// Whether a record names itself, so that a receiver can tell one that is sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Exactly what the producer sent.
    AsSent,
    /// A record without `log.record.uid` gets the event's id as one.
    Named,
}

/// Consecutive events of one resource and scope share them. What one resource and scope sent in
/// several groups one after the other comes out in one.
pub fn encode(events: &[Event], identity: Identity) -> ExportLogsServiceRequest {
    let mut request = ExportLogsServiceRequest::default();
    for event in events {
        let mut placed = placed(event);
        if identity == Identity::Named {
            name(&mut placed.record, event);
        }
        add(&mut request, placed);
    }
    request
}

/// A record with what it lies in.
#[derive(Default)]
struct Placed {
    resource: Option<Resource>,
    resource_schema: String,
    scope: Option<InstrumentationScope>,
    scope_schema: String,
    record: LogRecord,
}

fn add(request: &mut ExportLogsServiceRequest, placed: Placed) {
    let fits = request.resource_logs.last().is_some_and(|last| {
        last.resource == placed.resource && last.schema_url == placed.resource_schema
    });
    if !fits {
        request.resource_logs.push(ResourceLogs {
            resource: placed.resource,
            scope_logs: Vec::new(),
            schema_url: placed.resource_schema,
        });
    }
    let scopes = &mut request
        .resource_logs
        .last_mut()
        .expect("one fits or was pushed")
        .scope_logs;
    let fits = scopes
        .last()
        .is_some_and(|last| last.scope == placed.scope && last.schema_url == placed.scope_schema);
    if !fits {
        scopes.push(ScopeLogs {
            scope: placed.scope,
            log_records: Vec::new(),
            schema_url: placed.scope_schema,
        });
    }
    let last = scopes.last_mut().expect("one fits or was pushed");
    last.log_records.push(placed.record);
}

fn name(record: &mut LogRecord, event: &Event) {
    const UID: &str = "log.record.uid";
    if record.attributes.iter().all(|pair| pair.key != UID) {
        let id = event.event.producer_id.clone();
        let id = id.unwrap_or_else(|| event.id.to_string());
        record.attributes.push(text_pair(UID, id));
    }
}

fn text_pair(key: &str, text: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Any::StringValue(text.into())),
        }),
        key_strindex: 0,
    }
}

fn placed(event: &Event) -> Placed {
    let json = serde_json::from_str::<Json>(&event.event.body).ok();
    if let Some(Json::Object(body)) = &json
        && body.get(MARK).and_then(Json::as_u64) == Some(SHAPE)
    {
        return as_sent(event, body);
    }
    foreign(event, json.as_ref())
}

/// The record of a body that [`super::decode_protobuf`] made. A body made by others that claims to
/// be one gives what can be read of it.
fn as_sent(event: &Event, body: &Map<String, Json>) -> Placed {
    let text = |key: &str| text_of(body, key);
    let number = |key: &str| number_of(body, key);
    let attributes = |key: &str| attributes_of(body, key);
    let mut record = LogRecord {
        time_unix_nano: event.event.time.nanos(),
        observed_time_unix_nano: text("observed_time_unix_nano").parse().unwrap_or(0),
        severity_number: body
            .get("severity_number")
            .and_then(Json::as_i64)
            .and_then(|number| i32::try_from(number).ok())
            .unwrap_or(0),
        severity_text: text("severity_text"),
        body: body.get("body").map(any_value),
        attributes: attributes("attributes"),
        dropped_attributes_count: number("dropped_attributes_count"),
        flags: number("flags"),
        event_name: text("event_name"),
        ..LogRecord::default()
    };
    if body.contains_key("time_unknown") {
        record.time_unix_nano = 0;
    }
    identify(&mut record, event);
    for (key, field) in [
        ("trace_id", &mut record.trace_id),
        ("span_id", &mut record.span_id),
    ] {
        if let Some(bytes) = bytes_of(&text(key)) {
            *field = bytes;
        }
    }
    Placed {
        resource: body.contains_key("resource").then(|| Resource {
            attributes: attributes("resource"),
            dropped_attributes_count: number("resource_dropped_attributes_count"),
            entity_refs: entity_refs(body),
        }),
        resource_schema: text("resource_schema_url"),
        scope: body
            .get("scope")
            .and_then(Json::as_object)
            .map(|scope| InstrumentationScope {
                name: text_of(scope, "name"),
                version: text_of(scope, "version"),
                attributes: attributes_of(scope, "attributes"),
                dropped_attributes_count: number_of(scope, "dropped_attributes_count"),
            }),
        scope_schema: text("scope_schema_url"),
        record,
    }
}

/// The record of an event that never was OTLP. Its class is told, so that another Holdfast takes it
/// for what it is.
fn foreign(event: &Event, json: Option<&Json>) -> Placed {
    let new = &event.event;
    let mut record = LogRecord {
        time_unix_nano: new.time.nanos(),
        observed_time_unix_nano: event.received.nanos(),
        attributes: vec![text_pair("holdfast.class", new.class.as_str())],
        ..LogRecord::default()
    };
    if new.class == Class::Error {
        record.severity_number = SeverityNumber::Error.into();
    }
    record.body = Some(match json {
        Some(json) => any_value(json),
        // Not JSON is not kept; told as it is all the same.
        None => AnyValue {
            value: Some(Any::StringValue(new.body.clone())),
        },
    });
    if let Some(id) = &new.producer_id {
        record
            .attributes
            .push(text_pair("log.record.uid", id.clone()));
    }
    identify(&mut record, event);
    Placed {
        resource: Some(Resource {
            attributes: vec![text_pair("service.name", new.source.clone())],
            ..Resource::default()
        }),
        record,
        ..Placed::default()
    }
}

fn identify(record: &mut LogRecord, event: &Event) {
    if let Some(trace) = event.event.trace {
        record.trace_id = trace.0.to_vec();
    }
    if let Some(span) = event.event.span {
        record.span_id = span.0.to_vec();
    }
}

fn text_of(object: &Map<String, Json>, key: &str) -> String {
    object
        .get(key)
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn number_of(object: &Map<String, Json>, key: &str) -> u32 {
    let number = object.get(key).and_then(Json::as_u64);
    number
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

fn attributes_of(object: &Map<String, Json>, key: &str) -> Vec<KeyValue> {
    object
        .get(key)
        .and_then(Json::as_object)
        .map(key_values)
        .unwrap_or_default()
}

fn entity_refs(body: &Map<String, Json>) -> Vec<EntityRef> {
    let refs = body.get("resource_entity_refs").and_then(Json::as_array);
    let objects = refs.into_iter().flatten().filter_map(Json::as_object);
    let texts = |object: &Map<String, Json>, key: &str| {
        let texts = object.get(key).and_then(Json::as_array);
        let texts = texts.into_iter().flatten().filter_map(Json::as_str);
        texts.map(str::to_owned).collect()
    };
    objects
        .map(|object| EntityRef {
            schema_url: text_of(object, "schema_url"),
            r#type: text_of(object, "type"),
            id_keys: texts(object, "id_keys"),
            description_keys: texts(object, "description_keys"),
        })
        .collect()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if hex.is_empty() || !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}
