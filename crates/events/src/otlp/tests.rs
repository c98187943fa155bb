//! What was sent comes back; what real senders write is read; what nobody should send is refused.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
        any_value::Value as Any,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use serde_json::json;
use wal::{Generation, JournalId, Lsn};
use world::Timestamp;

use super::{Decoded, Error, Identity, decode_json, decode_protobuf, encode};
use crate::event::{BODY_DEPTH_MAX, BODY_LEN_MAX, Class, Event, EventId, NewEvent};

const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_001);

fn kept(events: Vec<NewEvent>) -> Vec<Event> {
    let numbered = (1..).zip(events);
    numbered
        .map(|(lsn, event)| Event {
            id: EventId {
                journal: JournalId([7; 16]),
                generation: Generation(1),
                lsn: Lsn::new(lsn),
            },
            received: NOW,
            event,
        })
        .collect()
}

fn decoded(request: &ExportLogsServiceRequest) -> Decoded {
    decode_protobuf(&request.encode_to_vec(), NOW, &mut |_| true).expect("a valid request")
}

/// What each record was sent with; how records are grouped is the sender's to choose.
fn flat(request: &ExportLogsServiceRequest) -> Vec<ExportLogsServiceRequest> {
    let mut flat = Vec::new();
    for of_resource in &request.resource_logs {
        for of_scope in &of_resource.scope_logs {
            for record in &of_scope.log_records {
                flat.push(ExportLogsServiceRequest {
                    resource_logs: vec![ResourceLogs {
                        scope_logs: vec![ScopeLogs {
                            log_records: vec![record.clone()],
                            ..of_scope.clone()
                        }],
                        ..of_resource.clone()
                    }],
                });
            }
        }
    }
    flat
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,12}".prop_map(|text| Some(Any::StringValue(text))),
        any::<bool>().prop_map(|truth| Some(Any::BoolValue(truth))),
        any::<i64>().prop_map(|number| Some(Any::IntValue(number))),
        // NaN is not equal to itself; a test of its own has it.
        prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(1e300), Just(3.0)]
            .prop_filter("NaN", |double| !double.is_nan())
            .prop_map(|double| Some(Any::DoubleValue(double))),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Some(Any::BytesValue(bytes))),
        any::<i32>().prop_map(|index| Some(Any::StringValueStrindex(index))),
    ];
    leaf.prop_map(|value| AnyValue { value })
        .prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(|values| AnyValue {
                    value: Some(Any::ArrayValue(ArrayValue { values })),
                }),
                key_values(inner).prop_map(|values| AnyValue {
                    value: Some(Any::KvlistValue(KeyValueList { values })),
                }),
            ]
        })
}

fn key_values(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = Vec<KeyValue>> {
    // Few names, so that some repeat, and those that mean something here.
    let key = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => Just("$bytes".to_owned()),
        1 => Just("$pairs".to_owned()),
        1 => Just(String::new()),
        1 => Just("service.name".to_owned()),
        1 => Just("log.record.uid".to_owned()),
    ];
    let index = prop_oneof![9 => Just(0), 1 => any::<i32>()];
    let pair = (key, option::weighted(0.9, value), index);
    vec(
        pair.prop_map(|(key, value, key_strindex)| KeyValue {
            key,
            value,
            key_strindex,
        }),
        0..5,
    )
}

fn record() -> impl Strategy<Value = LogRecord> {
    let times = (
        prop_oneof![Just(0), any::<u64>()],
        prop_oneof![Just(0), any::<u64>()],
    );
    let ids = (
        prop_oneof![
            vec(any::<u8>(), 16),
            vec(any::<u8>(), 0..20),
            Just(vec![0; 16])
        ],
        prop_oneof![
            vec(any::<u8>(), 8),
            vec(any::<u8>(), 0..12),
            Just(vec![0; 8])
        ],
    );
    let said = (
        any::<i32>(),
        ".{0,8}",
        "[a-z]{0,8}",
        any::<u32>(),
        any::<u32>(),
    );
    let values = (option::of(any_value()), key_values(any_value()));
    (times, ids, said, values).prop_map(|(times, ids, said, values)| LogRecord {
        time_unix_nano: times.0,
        observed_time_unix_nano: times.1,
        severity_number: said.0,
        severity_text: said.1,
        body: values.0,
        attributes: values.1,
        dropped_attributes_count: said.3,
        flags: said.4,
        trace_id: ids.0,
        span_id: ids.1,
        event_name: said.2,
    })
}

