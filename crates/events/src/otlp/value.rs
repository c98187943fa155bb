//! `AnyValue` as JSON, and back without loss.
//!
//! What JSON has, it says in its own words: text, truth, whole numbers without a fraction, doubles
//! with one, arrays, objects. What JSON lacks is an object with one key that begins with `$`:
//!
//! | JSON | OTLP |
//! |---|---|
//! | `null` | a value with none of its fields set |
//! | `{"$absent": true}` | a key without a value |
//! | `{"$bytes": "base64"}` | bytes |
//! | `{"$double": "NaN"}` | NaN, Infinity, -Infinity |
//! | `{"$index": 7}` | a string by its index in a dictionary |
//! | `{"$pairs": [["k", 1], ["k", 2]]}` | keys that repeat, begin with `$`, or are many |

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any,
};
use serde_json::{Map, Number, Value as Json};

use super::{
    Fault, Malformed,
    wire::{Fields, Value},
};
use crate::event::BODY_DEPTH_MAX;

/// Keys that are compared with one another. SDKs keep at most 128 attributes unless told otherwise.
const KEYS_COMPARED_MAX: usize = 128;

const WRITES: &str = "writing to a string cannot fail";

/// A key with its value still in wire form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    pub(super) value: Option<&'a [u8]>,
    key_index: i32,
}

impl<'a> Pair<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut pair = Pair {
            key: "",
            value: None,
            key_index: 0,
        };
        for field in Fields::of(message) {
            match field? {
                (1, value) => pair.key = value.text()?,
                (2, value) => pair.value = Some(value.bytes()?),
                (3, value) => pair.key_index = value.int32()?,
                _ => {}
            }
        }
        Ok(pair)
    }

    /// The value when it is a string.
    pub(super) fn text(&self) -> Option<&'a str> {
        let mut text = None;
        for field in Fields::of(self.value?) {
            text = match field.ok()? {
                (1, value) => Some(value.text().ok()?),
                (2..=8, _) => None,
                _ => text,
            };
        }
        text
    }
}

/// Opens `more` objects or arrays inside of `open` others.
fn opened(open: usize, more: usize) -> Result<usize, Fault> {
    let open = open + more;
    if open > BODY_DEPTH_MAX {
        let why = format!("values nested deeper than {BODY_DEPTH_MAX} levels");
        return Err(Fault::Refused(why));
    }
    Ok(open)
}

/// Writes attributes, or a list of keys and values, as an object or as pairs. `open` counts the
/// objects and arrays around it.
pub(super) fn write_pairs<'a>(
    out: &mut String,
    messages: impl Iterator<Item = Result<&'a [u8], Malformed>> + Clone,
    open: usize,
) -> Result<(), Fault> {
    let mut few = [Pair {
        key: "",
        value: None,
        key_index: 0,
    }; KEYS_COMPARED_MAX];
    let mut count = 0;
    let mut is_object = true;
    for message in messages.clone() {
        let pair = Pair::read(message?)?;
        is_object &= count < KEYS_COMPARED_MAX
            && pair.key_index == 0
            && !pair.key.starts_with('$')
            && few[..count].iter().all(|other| other.key != pair.key);
        if !is_object {
            break;
        }
        few[count] = pair;
        count += 1;
    }
    if is_object {
        return write_object(out, &few[..count], opened(open, 1)?);
    }
    let open = opened(open, 3)?;
    out.push_str("{\"$pairs\":[");
    for (at, message) in messages.enumerate() {
        let pair = Pair::read(message?)?;
        out.push_str(if at == 0 { "[" } else { ",[" });
        write_text(out, pair.key);
        out.push(',');
        write_optional(out, pair.value, open)?;
        if pair.key_index != 0 {
            write!(out, ",{}", pair.key_index).expect(WRITES);
        }
        out.push(']');
    }
    out.push_str("]}");
    Ok(())
}

fn write_object(out: &mut String, pairs: &[Pair<'_>], open: usize) -> Result<(), Fault> {
    out.push('{');
    for (at, pair) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(out, pair.key);
        out.push(':');
        write_optional(out, pair.value, open)?;
    }
    out.push('}');
    Ok(())
}

fn write_optional(out: &mut String, value: Option<&[u8]>, open: usize) -> Result<(), Fault> {
    match value {
        Some(value) => write_value(out, value, open),
        None => {
            opened(open, 1)?;
            out.push_str("{\"$absent\":true}");
            Ok(())
        }
    }
}

