//! Events that a receiver refused for good, kept until someone decides.
//!
//! A journal of its own: a record is the whole event, who refused it, why and when; a later record
//! says what became of another attempt. Always holds: a dead letter is durable before the cursor of
//! its drain moves past the event. A crash between the two sends the event again, and what is refused
//! again is a second letter for the same event: reading gives it once.
//!
//! Byte map in `docs/format/events.md`.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use wal::{Generation, Journal, JournalId, Lsn, RecordKind};
use world::Timestamp;

#[cfg(test)]
use crate::record::Field;
use crate::{Error, Event, EventId, Kind, event, record::Undecodable};

const LETTER: RecordKind = RecordKind(1);
const ATTEMPT: RecordKind = RecordKind(2);
const VERSION: u8 = 1;
const LETTER_HEAD_LEN: usize = 48;
const ATTEMPT_HEAD_LEN: usize = 24;
#[cfg(test)]
pub(crate) const LETTER_MAP: [Field; 8] = [
    field("version", 0, 1),
    field("drain length", 2, 2),
    field("receiver length", 4, 2),
    field("why length", 6, 2),
    field("when", 8, 8),
    field("LSN", 16, 8),
    field("generation", 24, 4),
    field("journal", 32, 16),
];
#[cfg(test)]
pub(crate) const ATTEMPT_MAP: [Field; 6] = [
    field("version", 0, 1),
    field("outcome", 1, 1),
    field("receiver length", 2, 2),
    field("why length", 4, 2),
    field("when", 8, 8),
    field("letter", 16, 8),
];

#[cfg(test)]
const fn field(name: &'static str, at: usize, len: usize) -> Field {
    Field { name, at, len }
}

/// Bytes kept of a drain's name, a receiver or a reason. A receiver's reason is cut to a sentence
/// before, the others are bounded by what configuration takes.
const TEXT_LEN_MAX: usize = 1024;

/// Letters of one append: with the largest events and their heads still below what the journal takes
/// at once.
const LETTERS_APPENDED_MAX: usize = 16;

/// An event and why it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub event: Event,
    /// Name of the drain.
    pub drain: String,
    pub receiver: String,
    pub why: String,
    pub when: Timestamp,
}

/// What became of sending a letter once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Position of the letter.
    pub letter: Lsn,
    pub receiver: String,
    /// `None`: accepted.
    pub refused: Option<String>,
    pub when: Timestamp,
}

/// A letter as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position, by which it is named.
    pub lsn: Lsn,
    pub letter: Letter,
    /// The last attempt to send it again.
    pub attempt: Option<Attempt>,
}

impl Entry {
    /// Whether a receiver took it later.
    pub fn is_accepted(&self) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| attempt.refused.is_none())
    }
}

/// The dead letters of a data directory.
#[derive(Debug)]
pub struct DeadLetters {
    journal: Arc<dyn Journal>,
}

impl DeadLetters {
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal }
    }

    /// Durable when it returns. An error may leave the first of many behind; they are then written
    /// again and read once.
    pub fn append(&self, letters: &[Letter]) -> Result<(), Error> {
        for letters in letters.chunks(LETTERS_APPENDED_MAX) {
            let records: Vec<Vec<u8>> = letters.iter().map(encode_letter).collect();
            self.write(LETTER, &records)?;
        }
        Ok(())
    }

    /// Records what became of sending letters once more. Durable when it returns.
    pub fn record(&self, attempts: &[Attempt]) -> Result<(), Error> {
        for attempts in attempts.chunks(ATTEMPTS_APPENDED_MAX) {
            let records: Vec<Vec<u8>> = attempts.iter().map(encode_attempt).collect();
            self.write(ATTEMPT, &records)?;
        }
        Ok(())
    }

    fn write(&self, kind: RecordKind, records: &[Vec<u8>]) -> Result<(), Error> {
        let records: Vec<(RecordKind, &[u8])> =
            records.iter().map(|bytes| (kind, &bytes[..])).collect();
        self.journal
            .append(&records)
            .map(|_| ())
            .map_err(|source| Error::journal("append to the dead letters", source))
    }

    /// Every letter once, oldest first, with its last attempt. What is held in memory is the letters'
    /// names and attempts, not their events.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<Entry, Error>> + '_, Error> {
        let mut attempts: HashMap<Lsn, Attempt> = HashMap::new();
        for record in self.read()? {
            let record = record?;
            if record.kind == ATTEMPT {
                let attempt =
                    decode_attempt(&record.bytes).map_err(|why| corrupt(record.lsn, why))?;
                attempts.insert(attempt.letter, attempt);
            }
        }
        let mut seen: HashSet<(String, EventId)> = HashSet::new();
        Ok(self.read()?.filter_map(move |record| {
            let record = match record {
                Ok(record) if record.kind == LETTER => record,
                Ok(_) => return None,
                Err(error) => return Some(Err(error)),
            };
            let letter = match decode_letter(&record.bytes) {
                Ok(letter) => letter,
                Err(why) => return Some(Err(corrupt(record.lsn, why))),
            };
            if !seen.insert((letter.drain.clone(), letter.event.id)) {
                return None;
            }
            Some(Ok(Entry {
                lsn: record.lsn,
                letter,
                attempt: attempts.remove(&record.lsn),
            }))
        }))
    }

    /// How many letters wait for a decision.
    pub fn waiting(&self) -> Result<u64, Error> {
        let mut waiting = 0;
        for entry in self.entries()? {
            waiting += u64::from(!entry?.is_accepted());
        }
        Ok(waiting)
    }

    fn read(&self) -> Result<impl Iterator<Item = Result<wal::Record, Error>> + '_, Error> {
        let failed = |source| Error::journal("read the dead letters", source);
        let records = self
            .journal
            .read(self.journal.first_retained())
            .map_err(failed)?;
        Ok(records.map(move |record| record.map_err(failed)))
    }
}

