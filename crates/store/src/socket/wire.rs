//! Requests and answers as bytes. All numbers are little-endian; a length stands before what it is
//! of, and is checked against what is there before anything is made of it.
//!
//! The two sides are usually the same program. Where they are not, the greeting says so: its first
//! twelve bytes never change.

use std::ops::Bound;

use wal::Lsn;
use world::Timestamp;

use crate::{
    Bytes, Commit, Error, Keys, Kind, Order, Outcome, Retained, TableId, Write, cursor::Cursor,
};

pub(super) const MAGIC: &[u8; 8] = b"HFSTORE\0";
pub(super) const VERSION: u32 = 1;

/// What a client asks. One connection takes one at a time; only `End` has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Table(String),
    TableName(TableId),
    Newest,
    At(Lsn),
    AtTime(Timestamp),
    Retained,
    /// Opens a snapshot, of everything committed where no position is named.
    Read(Option<Lsn>),
    /// Opens a transaction.
    Begin,
    Get(Vec<(TableId, Vec<u8>)>),
    Page(Page),
    Claim(Page),
    Finish {
        writes: Vec<Write>,
        date: Option<Timestamp>,
        once: Option<Vec<u8>>,
    },
    /// Gives up what is open.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) table: TableId,
    pub(super) keys: Keys,
    pub(super) order: Order,
    pub(super) limit: u32,
}

#[derive(Debug)]
pub(super) enum Answer {
    Refused(Error),
    /// What was held is not held any more, and the connection ends.
    GivenUp(String),
    /// Too many connections.
    Busy,
    Welcome,
    Table(TableId),
    Name(String),
    Commit(Commit),
    Retained(Retained),
    /// Of the first of the keys that were asked for, at least one.
    Values(Vec<Option<Bytes>>),
    /// `more`: ended because of its size and not of the limit.
    Rows {
        rows: Vec<(Bytes, Bytes)>,
        more: bool,
    },
    Outcome(Outcome),
}

pub(super) fn greeting() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

/// The version that the other side speaks; `None` for what is no greeting.
pub(super) fn greeted(bytes: &[u8]) -> Option<u32> {
    let mut cursor = Cursor::new(bytes);
    (cursor.array::<8>()? == *MAGIC).then_some(())?;
    cursor.u32()
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Table(name) => text(1, name),
            Self::TableName(table) => tagged(2, &u32::from(*table).to_le_bytes()),
            Self::Newest => vec![3],
            Self::At(lsn) => tagged(4, &lsn.get().to_le_bytes()),
            Self::AtTime(time) => tagged(5, &time.nanos().to_le_bytes()),
            Self::Retained => vec![6],
            Self::Read(None) => vec![7],
            Self::Read(Some(lsn)) => tagged(8, &lsn.get().to_le_bytes()),
            Self::Begin => vec![9],
            Self::Get(keys) => {
                let keys: Vec<_> = keys.iter().map(|(table, key)| (*table, &key[..])).collect();
                encode_get(&keys)
            }
            Self::Page(page) => page.encode(11),
            Self::Claim(page) => page.encode(12),
            Self::Finish { writes, date, once } => encode_finish(writes, *date, once.as_deref()),
            Self::End => vec![14],
        }
    }

    /// `None` for whatever no client of this version sends.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let request = match cursor.u8()? {
            1 => Self::Table(rest_as_text(&mut cursor)?),
            2 => Self::TableName(cursor.u32()?.into()),
            3 => Self::Newest,
            4 => Self::At(Lsn::new(cursor.u64()?)),
            5 => Self::AtTime(Timestamp::from_nanos(cursor.u64()?)),
            6 => Self::Retained,
            7 => Self::Read(None),
            8 => Self::Read(Some(Lsn::new(cursor.u64()?))),
            9 => Self::Begin,
            10 => Self::Get(decode_get(&mut cursor)?),
            11 => Self::Page(Page::decode(&mut cursor)?),
            12 => Self::Claim(Page::decode(&mut cursor)?),
            13 => decode_finish(&mut cursor)?,
            14 => Self::End,
            _ => return None,
        };
        cursor.is_empty().then_some(request)
    }
}