fn of_scope() -> impl Strategy<Value = ScopeLogs> {
    let scope = (".{0,6}", ".{0,6}", key_values(any_value()), any::<u32>());
    let scope = scope.prop_map(
        |(name, version, attributes, dropped)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count: dropped,
        },
    );
    (option::of(scope), vec(record(), 0..3), ".{0,6}").prop_map(
        |(scope, log_records, schema_url)| ScopeLogs {
            scope,
            log_records,
            schema_url,
        },
    )
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let entity = (".{0,4}", ".{0,4}", vec(".{0,4}", 0..3), vec(".{0,4}", 0..3));
    let entity = entity.prop_map(|(schema_url, kind, id_keys, description_keys)| EntityRef {
        schema_url,
        r#type: kind,
        id_keys,
        description_keys,
    });
    let resource = (key_values(any_value()), any::<u32>(), vec(entity, 0..3));
    let resource = resource.prop_map(|(attributes, dropped, entity_refs)| Resource {
        attributes,
        dropped_attributes_count: dropped,
        entity_refs,
    });
    let of_resource = (option::of(resource), vec(of_scope(), 0..3), ".{0,6}");
    vec(
        of_resource.prop_map(|(resource, scope_logs, schema_url)| ResourceLogs {
            resource,
            scope_logs,
            schema_url,
        }),
        0..3,
    )
    .prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

proptest! {
    #[test]
    fn what_was_sent_comes_back(request in request()) {
        let decoded = decoded(&request);
        prop_assert_eq!(decoded.refused_count, 0);
        for event in &decoded.events {
            prop_assert_eq!(event.check(), Ok(()), "{}", &event.body);
        }
        let back = encode(&kept(decoded.events), Identity::AsSent);
        prop_assert_eq!(flat(&back), flat(&request));
    }

    /// The generated serialization is what SDKs in Rust write.
    #[test]
    fn json_says_what_protobuf_says(request in request()) {
        let json = serde_json::to_vec(&without_infinities(request.clone())).unwrap();
        let of_json = decode_json(&json, NOW, &mut |_| true).unwrap();
        prop_assert_eq!(of_json, decoded(&without_infinities(request)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        drop(decode_protobuf(&bytes, NOW, &mut |_| true));
        drop(decode_json(&bytes, NOW, &mut |_| true));
    }

    #[test]
    fn no_damaged_request_makes_it_panic(
        request in request(), at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = with;
            if let Ok(decoded) = decode_protobuf(&bytes, NOW, &mut |_| true) {
                for event in &decoded.events {
                    prop_assert_eq!(event.check(), Ok(()));
                }
                encode(&kept(decoded.events), Identity::Named);
            }
        }
    }
}

/// The generated serialization writes infinities as `null`.
fn without_infinities(mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
    fn in_value(value: &mut AnyValue) {
        match &mut value.value {
            Some(Any::DoubleValue(double)) if !double.is_finite() => *double = 0.0,
            Some(Any::ArrayValue(array)) => array.values.iter_mut().for_each(in_value),
            Some(Any::KvlistValue(list)) => list.values.iter_mut().for_each(in_pair),
            _ => {}
        }
    }
    fn in_pair(pair: &mut KeyValue) {
        pair.value.iter_mut().for_each(in_value);
    }
    for of_resource in &mut request.resource_logs {
        let of_resource_itself = of_resource.resource.iter_mut();
        of_resource_itself.for_each(|it| it.attributes.iter_mut().for_each(in_pair));
        for of_scope in &mut of_resource.scope_logs {
            let of_scope_itself = of_scope.scope.iter_mut();
            of_scope_itself.for_each(|it| it.attributes.iter_mut().for_each(in_pair));
            for record in &mut of_scope.log_records {
                record.attributes.iter_mut().for_each(in_pair);
                record.body.iter_mut().for_each(in_value);
            }
        }
    }
    request
}

/// A request of one record.
fn one(record: LogRecord) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

fn text(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Any::StringValue(text.to_owned())),
        }),
        key_strindex: 0,
    }
}

#[test]
fn the_class_is_what_is_said_then_severity_then_the_kind() {
    let check = |attributes: &[(&str, &str)], severity, name: &str, expected| {
        let record = LogRecord {
            attributes: attributes.iter().map(|(k, v)| text(k, v)).collect(),
            severity_number: severity,
            event_name: name.to_owned(),
            ..LogRecord::default()
        };
        let class = decoded(&one(record)).events[0].class;
        assert_eq!(class, expected, "{attributes:?} {severity} {name}");
    };
    check(&[], 0, "", Class::Other);
    check(&[], 16, "", Class::Other);
    check(&[], 17, "", Class::Error);
    check(&[], 24, "decision", Class::Error);
    check(&[], 9, "decision", Class::Decision);
    check(&[], 9, "error", Class::Other);
    check(&[("event.kind", "lifecycle")], 9, "", Class::Lifecycle);
    check(&[("event.kind", "metric")], 9, "action", Class::Action);
    check(&[("holdfast.class", "action")], 21, "", Class::Action);
    check(&[("event.class", "other")], 21, "", Class::Other);
    check(&[("event.class", "nonsense")], 21, "", Class::Error);
    let both = [("event.class", "action"), ("holdfast.class", "decision")];
    check(&both, 0, "", Class::Decision);
}

