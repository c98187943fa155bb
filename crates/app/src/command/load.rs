//! `holdfast load`: the plug test.
//!
//! `load run` commits numbered records and prints each one's acknowledgement after the commit. Keep
//! that output on another machine, pull the plug, start again, and `load check` tells whether
//! anything acknowledged is missing, changed or out of order. It has a directory of its own inside
//! the data directory and touches nothing else.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde::Serialize;
use store::{History, Keys, Store, Table, TableId};

use crate::{
    cli::{LoadAction, Output},
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::csv,
    screen::{Screen, ignore_closed},
    site::{self, Site},
};

const TABLE: &str = "load";

/// Lengths of records cycle below this, so that they straddle sectors at every offset.
const VALUE_LEN_MAX: u64 = 1500;

/// Bytes of acknowledgements read at most; about forty million commits. They are held in memory.
const ACKS_LEN_MAX: u64 = 1 << 30;

/// The store and the one table in it.
struct Records {
    store: Store,
    table: TableId,
}

pub(crate) fn run(action: &LoadAction, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let dir = config.data_dir()?.join("load");
    if matches!(action, LoadAction::Check { .. }) {
        site::must_exist(&dir, "holdfast load run")?;
    }
    let tables = vec![Table::new(TABLE, History::Latest)];
    let store = site::open_store(&dir, config.mode(), tables, screen)?.store;
    let table = Records {
        table: store.table(TABLE).map_err(Site::store_refused)?,
        store,
    };
    match action {
        LoadAction::Run { writers, commits } => write(&table, *writers, *commits, screen),
        LoadAction::Check { acks } => check(&table, acks, config.output.value, screen),
    }
}

fn write(
    records: &Records,
    writers: u8,
    commits: Option<u64>,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    screen.remark(format_args!("{writers} writers; Ctrl-C stops"));
    let failures: Vec<Refusal> = thread::scope(|scope| {
        let running: Vec<_> = (0..writers)
            .map(|writer| {
                let stop = Arc::clone(&stop);
                scope.spawn(move || write_one(records, writer, commits, &stop))
            })
            .collect();
        running
            .into_iter()
            .filter_map(|writer| match writer.join() {
                Ok(result) => result.err(),
                Err(_) => Some(Refusal::new("a writer panicked")),
            })
            .collect()
    });
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(Exit::Clean),
    }
}

fn write_one(
    records: &Records,
    writer: u8,
    commits: Option<u64>,
    stop: &AtomicBool,
) -> Result<(), Refusal> {
    let first = last_number(records, writer)? + 1;
    let end = commits.map_or(u64::MAX, |commits| first.saturating_add(commits));
    for number in first..end {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut transaction = records.store.begin().map_err(Site::store_refused)?;
        transaction
            .put(records.table, &key(writer, number), &value(writer, number))
            .map_err(Site::store_refused)?;
        let commit = transaction.commit().map_err(Site::store_refused)?;
        let mut out = io::stdout().lock();
        let told = writeln!(out, "ack {writer} {number} {}", commit.lsn).and_then(|()| out.flush());
        if told.is_err() {
            // What was told stands. More would be told to nobody, and if nobody is the reason, that
            // is no fault.
            return ignore_closed(told);
        }
    }
    Ok(())
}

fn key(writer: u8, number: u64) -> [u8; 9] {
    let mut key = [writer; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Bytes that follow from writer and number alone, of a length that does too.
fn value(writer: u8, number: u64) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(writer);
    let len = usize::try_from(seed % VALUE_LEN_MAX + 1).expect("below VALUE_LEN_MAX");
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64: any fixed sequence would do, this one has no short cycles.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn last_number(records: &Records, writer: u8) -> Result<u64, Refusal> {
    let snapshot = records.store.snapshot().map_err(Site::store_refused)?;
    let last = snapshot
        .range(records.table, &Keys::prefix(&[writer]))
        .map_err(Site::store_refused)?
        .next_back()
        .transpose()
        .map_err(Site::store_refused)?;
    Ok(last.map_or(0, |(key, _)| number_of(&key)))
}

fn number_of(key: &[u8]) -> u64 {
    let mut number = [0; 8];
    if let Some(bytes) = key.get(1..9) {
        number.copy_from_slice(bytes);
    }
    u64::from_be_bytes(number)
}

/// What `load check` found.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    /// Acknowledgements that were read.
    acknowledged: u64,
    /// Records that are there.
    present: u64,
    /// Acknowledged, and not there.
    missing: u64,
    /// There, with other bytes than were written.
    changed: u64,
    /// A number is absent while a later one of the same writer is there.
    gaps: u64,
    /// There without an acknowledgement: at most one a writer and kill is expected.
    unacknowledged: u64,
    /// The first fault in words.
    first_fault: Option<String>,
}

impl Verdict {
    fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("acknowledged", self.acknowledged),
            ("present", self.present),
            ("missing", self.missing),
            ("changed", self.changed),
            ("gaps", self.gaps),
            ("unacknowledged", self.unacknowledged),
        ]
    }

    fn fault(&mut self, text: String) {
        self.first_fault.get_or_insert(text);
    }
}