/// Attempts of one append. Each is at most a few KiB.
const ATTEMPTS_APPENDED_MAX: usize = 1024;

fn corrupt(lsn: Lsn, why: Undecodable) -> Error {
    Error::new(Kind::Corrupt, format!("read dead letter {lsn}")).with_source(why)
}

/// At most [`TEXT_LEN_MAX`] bytes, cut between characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn short(text: &str) -> [u8; 2] {
    u16::try_from(text.len())
        .expect("cut to TEXT_LEN_MAX")
        .to_le_bytes()
}

fn encode_letter(letter: &Letter) -> Vec<u8> {
    let (drain, receiver, why) = (cut(&letter.drain), cut(&letter.receiver), cut(&letter.why));
    let id = letter.event.id;
    let mut out = Vec::with_capacity(LETTER_HEAD_LEN + 3 * TEXT_LEN_MAX);
    out.extend_from_slice(&[VERSION, 0]);
    out.extend_from_slice(&short(drain));
    out.extend_from_slice(&short(receiver));
    out.extend_from_slice(&short(why));
    out.extend_from_slice(&letter.when.nanos().to_le_bytes());
    out.extend_from_slice(&id.lsn.get().to_le_bytes());
    out.extend_from_slice(&id.generation.0.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&id.journal.0);
    for text in [drain, receiver, why] {
        out.extend_from_slice(text.as_bytes());
    }
    event::encode_into(&mut out, &letter.event.event, letter.event.received);
    out
}

fn encode_attempt(attempt: &Attempt) -> Vec<u8> {
    let receiver = cut(&attempt.receiver);
    let why = attempt.refused.as_deref().map_or("", cut);
    let mut out = Vec::with_capacity(ATTEMPT_HEAD_LEN + receiver.len() + why.len());
    out.extend_from_slice(&[VERSION, u8::from(attempt.refused.is_some())]);
    out.extend_from_slice(&short(receiver));
    out.extend_from_slice(&short(why));
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&attempt.when.nanos().to_le_bytes());
    out.extend_from_slice(&attempt.letter.get().to_le_bytes());
    out.extend_from_slice(receiver.as_bytes());
    out.extend_from_slice(why.as_bytes());
    out
}

/// Takes numbers and texts from the front of a record, bounds first.
struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn of(record: &'a [u8]) -> Result<Self, Undecodable> {
        let mut front = Self(record);
        match front.array::<1>()? {
            [VERSION] => Ok(front),
            [version] => refuse(format_args!(
                "of version {version}, this program reads {VERSION}; use the program that wrote it"
            )),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return refuse(format_args!("ends {} bytes early", len - self.0.len()));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn short(&mut self) -> Result<usize, Undecodable> {
        self.array()
            .map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn long(&mut self) -> Result<u64, Undecodable> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, len: usize) -> Result<String, Undecodable> {
        match str::from_utf8(self.take(len)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => refuse("has text that is not UTF-8"),
        }
    }
}

fn refuse<T>(what: impl fmt::Display) -> Result<T, Undecodable> {
    Err(Undecodable(format!("record of the dead letters {what}")))
}

fn decode_letter(bytes: &[u8]) -> Result<Letter, Undecodable> {
    let mut front = Front::of(bytes)?;
    front.take(1)?;
    let (drain, receiver, why) = (front.short()?, front.short()?, front.short()?);
    let when = Timestamp::from_nanos(front.long()?);
    let lsn = Lsn::new(front.long()?);
    let generation = Generation(u32::from_le_bytes(front.array()?));
    front.take(4)?;
    let journal = JournalId(front.array()?);
    let drain = front.text(drain)?;
    let receiver = front.text(receiver)?;
    let why = front.text(why)?;
    let (event, received) = event::decode(front.0)?;
    Ok(Letter {
        event: Event {
            id: EventId {
                journal,
                generation,
                lsn,
            },
            received,
            event,
        },
        drain,
        receiver,
        why,
        when,
    })
}

fn decode_attempt(bytes: &[u8]) -> Result<Attempt, Undecodable> {
    let mut front = Front::of(bytes)?;
    let is_refused = match front.array::<1>()? {
        [0] => false,
        [1] => true,
        [number] => return refuse(format_args!("with outcome {number}, which there is not")),
    };
    let (receiver, why) = (front.short()?, front.short()?);
    front.take(2)?;
    let when = Timestamp::from_nanos(front.long()?);
    let letter = Lsn::new(front.long()?);
    let receiver = front.text(receiver)?;
    let why = front.text(why)?;
    Ok(Attempt {
        letter,
        receiver,
        refused: is_refused.then_some(why),
        when,
    })
}

#[cfg(test)]
mod tests;
