//! `node/node.json`: who this node is, and where the others are.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use replica::machine::NodeId;
use serde::{Deserialize, Serialize};
use wal::{Generation, Identity, JournalId};
use world::{Clock, Disk, Random, RealClock, RealDisk, RealRandom, disk::Lock};

use super::{cannot, dir, write};
use crate::exit::Refusal;

const FILE: &str = "node.json";
/// All members and all that were removed, with room.
const LEN_MAX: u64 = 1 << 20;
/// Held while the file is changed: commands and the running node do.
const LOCK: &str = "node.lock";
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Each has a connection to each other one.
pub(crate) const MEMBERS_MAX: usize = 32;
/// They are remembered for ever; a node a week for ten years.
pub(crate) const REMOVED_MAX: usize = 512;
/// Names stand in messages, columns and file names.
const NAME_LEN_MAX: usize = 64;

pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.chars().all(is_plain)
}

/// Whether others can reach a node at `address`: they are told it as it is.
pub(crate) fn check_address(address: SocketAddr) -> Result<(), Refusal> {
    if !address.ip().is_unspecified() && address.port() != 0 {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "{address} is no address at which other nodes reach this one"
    ))
    .next("name one of the machine's own addresses, and a port that is not 0"))
}

/// A node of the cluster, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// One more with each change of this entry.
    pub(crate) number: u64,
    /// It made the cluster, as far as this node was told: it has the key that signs certificates.
    pub(crate) is_founder: bool,
}

/// A node that was one once: its id never comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) node: NodeId,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cluster: u128,
    pub(crate) node: NodeId,
    pub(crate) listen: SocketAddr,
    pub(crate) journal: Identity,
    /// It made the cluster.
    pub(crate) is_founder: bool,
    /// This node among them.
    pub(crate) members: Vec<Member>,
    pub(crate) removed: Vec<Removed>,
}

