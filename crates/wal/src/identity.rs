//! The identity file: which journal this is, for ever, and in which generation.
//!
//! It is the last file that creating a journal writes. So its presence means that creation was
//! complete, and whatever is missing beside it was lost, not never made.

use std::path::Path;

use world::{Disk, Random};

use crate::{
    Birth, Cause, Error, Generation, Identity, JournalId,
    block::{self, Fault, Field, GENERATION, JOURNAL},
};

pub(crate) const NAME: &str = "identity";
pub(crate) const LEN: usize = 64;
pub(crate) const MAGIC: [u8; 8] = *b"HFIDENT\0";

/// Zeros in a journal that was made by a program which gave none.
pub(crate) const BIRTH: Field = Field::new("birth", 40, 16);

#[cfg(test)]
pub(crate) const MAP: [Field; 6] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    JOURNAL,
    GENERATION,
    BIRTH,
];

/// A first life. An operator reset makes the next generation of the same journal.
pub(crate) fn new(random: &dyn Random) -> Result<Identity, Error> {
    let mut journal = [0; 16];
    random
        .fill(&mut journal)
        .map_err(|source| Error::io("draw a journal identity", "", source))?;
    Ok(Identity {
        journal: JournalId(journal),
        generation: Generation(1),
    })
}

/// Drawn anew for each log, so never zero but by a chance of 2^-128.
pub(crate) fn born(random: &dyn Random) -> Result<Birth, Error> {
    let mut birth = [0; 16];
    random
        .fill(&mut birth)
        .map_err(|source| Error::io("draw the birth of a log", "", source))?;
    Ok(Birth(u128::from_le_bytes(birth)))
}

pub(crate) fn encode(identity: Identity, birth: Option<Birth>) -> [u8; LEN] {
    let mut block = [0; LEN];
    put(&mut block, identity);
    put_birth(&mut block, BIRTH, birth);
    block::seal(&mut block, MAGIC);
    block
}

pub(crate) fn put_birth(block: &mut [u8], field: Field, birth: Option<Birth>) {
    field.put(block, &birth.map_or(0, |birth| birth.0).to_le_bytes());
}

pub(crate) fn get_birth(block: &[u8], field: Field) -> Option<Birth> {
    match u128::from_le_bytes(field.array(block)) {
        0 => None,
        birth => Some(Birth(birth)),
    }
}

/// `None` when there is no identity file.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, Error> {
    Ok(read_born(disk, dir)?.map(|(identity, _)| identity))
}

/// Like [`read`], and which log it is.
pub(crate) fn read_born(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<(Identity, Option<Birth>)>, Error> {
    let path = dir.join(NAME);
    let damaged = |why: &str| {
        Error::recovery(
            Cause::IdentityMismatch,
            format!("identity file does not verify: {why}"),
        )
        .with_path(&path)
    };
    let stat = disk
        .stat(&path)
        .map_err(|source| Error::io("look for the identity file", &path, source))?;
    let Some(entry) = stat else { return Ok(None) };
    if entry.len != LEN as u64 {
        return Err(damaged("wrong length"));
    }
    let block = disk
        .read(&path, LEN as u64)
        .map_err(|source| Error::io("read the identity file", &path, source))?;
    match block::verify(&block, MAGIC) {
        Ok(()) => Ok(Some((get(&block), get_birth(&block, BIRTH)))),
        Err(Fault::Damaged) => Err(damaged("checksum")),
        Err(Fault::Version(version)) => Err(Error::version(version).with_path(&path)),
    }
}

pub(crate) fn put(block: &mut [u8], identity: Identity) {
    JOURNAL.put(block, &identity.journal.0);
    GENERATION.put_u32(block, identity.generation.0);
}

pub(crate) fn get(block: &[u8]) -> Identity {
    Identity {
        journal: JournalId(JOURNAL.array(block)),
        generation: Generation(GENERATION.u32(block)),
    }
}

/// The error when a file verifies and belongs to another journal or another generation.
pub(crate) fn check(block: &[u8], expected: Identity, path: &Path) -> Result<(), Error> {
    check_same(get(block), expected, path)
}

pub(crate) fn check_same(found: Identity, expected: Identity, path: &Path) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    let message = format!(
        "belongs to journal {} generation {}, expected {} generation {}",
        found.journal, found.generation.0, expected.journal, expected.generation.0
    );
    Err(Error::recovery(Cause::IdentityMismatch, message).with_path(path))
}
