//! One copy of the record as bytes, and which record four copies stand for.
//!
//! The digest covers everything but the index, so the copies of one record have the same one, and
//! agreeing is having it. A copy at the place of another does not verify: the index is compared
//! with the place, not trusted. docs/format/authority.md has the bytes; a test compares them.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use wal::{Epoch, Generation, Identity, JournalId, Lsn};
use world::Timestamp;

use super::{AGREE, Digest, Entry, Owner, field::Field};
use crate::machine::{
    Config, EpochId, EpochStart, MEMBERS_MAX, Mode, NodeId, Policy, Position, Record, Replaced,
    Version,
};

pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const MAGIC_BYTES: [u8; 8] = *b"HFAUTHO\0";
pub(super) const COPIES: usize = 4;
/// One page, so that a torn write of one copy cannot reach another.
pub(super) const COPY_LEN: usize = 4096;
pub(super) const FILE_LEN: usize = COPIES * COPY_LEN;

/// Epochs in the record; the oldest go first. What fits in the page beside the rest.
pub const HISTORY_MAX: usize = 64;
/// Nodes that may hold an epoch: members, and those that were until a moment ago.
pub const HOLDERS_MAX: usize = 2 * MEMBERS_MAX;
/// Bytes of the reason; what is longer is cut. What fits in the page beside the rest.
pub const REASON_LEN_MAX: usize = 512;

const NODE_LEN: usize = 16;
const START_LEN: usize = 8 + 16 + 8;

pub(super) const MAGIC: Field = Field::new("magic", 0, 8);
pub(super) const VERSION: Field = Field::new("format version", 8, 4);
pub(super) const INDEX: Field = Field::new("index of the copy", 12, 4);
pub(super) const DIGEST: Field = Field::new("digest", 16, 32);
pub(super) const CLUSTER: Field = Field::new("cluster", 48, 16);
pub(super) const NODE: Field = Field::new("node", 64, 16);
pub(super) const JOURNAL: Field = Field::new("journal", 80, 16);
pub(super) const GENERATION: Field = Field::new("generation", 96, 4);
pub(super) const FLAGS: Field = Field::new("flags", 100, 4);
pub(super) const BIRTH: Field = Field::new("birth number of the log", 104, 16);
pub(super) const SEQUENCE: Field = Field::new("sequence", 120, 8);
pub(super) const WRITTEN: Field = Field::new("written", 128, 8);
pub(super) const PREDECESSOR: Field = Field::new("digest of the predecessor", 136, 32);
pub(super) const PROMISED: Field = Field::new("promised epoch", 168, 8);
pub(super) const PROMISED_ID: Field = Field::new("promised id", 176, 16);
pub(super) const ASKER: Field = Field::new("asker", 192, 16);
pub(super) const GRANTED: Field = Field::new("granted epoch", 208, 8);
pub(super) const GRANTED_ID: Field = Field::new("granted id", 216, 16);
pub(super) const HOLDER: Field = Field::new("holder", 232, 16);
pub(super) const START: Field = Field::new("start", 248, 32);
pub(super) const PREVIOUS_EPOCH: Field = Field::new("previous end, epoch", 280, 8);
pub(super) const PREVIOUS_LSN: Field = Field::new("previous end, LSN", 288, 8);
pub(super) const CONFIG_EPOCH: Field = Field::new("configuration, epoch", 296, 8);
pub(super) const CONFIG_NUMBER: Field = Field::new("configuration, number", 304, 8);
pub(super) const MODE: Field = Field::new("mode", 312, 4);
pub(super) const MODE_COPIES: Field = Field::new("copies of the mode", 316, 4);
pub(super) const POLICY: Field = Field::new("policy", 320, 4);
pub(super) const REPLACED_MODE: Field = Field::new("replaced mode", 324, 4);
pub(super) const REPLACED_COPIES: Field = Field::new("copies of the replaced mode", 328, 4);
pub(super) const MEMBERS_COUNT: Field = Field::new("count of members", 332, 4);
pub(super) const REPLACED_COUNT: Field = Field::new("count of replaced members", 336, 4);
pub(super) const HOLDERS_COUNT: Field = Field::new("count of possible holders", 340, 4);
pub(super) const HISTORY_COUNT: Field = Field::new("count of epochs", 344, 4);
pub(super) const REASON_LEN: Field = Field::new("length of the reason", 348, 4);
pub(super) const MEMBERS: Field = Field::new("members", 352, MEMBERS_MAX * NODE_LEN);
pub(super) const REPLACED: Field = Field::new("replaced members", 608, MEMBERS_MAX * NODE_LEN);
pub(super) const HOLDERS: Field = Field::new("possible holders", 864, HOLDERS_MAX * NODE_LEN);
pub(super) const HISTORY: Field = Field::new("epochs", 1376, HISTORY_MAX * START_LEN);
pub(super) const REASON: Field = Field::new("reason", 3424, REASON_LEN_MAX);

