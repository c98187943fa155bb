//! The keys of the site, on every node: what a node that is promoted opens credentials and signs with.
//!
//! A node says which keys it has, by ids that tell nothing of them. One that follows asks the holder for
//! what it lacks, and whoever else has a key that its rows need; it is given that over the connections
//! between nodes and puts it into `node/keys`, its *ring*. A key comes out of the ring into `keys/` when
//! the rows here need it, so the files and the rows of a node change together. A rotation
//! waits until every member has the next key ([`Keys::are_carried`]) and only then uses it: no row
//! is ever written under a key that one machine alone has.
//!
//! A key leaves the ring of the holder once no row needs it, and that of another node once the holder has it no
//! more either: an old key that lies about opens old copies of the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use replica::machine::NodeId;
use scan::{
    credential::{self, DATA_KEY_FILE, DataKey, NEXT_DATA_KEY_FILE, Vault},
    policy::{KEY_FILE as POLICY_KEY_FILE, PrivateKey, PublicKey},
    seal::{Book as Statements, key as ledger_key},
};
use serde::{Deserialize, Serialize};
use store::Store;
use world::{Disk, RealDisk};
use zeroize::Zeroizing;

use super::{dir, invitation::Secret};

/// Keys of a site, by their files.
pub(super) const SITE_KEYS: [&str; 3] = [DATA_KEY_FILE, ledger_key::KEY_FILE, POLICY_KEY_FILE];
/// Of a key file.
pub(super) const KEY_LEN_MAX: u64 = 4096;
/// In the data directory's `node`.
const RING: &str = "keys";
/// Beside the others.
const POLICY_KEY_BEFORE: &str = "policy.key.before";
/// Keys in the ring; a rotation takes one and gives one back.
const RING_MAX: usize = 32;

/// Which key, and of what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct KeyName {
    /// As its file is called in `keys/`.
    file: String,
    id: String,
}

/// What a node says of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// In `keys/`.
    current: BTreeSet<KeyName>,
    /// In the ring, or where a rotation puts the next one.
    other: BTreeSet<KeyName>,
}

/// A key on its way.
#[derive(Serialize, Deserialize)]
pub(super) struct Carried {
    #[serde(flatten)]
    name: KeyName,
    bytes: Secret,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a running node knows of keys, here and elsewhere.
#[derive(Debug)]
pub(crate) struct Keys {
    keys: PathBuf,
    ring: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    own: Held,
    of: BTreeMap<NodeId, Held>,
    asked: BTreeSet<(NodeId, KeyName)>,
    /// By the rows that are applied here.
    needed: BTreeSet<KeyName>,
    /// All rows that need one were read.
    is_known: bool,
}

impl Held {
    fn all(&self) -> impl Iterator<Item = &KeyName> {
        self.current.union(&self.other)
    }

