//! A frame: length, then one JSON object that carries its sequence.

use std::{fmt, ops::Range};

use serde::de::IgnoredAny;

/// Bytes before each payload: its length, big-endian.
pub(crate) const HEADER_LEN: usize = 4;

/// Position of a frame, from 1. 0 stands for "none": an empty log's safe sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key under which sequences are written. Reading takes any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceName {
    /// `seq`, in the style of the other fields known of these payloads (`trace_id`, `audit_id`).
    #[default]
    Lower,
    /// `Seq`, the name that an untagged field has.
    Capital,
}

impl SequenceName {
    pub const fn key(self) -> &'static str {
        match self {
            Self::Lower => "seq",
            Self::Capital => "Seq",
        }
    }
}

/// The payload is no JSON object, or its sequence is no whole number of at most 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The sequence that a payload carries: the last key that is `seq` in any case, as the original's
/// decoder takes it; 0 when there is none or it is `null`. Text that is not UTF-8 is taken, as there.
/// Neither recursion nor memory grows with the payload.
pub fn sequence_of(payload: &[u8]) -> Result<Seq, Unreadable> {
    serde_json::from_slice::<IgnoredAny>(payload).map_err(|_| Unreadable)?;
    if payload.get(skip_space(payload, 0)) != Some(&b'{') {
        return Err(Unreadable);
    }
    let mut seq = Seq(0);
    for value in (SequenceValues { payload, at: None }) {
        let text = str::from_utf8(&payload[value]).map_err(|_| Unreadable)?;
        if text != "null" {
            seq = Seq(text.parse().map_err(|_| Unreadable)?);
        }
    }
    Ok(seq)
}

/// What is wrong with a body that was handed in to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotAnObject,
    HasSequence,
    TooLong,
}

/// Appends the frame of `body` to `out`: the sequence first, then the body's own members unchanged.
pub(crate) fn put(
    out: &mut Vec<u8>,
    body: &str,
    seq: Seq,
    name: SequenceName,
    len_max: u32,
) -> Result<(), Refused> {
    // Before anything is copied. The body's own braces stay, so this is never too strict by more
    // than the sequence.
    if body.len() > len_max as usize {
        return Err(Refused::TooLong);
    }
    sequence_of(body.as_bytes()).map_err(|_| Refused::NotAnObject)?;
    if sequence_value(body.as_bytes()).is_some() {
        return Err(Refused::HasSequence);
    }
    let members = body.trim_start();
    let members = members.strip_prefix('{').unwrap_or(members).trim_start();
    let comma = if members.starts_with('}') { "" } else { "," };
    let head = format!("{{\"{}\":{seq}{comma}", name.key());
    put_payload(out, &[head.as_bytes(), members.as_bytes()], len_max)
}

/// Appends a frame of these parts.
pub(crate) fn put_payload(out: &mut Vec<u8>, parts: &[&[u8]], len_max: u32) -> Result<(), Refused> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len)
        .ok()
        .filter(|len| *len <= len_max)
        .ok_or(Refused::TooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Where in a verified payload the value of the last sequence key lies.
pub(crate) fn sequence_value(payload: &[u8]) -> Option<Range<usize>> {
    SequenceValues { payload, at: None }.last()
}

/// Where the values of sequence keys lie. The payload is known to be one JSON object; only its own
/// members are looked at.
struct SequenceValues<'a> {
    payload: &'a [u8],
    /// Where the next key is looked for; `None` before the first.
    at: Option<usize>,
}

impl Iterator for SequenceValues<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let payload = self.payload;
        loop {
            let at = self.at.unwrap_or_else(|| skip_space(payload, 0) + 1);
            let key_at = skip_space(payload, at);
            if payload.get(key_at) != Some(&b'"') {
                return None;
            }
            let key_end = string_end(payload, key_at);
            let colon = skip_space(payload, key_end);
            let start = skip_space(payload, colon + 1);
            let end = value_end(payload, start);
            // Behind the comma, or behind the end, where no key is.
            self.at = Some(skip_space(payload, end) + 1);
            if is_sequence_key(payload.get(key_at..key_end)?) {
                return Some(start..end);
            }
        }
    }
}

fn is_sequence_key(quoted: &[u8]) -> bool {
    if !quoted.contains(&b'\\') {
        return quoted.eq_ignore_ascii_case(b"\"seq\"");
    }
    serde_json::from_slice::<String>(quoted).is_ok_and(|key| key.eq_ignore_ascii_case("seq"))
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the string that begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the value that begins at `at`.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len().min(at)
}
