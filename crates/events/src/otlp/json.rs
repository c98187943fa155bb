//! A request in OTLP's JSON as events.
//!
//! Read more leniently than written: numbers as text or numbers, doubles also as `NaN` and
//! `Infinity`, `null` for whatever is not set, names in either spelling, base64 in either alphabet,
//! unknown fields passed over. The generated types read none of that but the first, which is why
//! they do not read here.

use std::fmt;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use opentelemetry_proto::tonic::{
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
        any_value::Value as Any,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use world::Timestamp;

use super::{Decoded, Error, Grant, Malformed, decode_protobuf};

/// Bytes of memory that reading `request` takes at first: as protobuf, and where its parts lie. What the
/// messages of a part take is asked for by [`decode_json`], part by part.
pub fn json_cost(request: &[u8]) -> usize {
    let parts = request.iter().filter(|byte| **byte == b',').count() + 1;
    // Twice: a list doubles where it grows.
    2 * request.len() + 2 * parts * size_of::<&RawValue>()
}

/// Decodes an `ExportLogsServiceRequest`. `now` dates records that carry no time. The memory of
/// [`json_cost`] is the caller's to bound before.
///
/// One resource, one scope and one record are in memory as messages at a time: a message that takes
/// two bytes as text takes a few hundred as a struct.
pub fn decode_json(request: &[u8], now: Timestamp, grant: Grant<'_>) -> Result<Decoded, Error> {
    let mut reader = Reader {
        grant: &mut *grant,
        granted: 0,
    };
    let read: Request<'_> = serde_json::from_slice(request).map_err(malformed)?;
    let mut bytes = Vec::new();
    for of_resource in read.resource_logs.into_iter().flatten() {
        put(&mut bytes, 1, &reader.of_resource(of_resource)?);
    }
    decode_protobuf(&bytes, now, grant)
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn malformed(error: serde_json::Error) -> Error {
    Malformed::new(error.to_string()).into()
}

/// Appends a field that is a message. Fields of a message may come in any order, so what is put behind
/// the encoding of a message is part of it.
fn put(out: &mut Vec<u8>, number: u8, message: &[u8]) {
    out.push(number << 3 | 2);
    prost::encode_length_delimiter(message.len(), out).expect("a list has room");
    out.extend_from_slice(message);
}

struct Reader<'a> {
    grant: Grant<'a>,
    /// For the messages of the part that took most.
    granted: usize,
}

impl Reader<'_> {
    /// Reads a part whose messages are gone before the next part is read.
    fn part<'de, T: Deserialize<'de>>(&mut self, text: &'de RawValue) -> Result<T, Error> {
        // Every message has its own `{`. Four times: a list doubles where it grows, and is read as one
        // type and made into another.
        let messages = text.get().bytes().filter(|byte| *byte == b'{').count();
        let cost = 4 * messages * size_of::<KeyValue>();
        if cost > self.granted {
            if !(self.grant)(cost - self.granted) {
                return Err(Error::NotGranted);
            }
            self.granted = cost;
        }
        serde_json::from_str(text.get()).map_err(malformed)
    }

    fn of_resource(&mut self, text: &RawValue) -> Result<Vec<u8>, Error> {
        // Its parts are told apart and not yet read.
        let read: OfResource<'_> = serde_json::from_str(text.get()).map_err(malformed)?;
        let resource: Maybe<ResourceRead> =
            read.resource.map(|text| self.part(text)).transpose()?;
        let mut bytes = ResourceLogs {
            resource: resource.map(Into::into),
            scope_logs: Vec::new(),
            schema_url: read.schema_url.unwrap_or_default(),
        }
        .encode_to_vec();
        for of_scope in read.scope_logs.into_iter().flatten() {
            put(&mut bytes, 2, &self.of_scope(of_scope)?);
        }
        Ok(bytes)
    }

    fn of_scope(&mut self, text: &RawValue) -> Result<Vec<u8>, Error> {
        let read: OfScope<'_> = serde_json::from_str(text.get()).map_err(malformed)?;
        let scope: Maybe<ScopeRead> = read.scope.map(|text| self.part(text)).transpose()?;
        let mut bytes = ScopeLogs {
            scope: scope.map(Into::into),
            log_records: Vec::new(),
            schema_url: read.schema_url.unwrap_or_default(),
        }
        .encode_to_vec();
        for record in read.log_records.into_iter().flatten() {
            let record: RecordRead = self.part(record)?;
            put(&mut bytes, 2, &LogRecord::from(record).encode_to_vec());
        }
        Ok(bytes)
    }
}