#[cfg(test)]
pub(super) const MAP: [Field; 39] = [
    MAGIC,
    VERSION,
    INDEX,
    DIGEST,
    CLUSTER,
    NODE,
    JOURNAL,
    GENERATION,
    FLAGS,
    BIRTH,
    SEQUENCE,
    WRITTEN,
    PREDECESSOR,
    PROMISED,
    PROMISED_ID,
    ASKER,
    GRANTED,
    GRANTED_ID,
    HOLDER,
    START,
    PREVIOUS_EPOCH,
    PREVIOUS_LSN,
    CONFIG_EPOCH,
    CONFIG_NUMBER,
    MODE,
    MODE_COPIES,
    POLICY,
    REPLACED_MODE,
    REPLACED_COPIES,
    MEMBERS_COUNT,
    REPLACED_COUNT,
    HOLDERS_COUNT,
    HISTORY_COUNT,
    REASON_LEN,
    MEMBERS,
    REPLACED,
    HOLDERS,
    HISTORY,
    REASON,
];

/// Bits of [`FLAGS`].
const IS_AMNESIAC: u32 = 1;
const HAS_START: u32 = 2;
const HAS_REPLACED: u32 = 4;

const ASYNC: u32 = 0;
const SYNC: u32 = 1;
const ALL: u32 = 2;

const REFUSE: u32 = 0;
const WAIT: u32 = 1;

/// Why no record can be told from four copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Damaged(String),
    Version(u32),
}

/// The record that four copies stand for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) owner: Owner,
    pub(super) entry: Entry,
    pub(super) digest: Digest,
    /// A copy of it, of whatever index.
    pub(super) block: Vec<u8>,
    pub(super) agrees: [bool; COPIES],
    pub(super) saw_later: bool,
}

pub(super) fn offset(index: usize) -> u64 {
    (index * COPY_LEN) as u64
}

pub(super) fn set_index(block: &mut [u8], index: usize) {
    put_len(block, INDEX, index);
}

/// Of everything but index and digest.
pub(super) fn digest(block: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(&block[..INDEX.at]);
    hash.update(&block[DIGEST.at + DIGEST.len..]);
    Digest(hash.finalize().into())
}

/// The highest record that two copies agree on. A later one that only one copy has was never in
/// force; two records of one sequence, with two copies each, are nothing that a crash leaves.
pub(super) fn choose(blocks: &[Option<Vec<u8>>]) -> Result<Found, Fault> {
    let mut groups: BTreeMap<(u64, Digest), Vec<usize>> = BTreeMap::new();
    for (index, block) in blocks.iter().enumerate() {
        let Some(block) = block else { continue };
        if let Some(digest) = verify(block, index)? {
            let group = groups.entry((SEQUENCE.u64(block), digest)).or_default();
            group.push(index);
        }
    }
    let verified: usize = groups.values().map(Vec::len).sum();
    let agreeing = || groups.iter().filter(|(_, copies)| copies.len() >= AGREE);
    let Some((&(sequence, digest), copies)) = agreeing().next_back() else {
        return Err(Fault::Damaged(format!(
            "{verified} of {COPIES} copies verify, no two of them agree"
        )));
    };
    let twins = agreeing().filter(|((other, _), _)| *other == sequence);
    if twins.count() > 1 {
        let twins = format!("two different records have the sequence {sequence}");
        return Err(Fault::Damaged(twins));
    }
    let block = blocks[copies[0]].clone().unwrap_or_default();
    let (owner, entry) = decode(&block)
        .ok_or_else(|| Fault::Damaged(format!("record {sequence} says what no record says")))?;
    Ok(Found {
        owner,
        entry,
        digest,
        block,
        agrees: std::array::from_fn(|index| copies.contains(&index)),
        saw_later: groups.keys().any(|(other, _)| *other > sequence),
    })
}

/// The digest of a copy that is what its place promises; `None` for any other bytes.
fn verify(block: &[u8], index: usize) -> Result<Option<Digest>, Fault> {
    let digest = digest(block);
    if MAGIC.bytes(block) != MAGIC_BYTES || DIGEST.bytes(block) != digest.0 {
        return Ok(None);
    }
    match VERSION.u32(block) {
        FORMAT_VERSION => Ok((len(block, INDEX) == index).then_some(digest)),
        version => Err(Fault::Version(version)),
    }
}