#[test]
fn columns_are_read_from_the_record_and_its_resource() {
    let mut request = one(LogRecord {
        time_unix_nano: 0,
        observed_time_unix_nano: 12,
        trace_id: vec![1; 16],
        span_id: vec![2; 7],
        attributes: vec![text("log.record.uid", "u-1")],
        ..LogRecord::default()
    });
    request.resource_logs[0].resource = Some(Resource {
        attributes: vec![text("service.name", "press")],
        ..Resource::default()
    });
    let event = &decoded(&request).events[0];
    assert_eq!(event.time, Timestamp::from_nanos(12));
    assert_eq!(event.source, "press");
    assert_eq!(event.producer_id.as_deref(), Some("u-1"));
    assert_eq!(event.trace.map(|id| id.0), Some([1; 16]));
    assert_eq!(event.span, None, "an id of seven bytes is none");
    let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
    let expected = json!({
        "otlp": 1, "resource": {"service.name": "press"}, "time_unknown": true,
        "observed_time_unix_nano": "12", "span_id": "02020202020202",
        "attributes": {"log.record.uid": "u-1"},
    });
    assert_eq!(body, expected);

    let bare = &decoded(&one(LogRecord::default())).events[0];
    assert_eq!(bare.time, NOW);
    assert_eq!(bare.source, "unknown_service");
}