/// Whatever may be `null` for what is not set.
type Maybe<T> = Option<T>;

fn list<T: Into<M>, M>(values: Maybe<Vec<T>>) -> Vec<M> {
    let values = values.into_iter().flatten();
    values.map(Into::into).collect()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, alias = "resource_logs")]
    resource_logs: Maybe<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OfResource<'a> {
    #[serde(borrow)]
    resource: Maybe<&'a RawValue>,
    #[serde(borrow, alias = "scope_logs")]
    scope_logs: Maybe<Vec<&'a RawValue>>,
    #[serde(alias = "schema_url")]
    schema_url: Maybe<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OfScope<'a> {
    #[serde(borrow)]
    scope: Maybe<&'a RawValue>,
    #[serde(borrow, alias = "log_records")]
    log_records: Maybe<Vec<&'a RawValue>>,
    #[serde(alias = "schema_url")]
    schema_url: Maybe<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRead {
    attributes: Maybe<Vec<Pair>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Number,
    #[serde(alias = "entity_refs")]
    entity_refs: Maybe<Vec<EntityRead>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EntityRead {
    #[serde(alias = "schema_url")]
    schema_url: Maybe<String>,
    r#type: Maybe<String>,
    #[serde(alias = "id_keys")]
    id_keys: Maybe<Vec<String>>,
    #[serde(alias = "description_keys")]
    description_keys: Maybe<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScopeRead {
    name: Maybe<String>,
    version: Maybe<String>,
    attributes: Maybe<Vec<Pair>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Number,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RecordRead {
    #[serde(alias = "time_unix_nano")]
    time_unix_nano: Number,
    #[serde(alias = "observed_time_unix_nano")]
    observed_time_unix_nano: Number,
    #[serde(alias = "severity_number")]
    severity_number: Number,
    #[serde(alias = "severity_text")]
    severity_text: Maybe<String>,
    body: Maybe<Content>,
    attributes: Maybe<Vec<Pair>>,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Number,
    flags: Number,
    #[serde(alias = "trace_id")]
    trace_id: Hex,
    #[serde(alias = "span_id")]
    span_id: Hex,
    #[serde(alias = "event_name")]
    event_name: Maybe<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Pair {
    key: Maybe<String>,
    value: Maybe<Content>,
    #[serde(alias = "key_strindex")]
    key_strindex: Number,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Array {
    values: Maybe<Vec<Content>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pairs {
    values: Maybe<Vec<Pair>>,
}

impl From<ResourceRead> for Resource {
    fn from(read: ResourceRead) -> Self {
        Self {
            attributes: list(read.attributes),
            dropped_attributes_count: read.dropped_attributes_count.word(),
            entity_refs: list(read.entity_refs),
        }
    }
}

impl From<EntityRead> for EntityRef {
    fn from(read: EntityRead) -> Self {
        Self {
            schema_url: read.schema_url.unwrap_or_default(),
            r#type: read.r#type.unwrap_or_default(),
            id_keys: read.id_keys.unwrap_or_default(),
            description_keys: read.description_keys.unwrap_or_default(),
        }
    }
}

impl From<ScopeRead> for InstrumentationScope {
    fn from(read: ScopeRead) -> Self {
        Self {
            name: read.name.unwrap_or_default(),
            version: read.version.unwrap_or_default(),
            attributes: list(read.attributes),
            dropped_attributes_count: read.dropped_attributes_count.word(),
        }
    }
}

impl From<RecordRead> for LogRecord {
    fn from(read: RecordRead) -> Self {
        Self {
            time_unix_nano: read.time_unix_nano.0.cast_unsigned(),
            observed_time_unix_nano: read.observed_time_unix_nano.0.cast_unsigned(),
            severity_number: read.severity_number.word().cast_signed(),
            severity_text: read.severity_text.unwrap_or_default(),
            body: read.body.map(Into::into),
            attributes: list(read.attributes),
            dropped_attributes_count: read.dropped_attributes_count.word(),
            flags: read.flags.word(),
            trace_id: read.trace_id.0,
            span_id: read.span_id.0,
            event_name: read.event_name.unwrap_or_default(),
        }
    }
}

impl From<Pair> for KeyValue {
    fn from(read: Pair) -> Self {
        Self {
            key: read.key.unwrap_or_default(),
            value: read.value.map(Into::into),
            key_strindex: read.key_strindex.word().cast_signed(),
        }
    }
}

impl From<Content> for AnyValue {
    fn from(read: Content) -> Self {
        Self { value: read.0 }
    }
}

/// A whole number of up to 64 bits, signed or not, as a number or as text; its bits.
#[derive(Clone, Copy, Default)]
struct Number(i64);

impl Number {
    fn word(self) -> u32 {
        let low = self.0.cast_unsigned() & u64::from(u32::MAX);
        u32::try_from(low).expect("masked")
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or one as text")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value.cast_signed()))
    }

    /// JavaScript has no other numbers, and some of its producers do not write text.
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
        /// The first double that no `u64` reaches.
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        if value.fract() != 0.0 || !(0.0..BEYOND).contains(&value) {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        format!("{value:.0}")
            .parse::<u64>()
            .map(|value| Number(value.cast_signed()))
            .map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        text.parse::<i64>()
            .or_else(|_| text.parse::<u64>().map(u64::cast_signed))
            .map(Number)
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(0))
    }
}

/// Bytes as hex digits of either case.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Maybe::<String>::deserialize(deserializer)?.unwrap_or_default();
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            let unexpected = de::Unexpected::Str(&text);
            return Err(de::Error::invalid_value(unexpected, &"hex digits"));
        }
        let pairs = (0..text.len()).step_by(2);
        let bytes = pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16));
        let bytes: Result<_, _> = bytes.collect();
        Ok(Self(bytes.map_err(de::Error::custom)?))
    }
}