/// The bytes of a record as copy 0. An error when it has no room for it.
pub(super) fn encode(owner: Owner, entry: &Entry) -> Result<Vec<u8>, String> {
    let record = &entry.record;
    let mut block = vec![0; COPY_LEN];
    let b = &mut block;
    MAGIC.put(b, &MAGIC_BYTES);
    put_u32(b, VERSION, FORMAT_VERSION);
    put_u128(b, CLUSTER, owner.cluster);
    put_u128(b, NODE, owner.node.0);
    JOURNAL.put(b, &owner.journal.journal.0);
    put_u32(b, GENERATION, owner.journal.generation.0);
    put_u128(b, BIRTH, entry.birth);
    put_u64(b, SEQUENCE, entry.sequence);
    put_u64(b, WRITTEN, entry.written.nanos());
    PREDECESSOR.put(b, &entry.predecessor.0);
    for ((epoch, id, node), fields) in [
        (record.promised, [PROMISED, PROMISED_ID, ASKER]),
        (record.granted, [GRANTED, GRANTED_ID, HOLDER]),
    ] {
        put_u64(b, fields[0], epoch.0);
        put_u128(b, fields[1], id.0);
        put_u128(b, fields[2], node.0);
    }
    let mut flags = 0;
    if record.is_amnesiac {
        flags |= IS_AMNESIAC;
    }
    if let Some(start) = record.start {
        flags |= HAS_START;
        START.put(b, &start_bytes(start));
    }
    put_u64(b, PREVIOUS_EPOCH, record.previous_end.epoch.0);
    put_u64(b, PREVIOUS_LSN, record.previous_end.lsn.get());
    if put_config(b, &record.config)? {
        flags |= HAS_REPLACED;
    }
    put_u32(b, FLAGS, flags);
    put_nodes(b, HOLDERS_COUNT, HOLDERS, &record.holders)?;
    world::invariant!(
        entry.history.len() <= HISTORY_MAX,
        "{} epochs in an authority record",
        entry.history.len()
    );
    put_len(b, HISTORY_COUNT, entry.history.len());
    let history: Vec<u8> = entry
        .history
        .iter()
        .copied()
        .flat_map(start_bytes)
        .collect();
    HISTORY.put_first(b, &history);
    let reason = &record.reason[..record.reason.floor_char_boundary(REASON_LEN_MAX)];
    put_len(b, REASON_LEN, reason.len());
    REASON.put_first(b, reason.as_bytes());
    let digest = digest(&block);
    DIGEST.put(&mut block, &digest.0);
    Ok(block)
}

/// Whether it replaces another.
fn put_config(block: &mut [u8], config: &Config) -> Result<bool, String> {
    put_u64(block, CONFIG_EPOCH, config.version.epoch.0);
    put_u64(block, CONFIG_NUMBER, config.version.number);
    put_mode(block, MODE, MODE_COPIES, config.mode);
    let policy = match config.policy {
        Policy::Refuse => REFUSE,
        Policy::Wait => WAIT,
    };
    put_u32(block, POLICY, policy);
    put_nodes(block, MEMBERS_COUNT, MEMBERS, &config.members)?;
    if let Some(replaced) = &config.previous {
        put_mode(block, REPLACED_MODE, REPLACED_COPIES, replaced.mode);
        put_nodes(block, REPLACED_COUNT, REPLACED, &replaced.members)?;
    }
    Ok(config.previous.is_some())
}

fn put_mode(block: &mut [u8], mode: Field, copies: Field, value: Mode) {
    let (code, count) = match value {
        Mode::Async => (ASYNC, 0),
        Mode::Sync(count) => (SYNC, count),
        Mode::All => (ALL, 0),
    };
    put_u32(block, mode, code);
    put_u32(block, copies, count);
}

fn put_nodes(
    block: &mut [u8],
    count: Field,
    nodes: Field,
    value: &BTreeSet<NodeId>,
) -> Result<(), String> {
    let room = nodes.len / NODE_LEN;
    if value.len() > room {
        return Err(format!(
            "{} {} do not fit in an authority record, {room} do",
            value.len(),
            nodes.name
        ));
    }
    put_len(block, count, value.len());
    let bytes: Vec<u8> = value.iter().flat_map(|node| node.0.to_le_bytes()).collect();
    nodes.put_first(block, &bytes);
    Ok(())
}

