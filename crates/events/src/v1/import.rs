//! Frames for whoever looks at them, and committed frames as events.
//!
//! Importing changes nothing in the version 1 directory and can be repeated: each event carries an
//! id made of all frames up to it, which the log of events keeps once. Sequences alone would not do,
//! because they begin at 1 again after a reset.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use world::{Timestamp, disk::Open};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Committed, Error, Kind, Options, Seq, WAL,
    frame::sequence_of,
    log, safe,
    upgrade::{evidence, missing},
    walk::{Step, Walk},
};
use crate::{
    event::{Class, NewEvent, SpanId, TraceId},
    lines::parse_time,
};

/// The source of events whose frames name none. Not the caller's to choose: an id counts within its
/// source, so another one at the next import would keep every event twice.
pub const SOURCE: &str = "telemetry-v1";

/// Members that name the source, the first that is there.
const SOURCE_KEYS: [&str; 4] = ["service.name", "service", "node_id", "source"];
const KIND_KEYS: [&str; 4] = ["kind", "class", "event", "type"];
const TIME_KEYS: [&str; 3] = ["time", "timestamp", "ts"];

/// Events and bytes handed to the log at once: a few syncs for a megabyte, and little memory.
const BATCH_COUNT_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Refused frames that are named; all are counted.
pub const REFUSED_LISTED_MAX: usize = 100;

/// A whole frame, committed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where its length lies.
    pub offset: u64,
    /// `None`: no JSON object with a sequence.
    pub seq: Option<Seq>,
    pub payload: Vec<u8>,
}

/// All whole frames in the order of the file; ends where a frame is torn or too long.
#[derive(Debug)]
pub struct Frames {
    walk: Option<Walk>,
    path: PathBuf,
}

/// Looks at every frame, whatever the rules say of them. No lock, no change.
pub fn frames(dir: &Path, options: &Options) -> Result<Frames, Error> {
    let path = dir.join(WAL);
    let attempt = || {
        let file = options.disk.open(&path, Open::Read)?;
        Walk::new(file, options.frame_len_max)
    };
    let walk = attempt().map_err(|source| Error::io("read", &path, source))?;
    Ok(Frames {
        walk: Some(walk),
        path,
    })
}

impl Iterator for Frames {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match self.walk.as_mut()?.step() {
            Ok(Step::Frame { offset, payload }) => Some(Ok(Frame {
                offset,
                seq: sequence_of(payload).ok(),
                payload: payload.to_vec(),
            })),
            Ok(Step::End { .. } | Step::Torn { .. } | Step::TooLong { .. }) => None,
            Err(source) => Some(Err(Error::io("read", &self.path, source))),
        };
        if !matches!(result, Some(Ok(_))) {
            self.walk = None;
        }
        result
    }
}

/// Committed frames as events, in order of their sequences.
#[derive(Debug)]
pub struct Events {
    frames: Option<Committed>,
    now: Timestamp,
    chain: u128,
}

/// The committed frames of `dir` as events; `now` is the time of those that carry none. Refuses what
/// opening refuses. Beside a writer: what was committed when this was called.
pub fn events(dir: &Path, options: &Options, now: Timestamp) -> Result<Events, Error> {
    let disk = &*options.disk;
    let frames = match safe::read(disk, dir)? {
        Some(seq) => {
            let committed = log::check(dir, options, seq)?;
            let path = dir.join(WAL);
            match committed.last {
                Seq(0) => None,
                _ => {
                    let file = disk
                        .open(&path, Open::Read)
                        .map_err(|source| Error::io("read", &path, source))?;
                    let walk = Walk::within(file, committed.end, options.frame_len_max);
                    Some(Committed::new(walk, Seq(0), path))
                }
            }
        }
        None if evidence(disk, dir, &options.other_state)?.is_empty() => None,
        None => return Err(missing(dir, "")),
    };
    Ok(Events {
        frames,
        now,
        chain: 0,
    })
}

impl Iterator for Events {
    type Item = Result<(Seq, NewEvent), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (seq, payload) = match self.frames.as_mut()?.next()? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error)),
        };
        let mut chained = self.chain.to_be_bytes().to_vec();
        chained.extend_from_slice(&payload);
        self.chain = xxh3_128(&chained);
        let mut event = event_of(&payload, self.now);
        event.producer_id = Some(format!("v1:{:032x}:{seq}", self.chain));
        Some(Ok((seq, event)))
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub frames: u64,
    pub appended: u64,
    /// Known from an import before.
    pub duplicates: u64,
    pub refused: u64,
    /// The first [`REFUSED_LISTED_MAX`] of them, with the reason. They stay in the version 1 log only.
    pub refusals: Vec<(Seq, String)>,
}