/// An `AnyValue`.
struct Content(Option<Any>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value such as {\"stringValue\":\"text\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut value = None;
        while let Some(key) = map.next_key::<String>()? {
            let read = match key.as_str() {
                "stringValue" | "string_value" => {
                    map.next_value::<Maybe<_>>()?.map(Any::StringValue)
                }
                "boolValue" | "bool_value" => map.next_value::<Maybe<_>>()?.map(Any::BoolValue),
                "intValue" | "int_value" => {
                    let number = map.next_value::<Maybe<Number>>()?;
                    number.map(|number| Any::IntValue(number.0))
                }
                "doubleValue" | "double_value" => {
                    let double = map.next_value::<Maybe<Double>>()?;
                    double.map(|double| Any::DoubleValue(double.0))
                }
                "arrayValue" | "array_value" => map.next_value::<Maybe<Array>>()?.map(|array| {
                    let values = list(array.values);
                    Any::ArrayValue(ArrayValue { values })
                }),
                "kvlistValue" | "kvlist_value" => map.next_value::<Maybe<Pairs>>()?.map(|pairs| {
                    let values = list(pairs.values);
                    Any::KvlistValue(KeyValueList { values })
                }),
                "bytesValue" | "bytes_value" => {
                    let text = map.next_value::<Maybe<String>>()?;
                    text.map(|text| bytes(&text)).transpose()?
                }
                "stringValueStrindex" | "string_value_strindex" => {
                    let index = map.next_value::<Maybe<Number>>()?;
                    index.map(|index| Any::StringValueStrindex(index.word().cast_signed()))
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            value = read.or(value);
        }
        Ok(Content(value))
    }
}

fn bytes<E: de::Error>(text: &str) -> Result<Any, E> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_for_urls = text.contains(['-', '_']);
    let alphabet = if is_for_urls {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    let decoded = GeneralPurpose::new(alphabet, LENIENT).decode(text);
    decoded.map(Any::BytesValue).map_err(E::custom)
}

/// A double as a number or as text, with the three that are no JSON numbers.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DoubleVisitor;
        impl Visitor<'_> for DoubleVisitor {
            type Value = Double;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or one as text")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Double, E> {
                Ok(Double(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Double, E> {
                text.parse().map(Double).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(DoubleVisitor)
    }
}