/// Writes one `AnyValue` inside of `open` objects and arrays.
pub(super) fn write_value(out: &mut String, message: &[u8], open: usize) -> Result<(), Fault> {
    // One of the fields counts, the last.
    let mut last = None;
    for field in Fields::of(message) {
        let field = field?;
        if (1..=8).contains(&field.0) {
            last = Some(field);
        }
    }
    match last {
        None => out.push_str("null"),
        Some((1, value)) => write_text(out, value.text()?),
        Some((2, value)) => out.push_str(if value.varint()? == 0 {
            "false"
        } else {
            "true"
        }),
        Some((3, value)) => write!(out, "{}", value.varint()?.cast_signed()).expect(WRITES),
        Some((4, value)) => write_double(out, f64::from_bits(value.fixed64()?), open)?,
        Some((5, value)) => write_array(out, value.bytes()?, opened(open, 1)?)?,
        Some((6, value)) => write_pairs(out, repeated(value.bytes()?, 1), open)?,
        Some((7, value)) => {
            opened(open, 1)?;
            out.push_str("{\"$bytes\":\"");
            STANDARD.encode_string(value.bytes()?, out);
            out.push_str("\"}");
        }
        Some((_, value)) => {
            opened(open, 1)?;
            write!(out, "{{\"$index\":{}}}", value.int32()?).expect(WRITES);
        }
    }
    Ok(())
}

fn write_array(out: &mut String, message: &[u8], open: usize) -> Result<(), Fault> {
    out.push('[');
    for (at, value) in repeated(message, 1).enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_value(out, value?, open)?;
    }
    out.push(']');
    Ok(())
}

/// The messages of a repeated field.
pub(super) fn repeated(
    message: &[u8],
    wanted: u64,
) -> impl Iterator<Item = Result<&[u8], Malformed>> + Clone {
    Fields::of(message).filter_map(move |field| match field {
        Ok((number, value)) if number == wanted => Some(Value::bytes(value)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

fn write_double(out: &mut String, double: f64, open: usize) -> Result<(), Fault> {
    if let Some(number) = Number::from_f64(double) {
        write!(out, "{number}").expect(WRITES);
        return Ok(());
    }
    opened(open, 1)?;
    out.push_str(if double.is_nan() {
        "{\"$double\":\"NaN\"}"
    } else if double > 0.0 {
        "{\"$double\":\"Infinity\"}"
    } else {
        "{\"$double\":\"-Infinity\"}"
    });
    Ok(())
}

/// Writes a JSON string.
pub(super) fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Every byte escaped here is ASCII, so `at` is where a character begins.
        out.push_str(&text[written..at]);
        written = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => write!(out, "\\u{byte:04x}").expect(WRITES),
        }
    }
    out.push_str(&text[written..]);
    out.push('"');
}

/// The value that was written as `json`, or one that says the same as JSON that never was OTLP.
pub(super) fn any_value(json: &Json) -> AnyValue {
    let value = match json {
        Json::Null => None,
        Json::Bool(truth) => Some(Any::BoolValue(*truth)),
        Json::Number(number) => Some(match number.as_i64() {
            Some(whole) => Any::IntValue(whole),
            None => Any::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(text) => Some(Any::StringValue(text.clone())),
        Json::Array(values) => Some(Any::ArrayValue(ArrayValue {
            values: values.iter().map(any_value).collect(),
        })),
        Json::Object(object) => Some(escaped(object).unwrap_or_else(|| {
            Any::KvlistValue(KeyValueList {
                values: key_values(object),
            })
        })),
    };
    AnyValue { value }
}

/// A value that JSON lacks.
fn escaped(object: &Map<String, Json>) -> Option<Any> {
    let (key, value) = single(object)?;
    match key {
        "$bytes" => STANDARD.decode(value.as_str()?).ok().map(Any::BytesValue),
        "$double" => Some(Any::DoubleValue(match value.as_str()? {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return None,
        })),
        "$index" => {
            let index = i32::try_from(value.as_i64()?).ok()?;
            Some(Any::StringValueStrindex(index))
        }
        _ => None,
    }
}

fn single(object: &Map<String, Json>) -> Option<(&str, &Json)> {
    let (key, value) = object.iter().next()?;
    (object.len() == 1).then_some((key.as_str(), value))
}

/// Attributes, from an object or from pairs.
pub(super) fn key_values(object: &Map<String, Json>) -> Vec<KeyValue> {
    if let Some(("$pairs", Json::Array(pairs))) = single(object)
        && let Some(pairs) = pairs.iter().map(pair).collect()
    {
        return pairs;
    }
    let values = object.iter();
    values.map(|(key, json)| key_value(key, json, 0)).collect()
}

fn pair(json: &Json) -> Option<KeyValue> {
    let (key, value, index) = match json.as_array()?.as_slice() {
        [key, value] => (key, value, 0),
        [key, value, index] => (key, value, i32::try_from(index.as_i64()?).ok()?),
        _ => return None,
    };
    Some(key_value(key.as_str()?, value, index))
}

fn key_value(key: &str, json: &Json, key_strindex: i32) -> KeyValue {
    let is_absent = json
        .as_object()
        .and_then(single)
        .is_some_and(|single| single == ("$absent", &Json::Bool(true)));
    KeyValue {
        key: key.to_owned(),
        value: (!is_absent).then(|| any_value(json)),
        key_strindex,
    }
}