/// `None` for bytes that verify and that no [`encode`] wrote.
fn decode(block: &[u8]) -> Option<(Owner, Entry)> {
    let flags = FLAGS.u32(block);
    let owner = Owner {
        cluster: CLUSTER.u128(block),
        node: NodeId(NODE.u128(block)),
        journal: Identity {
            journal: JournalId(JOURNAL.array(block)),
            generation: Generation(GENERATION.u32(block)),
        },
    };
    let authority = |epoch: Field, id: Field, node: Field| {
        let node = NodeId(node.u128(block));
        (Epoch(epoch.u64(block)), EpochId(id.u128(block)), node)
    };
    let history = HISTORY.bytes(block).chunks_exact(START_LEN);
    let reason = REASON.bytes(block).get(..len(block, REASON_LEN))?;
    let record = Record {
        promised: authority(PROMISED, PROMISED_ID, ASKER),
        granted: authority(GRANTED, GRANTED_ID, HOLDER),
        holders: nodes(block, HOLDERS_COUNT, HOLDERS)?,
        start: (flags & HAS_START != 0).then(|| start(START.bytes(block))),
        previous_end: Position {
            epoch: Epoch(PREVIOUS_EPOCH.u64(block)),
            lsn: Lsn::new(PREVIOUS_LSN.u64(block)),
        },
        config: config(block, flags & HAS_REPLACED != 0)?,
        is_amnesiac: flags & IS_AMNESIAC != 0,
        reason: str::from_utf8(reason).ok()?.to_owned(),
    };
    let entry = Entry {
        sequence: SEQUENCE.u64(block),
        record,
        history: history.take(len(block, HISTORY_COUNT)).map(start).collect(),
        birth: BIRTH.u128(block),
        written: Timestamp::from_nanos(WRITTEN.u64(block)),
        predecessor: Digest(PREDECESSOR.array(block)),
    };
    Some((owner, entry))
}

fn config(block: &[u8], has_replaced: bool) -> Option<Config> {
    let previous = if has_replaced {
        Some(Replaced {
            members: nodes(block, REPLACED_COUNT, REPLACED)?,
            mode: mode(block, REPLACED_MODE, REPLACED_COPIES)?,
        })
    } else {
        None
    };
    Some(Config {
        version: Version {
            epoch: Epoch(CONFIG_EPOCH.u64(block)),
            number: CONFIG_NUMBER.u64(block),
        },
        members: nodes(block, MEMBERS_COUNT, MEMBERS)?,
        mode: mode(block, MODE, MODE_COPIES)?,
        policy: match POLICY.u32(block) {
            REFUSE => Policy::Refuse,
            WAIT => Policy::Wait,
            _ => return None,
        },
        previous,
    })
}

fn mode(block: &[u8], mode: Field, copies: Field) -> Option<Mode> {
    match mode.u32(block) {
        ASYNC => Some(Mode::Async),
        SYNC => Some(Mode::Sync(copies.u32(block))),
        ALL => Some(Mode::All),
        _ => None,
    }
}

fn nodes(block: &[u8], count: Field, nodes: Field) -> Option<BTreeSet<NodeId>> {
    let bytes = nodes.bytes(block);
    let bytes = bytes.get(..len(block, count).checked_mul(NODE_LEN)?)?;
    let ids = bytes.chunks_exact(NODE_LEN).map(|id| {
        let mut array = [0; NODE_LEN];
        array.copy_from_slice(id);
        NodeId(u128::from_le_bytes(array))
    });
    Some(ids.collect())
}

fn start_bytes(start: EpochStart) -> [u8; START_LEN] {
    let mut bytes = [0; START_LEN];
    bytes[..8].copy_from_slice(&start.epoch.0.to_le_bytes());
    bytes[8..24].copy_from_slice(&start.id.0.to_le_bytes());
    bytes[24..].copy_from_slice(&start.first.get().to_le_bytes());
    bytes
}

fn start(bytes: &[u8]) -> EpochStart {
    const EPOCH: Field = Field::new("epoch", 0, 8);
    const ID: Field = Field::new("id", 8, 16);
    const FIRST: Field = Field::new("first record", 24, 8);
    EpochStart {
        epoch: Epoch(EPOCH.u64(bytes)),
        id: EpochId(ID.u128(bytes)),
        first: Lsn::new(FIRST.u64(bytes)),
    }
}

/// A count; one that no memory has is more than any field has room for.
fn len(block: &[u8], field: Field) -> usize {
    usize::try_from(field.u32(block)).unwrap_or(usize::MAX)
}

fn put_len(block: &mut [u8], field: Field, len: usize) {
    let len = u32::try_from(len).expect("counts are bounded by the room of a page");
    put_u32(block, field, len);
}

fn put_u32(block: &mut [u8], field: Field, value: u32) {
    field.put(block, &value.to_le_bytes());
}

fn put_u64(block: &mut [u8], field: Field, value: u64) {
    field.put(block, &value.to_le_bytes());
}

fn put_u128(block: &mut [u8], field: Field, value: u128) {
    field.put(block, &value.to_le_bytes());
}