/// Appends the committed frames of `dir` to `log`. After an error, or a crash, run it again.
pub fn import(
    dir: &Path,
    options: &Options,
    log: &crate::Log,
    now: Timestamp,
) -> Result<Imported, Error> {
    import_with(dir, options, now, |batch| {
        let first = batch.first().and_then(|event| event.producer_id.clone());
        let acks = log
            .append(batch)
            .map_err(|error| not_appended(&first.unwrap_or_default(), error))?;
        Ok(acks.iter().map(|ack| ack.is_duplicate).collect())
    })
}

/// The same with another way to keep events: it takes them in order, batch by batch, and tells of each
/// whether it was known before. What it returned for is durable. Nothing is handed to it before the
/// whole committed range was judged.
pub fn import_with<E: From<Error>>(
    dir: &Path,
    options: &Options,
    now: Timestamp,
    mut keep: impl FnMut(Vec<NewEvent>) -> Result<Vec<bool>, E>,
) -> Result<Imported, E> {
    let mut imported = Imported::default();
    let mut flush = |batch: &mut Vec<NewEvent>, imported: &mut Imported| -> Result<(), E> {
        if batch.is_empty() {
            return Ok(());
        }
        for is_duplicate in keep(std::mem::take(batch))? {
            imported.appended += u64::from(!is_duplicate);
            imported.duplicates += u64::from(is_duplicate);
        }
        Ok(())
    };
    let mut batch = Vec::new();
    let mut bytes = 0;
    for read in events(dir, options, now)? {
        let (seq, event) = read?;
        imported.frames += 1;
        if let Err(unfit) = event.check() {
            imported.refused += 1;
            if imported.refusals.len() < REFUSED_LISTED_MAX {
                imported.refusals.push((seq, unfit.to_string()));
            }
            continue;
        }
        let weight = event.weight();
        if batch.len() == BATCH_COUNT_MAX || bytes + weight > BATCH_BYTES_MAX {
            flush(&mut batch, &mut imported)?;
            bytes = 0;
        }
        batch.push(event);
        bytes += weight;
    }
    flush(&mut batch, &mut imported)?;
    Ok(imported)
}

fn not_appended(first: &str, error: crate::Error) -> Error {
    let kind = match error.kind() {
        crate::Kind::Full => Kind::Full,
        crate::Kind::Poisoned => Kind::Poisoned,
        _ => Kind::Io,
    };
    let what = format!("append the frames from {first} on to the log of events");
    Error::new(kind, what).with_source(std::io::Error::other(error))
}

/// The event of a payload, without its id. Whatever is not recognised stays in the body, which is the
/// payload itself wherever an event can have it.
pub(crate) fn event_of(payload: &[u8], now: Timestamp) -> NewEvent {
    let members: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    let text = |key: &str| members.get(key).and_then(Value::as_str);
    let fits = |source: &&str| !source.is_empty() && source.len() <= crate::event::SOURCE_LEN_MAX;
    let mut event = NewEvent {
        producer_id: None,
        time: TIME_KEYS
            .into_iter()
            .find_map(|key| parse_time(text(key)?))
            .unwrap_or(now),
        source: SOURCE_KEYS
            .into_iter()
            .filter_map(text)
            .find(fits)
            .unwrap_or(SOURCE)
            .to_owned(),
        class: KIND_KEYS
            .into_iter()
            .find_map(|key| class_of(text(key)?))
            .unwrap_or(Class::Other),
        trace: text("trace_id").and_then(TraceId::parse),
        span: text("span_id").and_then(SpanId::parse),
        body: String::new(),
    };
    event.body = String::from_utf8_lossy(payload).into_owned();
    let is_whole = event.body.as_bytes() == payload;
    if !is_whole || event.check().is_err() {
        event.body = wrapped(payload);
    }
    event
}

/// `decision`, or the last part of `ai.policy.decision`.
fn class_of(kind: &str) -> Option<Class> {
    Class::parse(kind.rsplit('.').next()?)
}

/// A payload that the original took and that is no JSON for most readers: not UTF-8, half a surrogate
/// pair, nested too deep. As text when it is text, else as hex digits, so that no byte is lost.
fn wrapped(payload: &[u8]) -> String {
    if let Ok(text) = str::from_utf8(payload) {
        return Value::from(Map::from_iter([("telemetry_v1".to_owned(), text.into())])).to_string();
    }
    let mut hex = String::with_capacity(2 * payload.len());
    for byte in payload {
        write!(hex, "{byte:02x}").expect("a string takes what is written to it");
    }
    format!("{{\"telemetry_v1_hex\":\"{hex}\"}}")
}