pub(super) fn encode_get(keys: &[(TableId, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![10];
    for (table, key) in keys {
        bytes.extend_from_slice(&u32::from(*table).to_le_bytes());
        put_bytes(&mut bytes, key);
    }
    bytes
}

fn decode_get(cursor: &mut Cursor<'_>) -> Option<Vec<(TableId, Vec<u8>)>> {
    let mut keys = Vec::new();
    while !cursor.is_empty() {
        let table = cursor.u32()?.into();
        keys.push((table, take_bytes(cursor)?.to_vec()));
    }
    Some(keys)
}

const HAS_DATE: u8 = 1;
const HAS_ONCE: u8 = 2;

/// A write takes no more bytes than in a record of the journal, so that what fits there fits here.
pub(super) fn encode_finish(
    writes: &[Write],
    date: Option<Timestamp>,
    once: Option<&[u8]>,
) -> Vec<u8> {
    let flags =
        if date.is_some() { HAS_DATE } else { 0 } | if once.is_some() { HAS_ONCE } else { 0 };
    let mut bytes = vec![13, flags];
    if let Some(date) = date {
        bytes.extend_from_slice(&date.nanos().to_le_bytes());
    }
    if let Some(once) = once {
        put_bytes(&mut bytes, once);
    }
    for Write { table, key, value } in writes {
        bytes.extend_from_slice(&u32::from(*table).to_le_bytes());
        let len = u16::try_from(key.len()).expect("keys are checked when they are written");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(u8::from(value.is_some()));
        bytes.push(0);
        put_bytes(&mut bytes, value.as_deref().unwrap_or_default());
        bytes.extend_from_slice(key);
    }
    bytes
}

fn decode_finish(cursor: &mut Cursor<'_>) -> Option<Request> {
    let flags = cursor.u8()?;
    if flags & !(HAS_DATE | HAS_ONCE) != 0 {
        return None;
    }
    let date = match flags & HAS_DATE {
        0 => None,
        _ => Some(Timestamp::from_nanos(cursor.u64()?)),
    };
    let once = match flags & HAS_ONCE {
        0 => None,
        _ => Some(take_bytes(cursor)?.to_vec()),
    };
    let mut writes = Vec::new();
    while !cursor.is_empty() {
        let table = cursor.u32()?.into();
        let key_len = usize::from(cursor.u16()?);
        let (live, zero) = (cursor.u8()?, cursor.u8()?);
        let value = take_bytes(cursor)?.to_vec();
        let key = cursor.take(key_len)?.to_vec();
        let value = match (live, zero) {
            (1, 0) => Some(value),
            (0, 0) if value.is_empty() => None,
            _ => return None,
        };
        writes.push(Write { table, key, value });
    }
    Some(Request::Finish { writes, date, once })
}

impl Page {
    fn encode(&self, tag: u8) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::from(self.table).to_le_bytes());
        bytes.push(match self.order {
            Order::Ascending => 0,
            Order::Descending => 1,
        });
        bytes.extend_from_slice(&self.limit.to_le_bytes());
        for bound in [self.keys.start(), self.keys.end()] {
            let (tag, key): (u8, &[u8]) = match bound {
                Bound::Unbounded => (0, &[]),
                Bound::Included(key) => (1, key),
                Bound::Excluded(key) => (2, key),
            };
            bytes.push(tag);
            put_bytes(&mut bytes, key);
        }
        bytes
    }

    fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let table = cursor.u32()?.into();
        let order = match cursor.u8()? {
            0 => Order::Ascending,
            1 => Order::Descending,
            _ => return None,
        };
        let limit = cursor.u32()?;
        let start = take_bound(cursor)?;
        let end = take_bound(cursor)?;
        Some(Self {
            table,
            keys: Keys::new(start, end),
            order,
            limit,
        })
    }
}