/// As it is written: numbers as people read them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    cluster: String,
    node: String,
    listen: SocketAddr,
    journal: String,
    generation: u32,
    is_founder: bool,
    members: Vec<WrittenMember>,
    #[serde(default)]
    removed: Vec<WrittenRemoved>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMember {
    node: String,
    name: String,
    address: SocketAddr,
    #[serde(default = "first")]
    number: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    is_founder: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRemoved {
    node: String,
    name: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What earlier programs wrote has no numbers.
const fn first() -> u64 {
    1
}

impl Written {
    /// Its own.
    pub(super) fn name(&self) -> &str {
        let own = self.members.iter().find(|member| member.node == self.node);
        own.map_or("", |member| &member.name)
    }
}

/// A random number for a node or a cluster.
pub(crate) fn draw() -> Result<u128, Refusal> {
    let mut bytes = [0; 16];
    RealRandom.fill(&mut bytes).map_err(|error| {
        Refusal::new(format!("a random number cannot be drawn: {error}")).next("try again")
    })?;
    Ok(u128::from_le_bytes(bytes))
}

impl Settings {
    /// Those in `data`; `None` where the site is one machine's.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, Refusal> {
        let path = dir(data).join(FILE);
        let found = RealDisk
            .stat(&path)
            .map_err(|error| cannot("look for", &path, &error))?;
        if found.is_none() {
            return Ok(None);
        }
        let bytes = RealDisk
            .read(&path, LEN_MAX)
            .map_err(|error| cannot("read", &path, &error))?;
        let written = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
        written.and_then(Self::of).map(Some).map_err(|what| {
            Refusal::new(format!("{} is damaged: {what}", path.display()))
                .next("restore it from a backup; where there is none, `holdfast group remove` and `holdfast node remove` this node where the site is written, and invite it under another name")
        })
    }

    pub(crate) fn save(&self, data: &Path) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(&self.written())
            .map_err(|error| Refusal::new("node.json cannot be written").source(error))?;
        write(&dir(data).join(FILE), &text)
    }

    /// Those in `data`, with the address where this node listens from here on: `asked`, or what the file
    /// says. Where it is another one than before, its own entry gets a higher number, and the others
    /// hear of it.
    pub(crate) fn load_listening(
        data: &Path,
        asked: Option<SocketAddr>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(found) = Self::load(data)? else {
            return match asked {
                None => Ok(None),
                Some(_) => Err(Refusal::new("no other nodes know this site")
                    .next("`holdfast node init NAME --listen ADDRESS` makes it a node")),
            };
        };
        asked.map_or(Ok(()), check_address)?;
        let listen = asked.unwrap_or(found.listen);
        let is_there = |member: &Member| member.node == found.node && member.address == listen;
        if found.listen == listen && found.members.iter().any(is_there) {
            return Ok(Some(found));
        }
        let ((), changed) = Self::change(data, |settings| {
            settings.listen = listen;
            let own = settings.node;
            for member in settings.members.iter_mut().filter(|it| it.node == own) {
                if member.address != listen {
                    member.address = listen;
                    member.number += 1;
                }
            }
            Ok(())
        })?;
        Ok(Some(changed))
    }

    /// Changes what is in `data`, with nobody else doing so meanwhile. Gives what `act` did and what is
    /// there then.
    pub(crate) fn change<T>(
        data: &Path,
        act: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<(T, Self), Refusal> {
        let _lock = lock(data)?;
        let mut settings = Self::load(data)?.ok_or_else(|| {
            Refusal::new(format!(
                "{} is no node's: the site is this machine's alone",
                data.display()
            ))
            .next("`holdfast node init NAME --listen ADDRESS` makes it one")
        })?;
        let before = settings.clone();
        let done = act(&mut settings)?;
        if settings != before {
            settings.save(data)?;
        }
        Ok((done, settings))
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|it| it.node != self.node)
    }

    pub(crate) fn name_of(&self, node: NodeId) -> String {
        let found = self.members.iter().find(|member| member.node == node);
        let removed = || {
            let found = self.removed.iter().find(|removed| removed.node == node);
            found.map(|removed| format!("{} (removed)", removed.name))
        };
        found
            .map(|member| member.name.clone())
            .or_else(removed)
            .unwrap_or_else(|| format!("{:032x}", node.0))
    }

    pub(crate) fn own_name(&self) -> String {
        self.name_of(self.node)
    }

    pub(crate) fn named(&self, name: &str) -> Result<&Member, Refusal> {
        let found = self.members.iter().find(|member| member.name == name);
        found.ok_or_else(|| {
            Refusal::new(format!("no node is called `{name}`"))
                .next("`holdfast node list` prints the names")
        })
    }

    pub(super) fn of(written: Written) -> Result<Self, String> {
        let number = |text: &str| {
            u128::from_str_radix(text, 16).map_err(|_| format!("`{text}` is not an id"))
        };
        let (own, made_it) = (written.node.clone(), written.is_founder);
        let members = written.members.into_iter().map(|member| {
            Ok(Member {
                is_founder: member.is_founder || (made_it && member.node == own),
                node: NodeId(number(&member.node)?),
                name: member.name,
                address: member.address,
                number: member.number,
            })
        });
        let removed = written.removed.into_iter().map(|removed| {
            Ok(Removed {
                node: NodeId(number(&removed.node)?),
                name: removed.name,
            })
        });
        let settings = Self {
            cluster: number(&written.cluster)?,
            node: NodeId(number(&written.node)?),
            listen: written.listen,
            journal: Identity {
                journal: JournalId(number(&written.journal)?.to_be_bytes()),
                generation: Generation(written.generation),
            },
            is_founder: written.is_founder,
            members: members.collect::<Result<_, String>>()?,
            removed: removed.collect::<Result<_, String>>()?,
        };
        if !settings
            .members
            .iter()
            .any(|member| member.node == settings.node)
        {
            return Err("this node is not among its members".to_owned());
        }
        Ok(settings)
    }

    pub(super) fn written(&self) -> Written {
        let hex = |number: u128| format!("{number:032x}");
        Written {
            cluster: hex(self.cluster),
            node: hex(self.node.0),
            listen: self.listen,
            journal: hex(u128::from_be_bytes(self.journal.journal.0)),
            generation: self.journal.generation.0,
            is_founder: self.is_founder,
            members: self
                .members
                .iter()
                .map(|member| WrittenMember {
                    node: hex(member.node.0),
                    name: member.name.clone(),
                    address: member.address,
                    number: member.number,
                    is_founder: member.is_founder,
                })
                .collect(),
            removed: self
                .removed
                .iter()
                .map(|removed| WrittenRemoved {
                    node: hex(removed.node.0),
                    name: removed.name.clone(),
                })
                .collect(),
        }
    }
}

/// Whoever has it changes the file and is done.
fn lock(data: &Path) -> Result<Box<dyn Lock>, Refusal> {
    let path = dir(data).join(LOCK);
    let clock = RealClock::new();
    let begun = clock.monotonic();
    loop {
        match RealDisk.lock(&path, "holdfast node") {
            Ok(lock) => return Ok(lock),
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && clock.monotonic() - begun < LOCK_WAIT_MAX =>
            {
                clock.sleep(LOCK_POLL);
            }
            Err(error) => return Err(cannot("lock", &path, &error)),
        }
    }
}