    fn has(&self, name: &KeyName) -> bool {
        self.current.contains(name) || self.other.contains(name)
    }
}

impl Keys {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            keys: data.join(credential::KEYS_DIR),
            ring: dir(data).join(RING),
            known: Mutex::default(),
        }
    }

    /// Looks at the files: what this node has.
    pub(super) fn look(&self) -> Held {
        let mut held = Held::default();
        for file in SITE_KEYS {
            held.current
                .extend(read(&self.keys.join(file), file).map(|(name, _)| name));
        }
        for (next, file) in [
            (NEXT_DATA_KEY_FILE, DATA_KEY_FILE),
            (ledger_key::NEXT_FILE, ledger_key::KEY_FILE),
        ] {
            held.other
                .extend(read(&self.keys.join(next), file).map(|(name, _)| name));
        }
        held.other.extend(self.ring());
        self.known().own = held.clone();
        held
    }

    /// What another node has.
    pub(super) fn heard(&self, peer: NodeId, held: Held) {
        self.known().of.insert(peer, held);
    }

    /// What to ask of `peer`: what it has and this node has not, where it is the holder, and else what
    /// the rows here need.
    pub(super) fn wanted(&self, peer: NodeId, is_holder: bool) -> Vec<KeyName> {
        let mut known = self.known();
        let Some(theirs) = known.of.get(&peer) else {
            return Vec::new();
        };
        let wanted: Vec<KeyName> = theirs
            .all()
            .filter(|name| !known.own.has(name) && SITE_KEYS.contains(&name.file.as_str()))
            .filter(|name| is_holder || known.needed.contains(name))
            .take(RING_MAX)
            .cloned()
            .collect();
        known.asked.retain(|(asked, _)| *asked != peer);
        let asked = wanted.iter().map(|name| (peer, name.clone()));
        known.asked.extend(asked);
        wanted
    }

    /// The bytes of what another node asked for.
    pub(super) fn given(&self, wanted: &[KeyName]) -> Vec<Carried> {
        let wanted = wanted.iter().take(RING_MAX);
        wanted
            .filter_map(|name| self.find(name))
            .map(|(name, bytes)| Carried {
                name,
                bytes: Secret(Zeroizing::new(STANDARD.encode(&bytes[..]))),
            })
            .collect()
    }

    /// Puts into the ring what was asked for and is what it says it is.
    pub(super) fn take(&self, peer: NodeId, carried: &[Carried]) -> io::Result<()> {
        for key in carried {
            if !self.known().asked.remove(&(peer, key.name.clone())) {
                continue;
            }
            let Ok(bytes) = STANDARD.decode(key.bytes.0.as_bytes()).map(Zeroizing::new) else {
                continue;
            };
            if name_of(&key.name.file, &bytes).as_ref() != Some(&key.name) {
                tracing::warn!(
                    file = key.name.file,
                    "another node sent a key that is not what it said"
                );
                continue;
            }
            if self.ring().len() >= RING_MAX {
                tracing::warn!(ring = %self.ring.display(), "the ring of keys is full");
                continue;
            }
            RealDisk.create_dir_all_synced(&self.ring)?;
            RealDisk.replace(&self.in_ring(&key.name), &bytes)?;
            tracing::info!(
                file = key.name.file,
                id = key.name.id,
                "a key of the site came"
            );
        }
        Ok(())
    }

    /// Which keys the rows need, as far as they are applied here. What does not read is not needed.
    pub(super) fn need(&self, store: &Store) {
        let mut needed = BTreeSet::new();
        let name = |file: &str, id: String| KeyName {
            file: file.to_owned(),
            id,
        };
        let random = std::sync::Arc::new(world::RealRandom);
        let disk = std::sync::Arc::new(RealDisk);
        let vault = Vault::new(store.clone(), disk, random, self.keys.clone());
        let sealed = vault.and_then(|vault| vault.list());
        let is_read = sealed.is_ok();
        if let Ok(sealed) = sealed {
            needed.extend(
                sealed
                    .into_iter()
                    .map(|it| name(DATA_KEY_FILE, it.data_key)),
            );
        }
        let signed_by = Statements::new(store.clone()).and_then(|book| book.signed_by());
        let is_known = is_read && signed_by.is_ok();
        let key = signed_by
            .ok()
            .flatten()
            .and_then(|key| PublicKey::parse(&key));
        needed.extend(key.map(|key| name(ledger_key::KEY_FILE, key.id().to_string())));
        let mut known = self.known();
        (known.needed, known.is_known) = (needed, is_known);
    }

    /// On the node that writes, of whose ring the others keep what is in it: what no row needs goes, once all
    /// that is needed is in `keys/`. The next key of a rotation lies elsewhere.
    pub(super) fn prune(&self) -> io::Result<()> {
        let held = self.look();
        let (needed, is_known) = {
            let known = self.known();
            (known.needed.clone(), known.is_known)
        };
        let is_settled = needed.iter().all(|name| held.current.contains(name));
        if is_known && is_settled && !needed.is_empty() {
            for name in self.ring().difference(&needed) {
                self.drop_from_ring(name)?;
            }
        }
        Ok(())
    }

    fn drop_from_ring(&self, name: &KeyName) -> io::Result<()> {
        RealDisk.remove_file(&self.in_ring(name))?;
        RealDisk.sync_dir(&self.ring)
    }

    /// Makes the keys that the rows need, and the holder's key for policies, those of this node. Only on
    /// a node that follows: where it is written, commands change keys.
    pub(super) fn settle(&self, holder: Option<NodeId>) -> io::Result<()> {
        let (needed, theirs) = {
            let known = self.known();
            let theirs = holder.and_then(|holder| known.of.get(&holder).cloned());
            let of_policy = |name: &&KeyName| name.file == POLICY_KEY_FILE;
            let policy = theirs
                .iter()
                .flat_map(|held| held.current.iter().filter(of_policy));
            let needed: BTreeSet<KeyName> = known.needed.iter().chain(policy).cloned().collect();
            (needed, theirs)
        };
        let held = self.look();
        for name in needed.iter().filter(|name| !held.current.contains(name)) {
            let Some((_, bytes)) = self.find(name) else {
                continue;
            };
            let path = self.keys.join(&name.file);
            if let Some((before, bytes)) = read(&path, &name.file) {
                // Until the holder says that it is gone: what was applied may have to be undone. A key that
                // signed policies here is whoever made it's to throw away.
                let aside = match before.file == POLICY_KEY_FILE {
                    true => self.keys.join(POLICY_KEY_BEFORE),
                    false => self.in_ring(&before),
                };
                RealDisk.create_dir_all_synced(&self.ring)?;
                RealDisk.replace(&aside, &bytes)?;
            }
            RealDisk.create_dir_all_synced(&self.keys)?;
            RealDisk.replace(&path, &bytes)?;
            tracing::info!(
                file = name.file,
                id = name.id,
                "a key of the site is in force here"
            );
        }
        let Some(theirs) = theirs else { return Ok(()) };
        for name in self.ring() {
            let is_kept = theirs.has(&name) || needed.contains(&name);
            if !is_kept && !needed.is_empty() && needed.iter().all(|it| held.current.contains(it)) {
                self.drop_from_ring(&name)?;
            }
        }
        Ok(())
    }

    /// Keys that the rows need and this node has not, in words; empty where it could write.
    pub(crate) fn missing(&self, name_of: impl Fn(NodeId) -> String) -> Vec<String> {
        let known = self.known();
        let missing = known.needed.iter().filter(|name| !known.own.has(name));
        missing
            .map(|name| {
                let has = known.of.iter().filter(|(_, held)| held.has(name));
                let at: Vec<String> = has.map(|(node, _)| name_of(*node)).collect();
                let at = match at.is_empty() {
                    true => "no node that was heard has it".to_owned(),
                    false => format!("{} has it", at.join(", ")),
                };
                format!(
                    "keys/{} with the id {} is not here; {at}",
                    name.file, name.id
                )
            })
            .collect()
    }

    /// Whether `node` has every key of this one, as far as it said.
    pub(super) fn are_carried(&self, node: NodeId) -> bool {
        let known = self.known();
        let theirs = known.of.get(&node);
        theirs.is_some_and(|theirs| known.own.all().all(|name| theirs.has(name)))
    }

    fn find(&self, name: &KeyName) -> Option<(KeyName, Zeroizing<Vec<u8>>)> {
        let next = match name.file.as_str() {
            DATA_KEY_FILE => NEXT_DATA_KEY_FILE,
            ledger_key::KEY_FILE => ledger_key::NEXT_FILE,
            POLICY_KEY_FILE => POLICY_KEY_FILE,
            _ => return None,
        };
        let places = [
            self.keys.join(&name.file),
            self.keys.join(next),
            self.in_ring(name),
        ];
        let found = places.iter().filter_map(|path| read(path, &name.file));
        found.into_iter().find(|(found, _)| found == name)
    }

    fn ring(&self) -> BTreeSet<KeyName> {
        let entries = RealDisk.list(&self.ring).unwrap_or_default();
        let files = entries.into_iter().filter_map(|entry| {
            let file = SITE_KEYS
                .iter()
                .find(|file| entry.name.starts_with(**file))?;
            read(&self.ring.join(&entry.name), file)
        });
        files.map(|(name, _)| name).collect()
    }

    fn in_ring(&self, name: &KeyName) -> PathBuf {
        self.ring.join(format!("{}.{}", name.file, name.id))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

/// A key file, with the name of what is in it; `None` where there is none that reads.
fn read(path: &Path, file: &str) -> Option<(KeyName, Zeroizing<Vec<u8>>)> {
    let bytes = RealDisk.read(path, KEY_LEN_MAX).ok().map(Zeroizing::new)?;
    name_of(file, &bytes).map(|name| (name, bytes))
}

fn name_of(file: &str, bytes: &[u8]) -> Option<KeyName> {
    let id = match file {
        DATA_KEY_FILE => DataKey::of(bytes)?.id(),
        ledger_key::KEY_FILE | POLICY_KEY_FILE => {
            let key = PrivateKey::from_pem(std::str::from_utf8(bytes).ok()?)?;
            key.public().id().to_string()
        }
        _ => return None,
    };
    Some(KeyName {
        file: file.to_owned(),
        id,
    })
}