fn take_bound<'a>(cursor: &mut Cursor<'a>) -> Option<Bound<&'a [u8]>> {
    let tag = cursor.u8()?;
    let key = take_bytes(cursor)?;
    match tag {
        0 if key.is_empty() => Some(Bound::Unbounded),
        1 => Some(Bound::Included(key)),
        2 => Some(Bound::Excluded(key)),
        _ => None,
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused(error) => encode_error(error),
            Self::GivenUp(why) => text(1, why),
            Self::Busy => vec![2],
            Self::Welcome => tagged(3, &greeting()),
            Self::Table(table) => tagged(4, &u32::from(*table).to_le_bytes()),
            Self::Name(name) => text(5, name),
            Self::Commit(commit) => tagged(6, &commit_bytes(*commit)),
            Self::Retained(Retained { from, to }) => {
                tagged(7, &[commit_bytes(*from), commit_bytes(*to)].concat())
            }
            Self::Values(values) => {
                let mut bytes = vec![8];
                for value in values {
                    bytes.push(u8::from(value.is_some()));
                    put_bytes(&mut bytes, value.as_deref().unwrap_or_default());
                }
                bytes
            }
            Self::Rows { rows, more } => {
                let mut bytes = vec![9, u8::from(*more)];
                for (key, value) in rows {
                    put_bytes(&mut bytes, key);
                    put_bytes(&mut bytes, value);
                }
                bytes
            }
            Self::Outcome(Outcome::Committed(commit)) => tagged(10, &commit_bytes(*commit)),
            Self::Outcome(Outcome::Replayed(commit)) => tagged(11, &commit_bytes(*commit)),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let answer = match cursor.u8()? {
            0 => Self::Refused(decode_error(&mut cursor)?),
            1 => Self::GivenUp(rest_as_text(&mut cursor)?),
            2 => Self::Busy,
            3 => {
                let rest = cursor.take(cursor.len())?;
                (greeted(rest)? == VERSION).then_some(Self::Welcome)?
            }
            4 => Self::Table(cursor.u32()?.into()),
            5 => Self::Name(rest_as_text(&mut cursor)?),
            6 => Self::Commit(take_commit(&mut cursor)?),
            7 => Self::Retained(Retained {
                from: take_commit(&mut cursor)?,
                to: take_commit(&mut cursor)?,
            }),
            8 => {
                let mut values = Vec::new();
                while !cursor.is_empty() {
                    let live = cursor.u8()?;
                    let value = take_bytes(&mut cursor)?;
                    values.push(match (live, value.is_empty()) {
                        (1, _) => Some(Bytes::from(value)),
                        (0, true) => None,
                        _ => return None,
                    });
                }
                Self::Values(values)
            }
            9 => {
                let more = match cursor.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                let mut rows = Vec::new();
                while !cursor.is_empty() {
                    let key = Bytes::from(take_bytes(&mut cursor)?);
                    rows.push((key, Bytes::from(take_bytes(&mut cursor)?)));
                }
                Self::Rows { rows, more }
            }
            10 => Self::Outcome(Outcome::Committed(take_commit(&mut cursor)?)),
            11 => Self::Outcome(Outcome::Replayed(take_commit(&mut cursor)?)),
            _ => return None,
        };
        cursor.is_empty().then_some(answer)
    }
}

const KINDS: [Kind; 12] = [
    Kind::Conflict,
    Kind::Poisoned,
    Kind::Fenced,
    Kind::Corrupt,
    Kind::Full,
    Kind::Invalid,
    Kind::OutOfRange,
    Kind::Closed,
    Kind::Locked,
    Kind::Version,
    Kind::Io,
    Kind::InDoubt,
];

fn encode_error(error: &Error) -> Vec<u8> {
    let kind = KINDS.iter().position(|kind| *kind == error.kind());
    let kind = kind.and_then(|kind| u8::try_from(kind).ok());
    let mut bytes = vec![0, kind.expect("every kind has a place in the list")];
    bytes.push(u8::from(error.retained().is_some()));
    if let Some(Retained { from, to }) = error.retained() {
        bytes.extend_from_slice(&commit_bytes(from));
        bytes.extend_from_slice(&commit_bytes(to));
    }
    bytes.extend_from_slice(error.to_string().as_bytes());
    bytes
}

fn decode_error(cursor: &mut Cursor<'_>) -> Option<Error> {
    let kind = *KINDS.get(usize::from(cursor.u8()?))?;
    let retained = match cursor.u8()? {
        0 => None,
        1 => Some(Retained {
            from: take_commit(cursor)?,
            to: take_commit(cursor)?,
        }),
        _ => return None,
    };
    if retained.is_some() != (kind == Kind::OutOfRange) {
        return None;
    }
    Some(Error::told(kind, rest_as_text(cursor)?, retained))
}

fn commit_bytes(commit: Commit) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&commit.lsn.get().to_le_bytes());
    bytes[8..].copy_from_slice(&commit.time.nanos().to_le_bytes());
    bytes
}

fn take_commit(cursor: &mut Cursor<'_>) -> Option<Commit> {
    Some(Commit {
        lsn: Lsn::new(cursor.u64()?),
        time: Timestamp::from_nanos(cursor.u64()?),
    })
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

fn text(tag: u8, text: &str) -> Vec<u8> {
    tagged(tag, text.as_bytes())
}

fn rest_as_text(cursor: &mut Cursor<'_>) -> Option<String> {
    let rest = cursor.take(cursor.len())?;
    String::from_utf8(rest.to_vec()).ok()
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a frame is far below four GiB");
    into.extend_from_slice(&len.to_le_bytes());
    into.extend_from_slice(bytes);
}

fn take_bytes<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(cursor.u32()?).ok()?;
    cursor.take(len)
}
