//! The first record of an epoch: whose it is. The history of a log is made of these.

use wal::{Epoch, Lsn, RecordKind};

use super::{EpochId, EpochStart, NodeId};

/// Number, id and holder of an epoch. Readers of a journal pass over it, as over [`RecordKind::RESET`].
pub const ANNOUNCEMENT: RecordKind = RecordKind(254);

const LEN: usize = 8 + 16 + 16;

/// Little-endian: epoch 8 bytes, id 16, holder 16.
pub fn announce(epoch: Epoch, id: EpochId, holder: NodeId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend_from_slice(&epoch.0.to_le_bytes());
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes.extend_from_slice(&holder.0.to_le_bytes());
    bytes
}

/// What a record of this kind at `first` announces. `None`: it is none.
pub fn announced(first: Lsn, bytes: &[u8]) -> Option<(EpochStart, NodeId)> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let (epoch, rest) = bytes.split_first_chunk()?;
    let (id, holder) = rest.split_first_chunk()?;
    let epoch = Epoch(u64::from_le_bytes(*epoch));
    let id = EpochId(u128::from_le_bytes(*id));
    let holder = NodeId(u128::from_le_bytes(holder.try_into().ok()?));
    Some((EpochStart { epoch, id, first }, holder))
}
