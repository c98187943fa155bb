//! Doors for `fuzz/`: bytes in, nothing out. What they find is a panic, or two parts that disagree
//! about the same bytes. Not part of the crate's interface.

use std::{path::Path, sync::Arc};

use world::{Disk, Timestamp, disk::Open, sim};

use crate::{Class, event, lines, otlp, v1};

#[cfg(test)]
mod tests;

const DIR: &str = "/telemetry";
const NOW: Timestamp = Timestamp::from_nanos(1);
/// Bytes that a decoder is granted, so that one that takes more is seen.
const GRANT: usize = 16 << 20;

/// One of the doors, chosen by the first byte.
pub fn any(input: &[u8]) {
    let Some((&door, input)) = input.split_first() else {
        return;
    };
    match door % 5 {
        0 => telemetry_v1(input),
        1 => record(input),
        2 => line(input),
        3 => fit(otlp::decode_json(input, NOW, &mut grant()).ok()),
        _ => fit(otlp::decode_protobuf(input, NOW, &mut grant()).ok()),
    }
}

/// A safe sequence in one byte, then the log.
pub fn telemetry_v1(input: &[u8]) {
    let Some((&safe_seq, log)) = input.split_first() else {
        return;
    };
    let disk = sim::Disk::new(1);
    let dir = Path::new(DIR);
    let put = |name: &str, bytes: &[u8]| {
        let file = disk.open(&dir.join(name), Open::CreateNew)?;
        file.write_all_at(bytes, 0)
    };
    disk.create_dir_all_synced(dir).expect("an empty disk");
    put(v1::WAL, log).expect("a disk without faults");
    put(v1::SAFE_SEQ, &u64::from(safe_seq).to_le_bytes()).expect("a disk without faults");
    let options = v1::Options {
        holder: String::new(),
        legacy_upgrade: true,
        ..v1::Options::new(Arc::new(disk.clone()))
    };
    let survey = v1::survey(dir, &options).expect("a disk without faults");
    let opened = v1::Log::open(dir, &options);
    assert_eq!(survey.refusal.is_none(), opened.is_ok());
    let Ok((mut opened, recovery)) = opened else {
        // The same bytes as a log from before safe sequences.
        disk.remove_file(&dir.join(v1::SAFE_SEQ))
            .expect("a disk without faults");
        if let Ok((upgraded, recovery)) = v1::Log::open(dir, &options) {
            let frames = recovery.upgrade.map_or(0, |upgrade| upgrade.frames);
            assert_eq!(upgraded.safe_seq().0, frames);
            assert!(upgraded.read_from(v1::Seq(0)).all(|read| read.is_ok()));
        }
        return;
    };
    assert_eq!(recovery.safe_seq.0, u64::from(safe_seq));
    assert_eq!(
        opened.read_from(v1::Seq(0)).filter(Result::is_ok).count(),
        usize::from(safe_seq)
    );
    let next = opened.append(&["{}"]).expect("a disk without faults");
    assert_eq!(next, recovery.safe_seq.next());
    drop(opened);
    let events = v1::events(dir, &options, NOW).expect("it was opened a moment ago");
    assert_eq!(events.filter(Result::is_ok).count() as u64, next.0);
}

/// A record of the log of events: what decodes encodes to the same event.
pub fn record(input: &[u8]) {
    if let Ok((event, received)) = event::decode(input) {
        let again = event::decode(&event::encode(&event, received));
        assert_eq!(again, Ok((event, received)));
    }
}

/// A line of JSON.
pub fn line(input: &[u8]) {
    let defaults = lines::Defaults {
        source: None,
        class: Class::Other,
        now: NOW,
        is_relay: true,
    };
    if let Ok(event) = lines::parse(input, &defaults) {
        event.check().expect("what is taken is fit");
    }
}

/// Counts what a decoder asks for, up to a bound.
fn grant() -> impl FnMut(usize) -> bool {
    let mut left = GRANT;
    move |bytes| {
        left = left.saturating_sub(bytes);
        left > 0
    }
}

fn fit(decoded: Option<otlp::Decoded>) {
    for event in decoded.iter().flat_map(|decoded| &decoded.events) {
        event.check().expect("what is taken is fit");
    }
}