/// From the exporters of Go, JavaScript and the Collector, and the examples of the specification.
#[test]
fn json_of_real_senders_is_read() {
    let check = |record: &str, expected: serde_json::Value| {
        let request = format!(
            r#"{{"resourceLogs":[{{"resource":{{}},"scopeLogs":[{{"scope":{{}},"logRecords":[{record}],
            "deprecated":[1,{{}}]}}]}}],"unknown":{{"a":[null]}}}}"#
        );
        let decoded = decode_json(request.as_bytes(), NOW, &mut |_| true)
            .unwrap_or_else(|error| panic!("{record}: {error}"));
        let mut body: serde_json::Value = serde_json::from_str(&decoded.events[0].body).unwrap();
        for shared in ["otlp", "resource", "scope", "time_unknown"] {
            body.as_object_mut().unwrap().remove(shared);
        }
        assert_eq!(body, expected, "{record}");
    };
    check("{}", json!({}));
    check(r#"{"timeUnixNano":"1700000000000000000"}"#, json!({}));
    check(r#"{"timeUnixNano":1700000000000000000}"#, json!({}));
    check(r#"{"timeUnixNano":1.7e18,"flags":null}"#, json!({}));
    check(r#"{"severityNumber":9}"#, json!({"severity_number": 9}));
    check(r#"{"severity_number":"9"}"#, json!({"severity_number": 9}));
    check(
        r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":""}"#,
        json!({}),
    );
    check(
        r#"{"attributes":null,"body":null,"traceId":null}"#,
        json!({}),
    );
    for (value, expected) in [
        (r#"{"stringValue":"x"}"#, json!("x")),
        (r#"{"intValue":"-5"}"#, json!(-5)),
        (r#"{"intValue":5}"#, json!(5)),
        (r#"{"intValue":5.0}"#, json!(5)),
        (r#"{"doubleValue":1}"#, json!(1.0)),
        (r#"{"doubleValue":"NaN"}"#, json!({"$double": "NaN"})),
        (
            r#"{"doubleValue":"-Infinity"}"#,
            json!({"$double": "-Infinity"}),
        ),
        (r#"{"boolValue":false}"#, json!(false)),
        (r#"{"bytesValue":"AAE="}"#, json!({"$bytes": "AAE="})),
        (r#"{"bytesValue":"-_8"}"#, json!({"$bytes": "+/8="})),
        (r#"{"arrayValue":{}}"#, json!([])),
        (r#"{"arrayValue":{"values":[{}]}}"#, json!([null])),
        (
            r#"{"kvlistValue":{"values":[{"key":"k"}]}}"#,
            json!({"k": {"$absent": true}}),
        ),
        (r#"{"futureValue":{"x":1}}"#, json!(null)),
    ] {
        check(&format!(r#"{{"body":{value}}}"#), json!({"body": expected}));
    }
}

#[test]
fn what_is_no_request_is_malformed() {
    for json in [
        "",
        "[]x",
        "{\"resourceLogs\":[",
        "{\"resourceLogs\":[null]}",
        "{\"resourceLogs\":7}",
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"xyz"}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"-x"}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":"text"}]}]}]}"#,
    ] {
        let found = decode_json(json.as_bytes(), NOW, &mut |_| true);
        assert!(
            matches!(found, Err(Error::Malformed(_))),
            "{json}: {found:?}"
        );
    }
    let arrays = r#"{"arrayValue":{"values":["#.repeat(1 << 16);
    let deep = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{arrays}"#);
    let found = decode_json(deep.as_bytes(), NOW, &mut |_| true);
    assert!(matches!(found, Err(Error::Malformed(_))), "{found:?}");
    for bytes in [
        &b"\x0a"[..],
        b"\x0a\x05abc",
        b"\x08\x01\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\x0b",
        b"\x00",
        b"not protobuf at all",
        b"\x08\x01\x0a\x03\x1a\x01\xff",
    ] {
        let found = decode_protobuf(bytes, NOW, &mut |_| true);
        assert!(
            matches!(found, Err(Error::Malformed(_))),
            "{bytes:?}: {found:?}"
        );
    }
}

#[test]
fn one_record_that_cannot_be_taken_is_named_and_the_others_are_taken() {
    let mut deep = AnyValue { value: None };
    for _ in 0..=BODY_DEPTH_MAX {
        let values = vec![deep];
        deep = AnyValue {
            value: Some(Any::ArrayValue(ArrayValue { values })),
        };
    }
    let long = "x".repeat(BODY_LEN_MAX);
    let check = |bad: LogRecord, reason: &str| {
        let mut request = one(LogRecord::default());
        let records = &mut request.resource_logs[0].scope_logs[0].log_records;
        records.extend([bad, LogRecord::default()]);
        let decoded = decoded(&request);
        assert_eq!(decoded.events.len(), 2);
        assert_eq!((decoded.refused_count, decoded.refused[0].index), (1, 1));
        assert!(decoded.refused[0].reason.contains(reason), "{decoded:?}");
    };
    let with = |attributes, body| LogRecord {
        attributes,
        body,
        ..LogRecord::default()
    };
    check(with(vec![text("a", &long)], None), "at most 1048576");
    check(with(Vec::new(), Some(deep)), "deeper than 64");
    check(
        with(vec![text("log.record.uid", &long)], None),
        "log.record.uid",
    );
}

/// A record of two bytes repeats a resource of any length, and is a struct of hundreds.
#[test]
fn decoding_stops_where_no_more_memory_is_granted() {
    let mut request = one(LogRecord::default());
    request.resource_logs[0].resource = Some(Resource {
        attributes: vec![text("k", &"x".repeat(10_000))],
        ..Resource::default()
    });
    let records = &mut request.resource_logs[0].scope_logs[0].log_records;
    records.resize(100_000, LogRecord::default());
    let mut left = 1_000_000_usize;
    let mut grant = |more: usize| {
        let fits = left >= more;
        left = left.saturating_sub(more);
        fits
    };
    let bytes = request.encode_to_vec();
    assert!(bytes.len() < 250_000);
    let found = decode_protobuf(&bytes, NOW, &mut grant);
    assert_eq!(found, Err(Error::NotGranted));

    let empty = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"attributes":[{}{{}}]}}]}}]}}]}}"#,
        "{},".repeat(100_000)
    );
    let found = decode_json(empty.as_bytes(), NOW, &mut |more| more < 1_000_000);
    assert_eq!(found, Err(Error::NotGranted));
}

#[test]
fn an_event_that_never_was_otlp_keeps_class_and_id_on_its_way() {
    let new = NewEvent {
        producer_id: None,
        time: Timestamp::from_nanos(5),
        source: "press".to_owned(),
        class: Class::Decision,
        trace: None,
        span: None,
        body: r#"{"a":[1,2.5,null,{"b":"c"}]}"#.to_owned(),
    };
    let sent = kept(vec![new.clone()]);
    let request = encode(&sent, Identity::Named);
    let received = &decoded(&request).events[0];
    let body: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body["body"], json!({"a": [1, 2.5, null, {"b": "c"}]}));
    assert_eq!(received.producer_id, Some(sent[0].id.to_string()));
    assert_eq!((received.class, received.time), (new.class, new.time));
    assert_eq!(received.source, new.source);
}
