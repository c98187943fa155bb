//! `node/node.json`: who this node is, and where the others are.

use std::{net::SocketAddr, path::Path};

use replica::machine::NodeId;
use serde::{Deserialize, Serialize};
use wal::{Generation, Identity, JournalId};
use world::{Disk, Random, RealDisk, RealRandom};

use super::{cannot, dir, write};
use crate::exit::Refusal;

const FILE: &str = "node.json";
const LEN_MAX: u64 = 64 << 10;

/// A node of the cluster, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMember {
    node: String,
    name: String,
    address: SocketAddr,
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
                .next("restore it from a backup, or have this node invited again")
        })
    }

    pub(crate) fn save(&self, data: &Path) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(&self.written())
            .map_err(|error| Refusal::new("node.json cannot be written").source(error))?;
        write(&dir(data).join(FILE), &text)
    }

    pub(crate) fn name_of(&self, node: NodeId) -> String {
        let found = self.members.iter().find(|member| member.node == node);
        found.map_or_else(|| format!("{:032x}", node.0), |member| member.name.clone())
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
        let members = written.members.into_iter().map(|member| {
            Ok(Member {
                node: NodeId(number(&member.node)?),
                name: member.name,
                address: member.address,
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
                })
                .collect(),
        }
    }
}
