//! What a base says of itself, its first part: whose it is, up to where, and its files.
//!
//! Files are named by what they are, never by a path: what comes from another machine cannot name a
//! place outside of the directory it is meant for. All other parts are the files one after the other,
//! cut into equal pieces, each with its checksum. The byte map is in docs/format/store.md.

use std::path::Path;

use wal::Lsn;

use crate::{
    Error, Kind,
    cursor::Cursor,
    index::CURRENT_FILE,
    manifest::{self, Identity, Manifest},
};

pub(crate) const MAGIC: [u8; 8] = *b"HDFSTBAS";
pub(crate) const FILE_ENTRY_LEN: usize = 37;
/// Bytes of files in a part; what is sent again when a transfer is cut, and held in memory on both
/// sides. Arbitrary.
pub(crate) const PART_BYTES: u64 = 1 << 20;
/// A hundred thousand files and more; the first part is one message.
const DESCRIPTION_LEN_MAX: usize = 16 << 20;
pub(crate) const CHECKSUM_LEN: usize = 4;

const FULL: u8 = 0;
const CHANGES: u8 = 1;

/// What a file of a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// Of a tree: names its newest list of files.
    Current { tree: u32 },
    /// Of a tree: a list of its files.
    List { tree: u32, number: u64 },
    /// Of a tree: a table file.
    Table { tree: u32, number: u64 },
    /// What changed, of all trees.
    Changes,
}

/// A file of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseFile {
    pub(crate) name: FileName,
    pub(crate) len: u64,
    /// XXH3-128. Of a table file it is what the table library noted when it wrote it.
    pub(crate) checksum: u128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// The files hold only what changed above here.
    pub(crate) since: Option<Lsn>,
    /// No file holds anything above.
    pub(crate) reaches: Lsn,
    pub(crate) identity: Identity,
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<BaseFile>,
}

/// A piece of a file that is in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index among the files.
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

impl FileName {
    /// Below a directory of trees.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Current { tree } => format!("{tree}/{CURRENT_FILE}"),
            Self::List { tree, number } => format!("{tree}/v{number}"),
            Self::Table { tree, number } => format!("{tree}/tables/{number}"),
            Self::Changes => "changes".to_owned(),
        }
    }

    fn fields(self) -> (u8, u32, u64) {
        match self {
            Self::Current { tree } => (0, tree, 0),
            Self::List { tree, number } => (1, tree, number),
            Self::Table { tree, number } => (2, tree, number),
            Self::Changes => (3, 0, 0),
        }
    }

    fn of_fields(kind: u8, tree: u32, number: u64) -> Option<Self> {
        Some(match kind {
            0 => Self::Current { tree },
            1 => Self::List { tree, number },
            2 => Self::Table { tree, number },
            3 => Self::Changes,
            _ => return None,
        })
    }
}

impl BaseFile {
    /// Relative to the tables of the store.
    pub fn path(&self) -> String {
        self.name.path()
    }

    pub fn bytes(&self) -> u64 {
        self.len
    }
}

impl Description {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let (kind, since) = match self.since {
            None => (FULL, Lsn::ZERO),
            Some(since) => (CHANGES, since),
        };
        let manifest = self.manifest.encode();
        let mut body = vec![kind];
        body.extend_from_slice(&since.get().to_le_bytes());
        body.extend_from_slice(&self.reaches.get().to_le_bytes());
        body.extend_from_slice(&self.identity.encode());
        body.extend_from_slice(&len_u32(manifest.len()).to_le_bytes());
        body.extend_from_slice(&manifest);
        let entries = self.files.len() * FILE_ENTRY_LEN;
        if body.len() + entries > DESCRIPTION_LEN_MAX {
            let message = format!(
                "a base of {} files cannot be described in {DESCRIPTION_LEN_MAX} bytes",
                self.files.len()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        body.extend_from_slice(&len_u32(self.files.len()).to_le_bytes());
        for file in &self.files {
            let (kind, tree, number) = file.name.fields();
            body.push(kind);
            body.extend_from_slice(&tree.to_le_bytes());
            body.extend_from_slice(&number.to_le_bytes());
            body.extend_from_slice(&file.len.to_le_bytes());
            body.extend_from_slice(&file.checksum.to_le_bytes());
        }
        Ok(manifest::frame(MAGIC, &body))
    }

    /// `at` is where it lies, or what it came as, for the error.
    pub(crate) fn decode(bytes: &[u8], at: &Path) -> Result<Self, Error> {
        let body = manifest::unframe(bytes, MAGIC, at)?;
        let description =
            decode_body(body).ok_or_else(|| manifest::corrupt(at, "does not decode"))?;
        // Lengths come from elsewhere: what is added up later must not overflow.
        let mut lens = description.files.iter().map(|file| file.len);
        let total = lens.try_fold(0u64, u64::checked_add);
        match total.map(|total| u32::try_from(total.div_ceil(PART_BYTES)).map(|n| n < u32::MAX)) {
            Some(Ok(true)) => Ok(description),
            _ => Err(manifest::corrupt(at, "names files that cannot be so long")),
        }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// How many parts there are, this description among them.
    pub(crate) fn parts(&self) -> u32 {
        let pieces = u32::try_from(self.bytes().div_ceil(PART_BYTES));
        pieces.expect("bounded when it was made or decoded") + 1
    }

    /// The pieces of files in part `index`, which is not the first.
    pub(crate) fn pieces(&self, index: u32) -> Vec<Piece> {
        let from = u64::from(index - 1) * PART_BYTES;
        let to = from + PART_BYTES;
        let mut pieces = Vec::new();
        let mut end = 0;
        for (file, entry) in self.files.iter().enumerate() {
            let start = end;
            end += entry.len;
            let (first, last) = (start.max(from), end.min(to));
            if first < last {
                pieces.push(Piece {
                    file,
                    offset: first - start,
                    len: usize::try_from(last - first).expect("at most a part"),
                });
            }
        }
        pieces
    }
}

fn decode_body(body: &[u8]) -> Option<Description> {
    let mut cursor = Cursor::new(body);
    let kind = cursor.u8()?;
    let since = Lsn::new(cursor.u64()?);
    let since = match kind {
        FULL => None,
        CHANGES => Some(since),
        _ => return None,
    };
    let reaches = Lsn::new(cursor.u64()?);
    let identity = Identity::decode(&mut cursor)?;
    let len = usize::try_from(cursor.u32()?).ok()?;
    let manifest = Manifest::decode(cursor.take(len)?)?;
    let count = usize::try_from(cursor.u32()?).ok()?;
    // Before the allocation: each takes its entry.
    if count != cursor.len() / FILE_ENTRY_LEN {
        return None;
    }
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        files.push(BaseFile {
            name: FileName::of_fields(cursor.u8()?, cursor.u32()?, cursor.u64()?)?,
            len: cursor.u64()?,
            checksum: u128::from_le_bytes(cursor.array()?),
        });
    }
    cursor.is_empty().then_some(Description {
        since,
        reaches,
        identity,
        manifest,
        files,
    })
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a description is bounded")
}
