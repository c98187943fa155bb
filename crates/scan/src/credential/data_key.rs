//! The data key: 32 random bytes in a file of their own, under which everything secret is sealed.
//!
//! The file has mode 0600 from the moment it exists, in a directory of mode 0700: `world::Disk` makes
//! both so. It is read when something is sealed or opened and not kept in memory in between.
//! Commands work on the store of a running `up`, so one may rotate while another one opens: who rotates
//! holds a lock, and who opens only makes a next key current that is in use.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hkdf::Hkdf;
use sha2::Sha256;
use world::{Disk, Random, disk::Lock};
use zeroize::Zeroizing;

use crate::inventory::{Error, Kind};

const KEY_LEN: usize = 32;
/// Name of the key below the keys of the data directory.
pub const NAME: &str = "data.key";
/// The key that a rotation goes to, until everything is sealed under it.
pub const NEXT_NAME: &str = "data.key.next";
/// Held while the key is rotated.
const LOCK_NAME: &str = "data.key.lock";

/// A key in memory, wiped when it is dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; KEY_LEN]>);

impl DataKey {
    pub(super) fn random(random: &dyn Random) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random
            .fill(key.as_mut_slice())
            .map_err(|error| Error::new(Kind::Storage, "no random bytes").with_source(error))?;
        Ok(Self(key))
    }

    /// From the bytes of a key file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        (bytes.len() == KEY_LEN).then(|| {
            key.copy_from_slice(bytes);
            Self(key)
        })
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Names the key without telling anything of it: rows say by this what they are sealed under.
    pub fn id(&self) -> String {
        use fmt::Write;
        self.derive("holdfast data key id")[..8]
            .iter()
            .fold(String::new(), |mut id, byte| {
                write!(id, "{byte:02x}").expect("writing to a string");
                id
            })
    }

    /// A key for another purpose, by HKDF-SHA256: whoever has it cannot come back to this one.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_LEN]> {
        let mut derived = Zeroizing::new([0; KEY_LEN]);
        Hkdf::<Sha256>::new(None, self.0.as_slice())
            .expand(purpose.as_bytes(), derived.as_mut_slice())
            .expect("32 bytes are far below what HKDF-SHA256 expands to");
        derived
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// The files that hold the key and, amid a rotation, the next one.
#[derive(Clone, Debug)]
pub(super) struct KeyFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl KeyFiles {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    pub(super) fn current(&self) -> Result<Option<DataKey>, Error> {
        self.read(&self.path())
    }

    pub(super) fn next(&self) -> Result<Option<DataKey>, Error> {
        self.read(&self.dir.join(NEXT_NAME))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    pub(super) fn lock(&self) -> Result<Box<dyn Lock>, Error> {
        let path = self.dir.join(LOCK_NAME);
        self.disk
            .create_dir_all_synced(&self.dir)
            .and_then(|()| self.disk.lock(&path, "holdfast"))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Error::new(
                    Kind::Conflict,
                    "the data key is being rotated by another command",
                ),
                _ => failed("locking", &path, error),
            })
    }

    pub(super) fn write(&self, key: &DataKey) -> Result<(), Error> {
        self.replace(&self.path(), key)
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        let path = self.path();
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| failed("removing", &path, error))
    }

    pub(super) fn write_next(&self, key: &DataKey) -> Result<(), Error> {
        self.replace(&self.dir.join(NEXT_NAME), key)
    }

    /// The next key becomes the key. A rename within one directory: a crash leaves either name.
    pub(super) fn promote(&self) -> Result<(), Error> {
        let next = self.dir.join(NEXT_NAME);
        let renamed = match self.disk.rename(&next, &self.path()) {
            // Whoever opened something meanwhile did it: nobody drops a key that is in use.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        };
        renamed
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| failed("making current", &next, error))
    }

    pub(super) fn drop_next(&self) -> Result<(), Error> {
        let next = self.dir.join(NEXT_NAME);
        self.disk
            .remove_file(&next)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|error| failed("removing", &next, error))
    }

    fn read(&self, path: &Path) -> Result<Option<DataKey>, Error> {
        let bytes = match self.disk.read(path, KEY_LEN as u64) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(not_a_key(path));
            }
            Err(error) => return Err(failed("reading", path, error)),
        };
        DataKey::of(&bytes).map(Some).ok_or_else(|| not_a_key(path))
    }

    fn replace(&self, path: &Path, key: &DataKey) -> Result<(), Error> {
        self.disk
            .create_dir_all_synced(&self.dir)
            .and_then(|()| self.disk.replace(path, key.bytes()))
            .map_err(|error| failed("writing", path, error))
    }
}

fn not_a_key(path: &Path) -> Error {
    let message = format!("{} is not a data key of {KEY_LEN} bytes", path.display());
    Error::new(Kind::Sealed, message)
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::new(
        Kind::Storage,
        format!("{doing} the data key {}", path.display()),
    )
    .with_source(error)
}