fn check(records: &Records, acks: &Path, output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let (acknowledged, highest) = read_acks(acks)?;
    let mut verdict = Verdict {
        acknowledged,
        ..Verdict::default()
    };
    for writer in 0..=u8::MAX {
        check_writer(
            records,
            writer,
            highest.get(&writer).copied().unwrap_or(0),
            &mut verdict,
        )?;
    }
    let text = match output {
        Output::Json => super::json(&verdict)?,
        Output::Csv => csv_lines(&verdict),
        Output::Table => words(&verdict),
    };
    screen.result(&text)?;
    let sound = verdict.missing == 0 && verdict.changed == 0 && verdict.gaps == 0;
    Ok(if sound { Exit::Clean } else { Exit::Findings })
}

/// Numbers of a writer begin at 1 and are acknowledged in order, so its highest stands for all.
fn check_writer(
    records: &Records,
    writer: u8,
    highest: u64,
    verdict: &mut Verdict,
) -> Result<(), Refusal> {
    let snapshot = records.store.snapshot().map_err(Site::store_refused)?;
    let mut expected = 1;
    let rows = snapshot
        .range(records.table, &Keys::prefix(&[writer]))
        .map_err(Site::store_refused)?;
    for row in rows {
        let (found, bytes) = row.map_err(Site::store_refused)?;
        let number = number_of(&found);
        if number != expected {
            verdict.gaps += number - expected;
            verdict.missing += number
                .min(highest.saturating_add(1))
                .saturating_sub(expected);
            verdict.fault(format!(
                "writer {writer}: {expected} is absent, {number} is there"
            ));
        }
        if bytes[..] != value(writer, number)[..] {
            verdict.changed += 1;
            verdict.fault(format!(
                "writer {writer}: {number} has other bytes than were written"
            ));
        }
        verdict.present += 1;
        verdict.unacknowledged += u64::from(number > highest);
        expected = number + 1;
    }
    if expected <= highest {
        verdict.missing = (highest - expected)
            .saturating_add(1)
            .saturating_add(verdict.missing);
        verdict.fault(format!(
            "writer {writer}: {expected} to {highest} were acknowledged and are absent"
        ));
    }
    Ok(())
}

/// How many acknowledgements there are, and the highest number of each writer. A last line that was
/// cut off is left out: it was never read whole by anybody.
fn read_acks(path: &Path) -> Result<(u64, BTreeMap<u8, u64>), Refusal> {
    let refuse = |error| {
        Refusal::new(format!("acknowledgements {}", path.display()))
            .source(error)
            .next("give what `holdfast load run` printed")
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(ACKS_LEN_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(refuse)?;
        if bytes.len() as u64 > ACKS_LEN_MAX {
            let message = format!("more than {ACKS_LEN_MAX} bytes");
            return Err(refuse(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
    } else {
        bytes = named_file::read(path, ACKS_LEN_MAX).map_err(refuse)?;
    }
    let mut count = 0;
    let mut highest = BTreeMap::new();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    for line in bytes[..whole].split(|byte| *byte == b'\n') {
        if let Some((writer, number)) = parse_ack(line) {
            count += 1;
            let entry = highest.entry(writer).or_insert(0);
            *entry = number.max(*entry);
        }
    }
    if count == 0 && !bytes.is_empty() {
        // Another file than was meant would otherwise prove that nothing is missing.
        let message = "no line is an acknowledgement";
        return Err(refuse(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    Ok((count, highest))
}

fn parse_ack(line: &[u8]) -> Option<(u8, u64)> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("ack ")?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn csv_lines(verdict: &Verdict) -> String {
    let [a, b, c, d, e, f] = verdict.counts().map(|(name, _)| name);
    let header = [a, b, c, d, e, f, "first_fault"];
    let [a, b, c, d, e, f] = verdict.counts().map(|(_, count)| count.to_string());
    let fault = verdict.first_fault.clone().unwrap_or_default();
    csv::lines(header, [[a, b, c, d, e, f, fault]])
}

fn words(verdict: &Verdict) -> String {
    let counts = verdict
        .counts()
        .map(|(name, count)| format!("{count} {name}"));
    let mut text = format!("{}\n", counts.join(", "));
    match &verdict.first_fault {
        Some(fault) => writeln!(text, "first fault: {fault}"),
        None => writeln!(text, "nothing acknowledged was lost"),
    }
    .expect("writing to a string cannot fail");
    text
}
