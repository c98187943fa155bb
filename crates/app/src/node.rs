//! This machine as one of several that keep a site together: its identity, the others, and the store's
//! journal as a [`Group`].
//!
//! What a node is made of lies in `node/` of the data directory: `node.json`, certificates and keys,
//! the authority record. Where that is missing the site is one machine's, as ever.

mod bases;
mod book;
mod change;
mod clocks;
mod code;
mod control;
mod coordinator;
mod duty;
mod explained;
mod figures;
mod force;
mod invitation;
mod keys;
mod neighbours;
mod settings;
mod shown;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use replica::{
    authority::Owner,
    group::{Beginning, Group, LIMITS, Options},
    machine::{Config as Members, Mode, NodeId, Policy, Version},
    transport::Credentials,
};
use world::{Clock as _, Disk, RealClock, RealDisk, RealRandom, net::RealNet};
use zeroize::Zeroizing;

use crate::{
    config::Config,
    exit::Refusal,
    site::{self, holder},
    sizes::Sizes,
};

use bases::StoreBases;
pub(crate) use book::Book;
pub(crate) use code::Code;
pub(crate) use control::{Control, Request, ask, carry as carry_keys, is_running};
pub(crate) use coordinator::Address;
pub(crate) use duty::{Duties, keep};
pub(crate) use explained::{promotion_text, replication_text};
pub(crate) use figures::of_this_node as figures;
pub(crate) use force::{Bound, Statement, bound_text};
pub(crate) use invitation::{Envelope, Invitation, join};
pub(crate) use settings::{MEMBERS_MAX, Member, Settings, check_address, draw, is_name};
pub(crate) use shown::{status_document, status_text};
#[cfg(test)]
pub(crate) use standing::Behind;
pub(crate) use standing::{Primary, Role, Stand, Standing, url};

/// In the data directory.
pub(crate) const DIR: &str = "node";
const AUTHORITY_RECORD: &str = "authority";
const CLUSTER_CERT: &str = "cluster.crt";
/// Only where the cluster was made: whoever has it can make nodes.
const CLUSTER_KEY: &str = "cluster.key";
const NODE_CERT: &str = "node.crt";
const NODE_KEY: &str = "node.key";
const PEM_LEN_MAX: u64 = 64 << 10;

pub(crate) fn dir(data: &Path) -> PathBuf {
    data.join(DIR)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("{what} {}: {error}", path.display()))
        .next("run `holdfast doctor` to check disk and permissions")
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let bytes = RealDisk
        .read(path, PEM_LEN_MAX)
        .map_err(|error| cannot("read", path, &error))?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| {
        Refusal::new(format!("{} is not text", path.display())).next("restore it from a backup")
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    RealDisk
        .replace(path, bytes)
        .map_err(|error| cannot("write", path, &error))
}

fn write_credentials(data: &Path, credentials: &Credentials) -> Result<(), Refusal> {
    let dir = dir(data);
    RealDisk
        .create_dir_all_synced(&dir)
        .map_err(|error| cannot("make", &dir, &error))?;
    write(&dir.join(CLUSTER_CERT), credentials.authority.as_bytes())?;
    write(&dir.join(NODE_KEY), credentials.key.as_bytes())?;
    write(&dir.join(NODE_CERT), credentials.certificate.as_bytes())
}

fn credentials(data: &Path) -> Result<Credentials, Refusal> {
    let dir = dir(data);
    Ok(Credentials {
        authority: read_text(&dir.join(CLUSTER_CERT))?.to_string(),
        certificate: read_text(&dir.join(NODE_CERT))?.to_string(),
        key: read_text(&dir.join(NODE_KEY))?,
    })
}

/// The authority of the cluster, where it was made.
pub(crate) fn authority(
    data: &Path,
    settings: &Settings,
) -> Result<replica::transport::Authority, Refusal> {
    let dir = dir(data);
    let key = dir.join(CLUSTER_KEY);
    let found = RealDisk
        .stat(&key)
        .map_err(|error| cannot("look for", &key, &error))?;
    if found.is_none() {
        return Err(
            Refusal::new("nodes are invited by the node that made the cluster").next(
                "run `holdfast node invite` there; it alone has the key that signs certificates",
            ),
        );
    }
    let certificate = read_text(&dir.join(CLUSTER_CERT))?.to_string();
    Ok(replica::transport::Authority::of(
        settings.cluster,
        certificate,
        read_text(&key)?,
    ))
}

/// Makes this directory, whose log is open, the first node of a cluster.
pub(crate) fn found(data: &Path, settings: &Settings, log: &wal::Local) -> Result<(), Refusal> {
    let made = replica::transport::Authority::make(settings.cluster)
        .and_then(|authority| Ok((authority.issue(settings.node)?, authority)))
        .map_err(|error| {
            Refusal::new(format!("certificates cannot be made: {error}")).next("try again")
        })?;
    let (credentials, authority) = made;
    write_credentials(data, &credentials)?;
    write(&dir(data).join(CLUSTER_KEY), authority.key().as_bytes())?;
    make_record(data, settings, log)?;
    // Last: where it is, all of it is.
    settings.save(data)
}

/// Makes the record of what this node promises. Only here: a node whose record is gone must not get another
/// one, because it cannot know what the first one said. An invitation opens a second time, on an empty disk: so
/// the record of whoever was invited says that it may have forgotten.
fn make_record(data: &Path, settings: &Settings, log: &wal::Local) -> Result<(), Refusal> {
    let path = dir(data).join(AUTHORITY_RECORD);
    let cut_short = RealDisk
        .stat(&path)
        .map_err(|error| cannot("look for", &path, &error))?;
    if cut_short.is_some() {
        // Nobody was a node here yet, so nothing was promised by it.
        RealDisk
            .rename(&path, &path.with_extension("unfinished"))
            .map_err(|error| cannot("move aside", &path, &error))?;
    }
    let owner = Owner {
        cluster: settings.cluster,
        node: settings.node,
        journal: settings.journal,
    };
    let config = first_config(settings);
    let now = RealClock::new().now();
    let beginning = match settings.is_founder {
        true => Beginning::Fresh,
        false => Beginning::Invited,
    };
    let first = (&config, beginning);
    replica::group::make_record(&RealDisk, &path, owner, log, first, now).map_err(|error| {
        Refusal::new(error.to_string()).next("run `holdfast doctor` to check disk and permissions")
    })
}

fn refuse_without_record(data: &Path) -> Result<(), Refusal> {
    let path = dir(data).join(AUTHORITY_RECORD);
    let found = RealDisk
        .stat(&path)
        .map_err(|error| cannot("look for", &path, &error))?;
    if found.is_some() {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "the authority record {} is lost: this node cannot know what it has promised",
        path.display()
    ))
    .next(
        "have this machine invited as another node, with an empty data directory; if it was made by an earlier build and has never run as a node: move `node/` aside and make it a node again",
    ))
}

/// Opens the journal of the store as this node's part of it.
fn open_group(
    data: &Path,
    settings: &Settings,
    config: &Config,
    bases: &Arc<StoreBases>,
    is_leased: bool,
) -> Result<Arc<Group>, Refusal> {
    refuse_without_record(data)?;
    let mut journal = wal::Options::on_this_machine(data.join(site::JOURNAL_DIR));
    journal.holder = holder();
    journal.mode = config.mode();
    if let Some(sizes) = Sizes::asked_for()? {
        journal.segment_bytes = sizes.segment;
    }
    journal.evidence = site::evidence_beside(&journal.dir);
    let options = Options {
        me: settings.node,
        cluster: settings.cluster,
        journal,
        identity: settings.journal,
        authority: dir(data).join(AUTHORITY_RECORD),
        derived: Some(bases.derived()?),
        limits: LIMITS,
        is_leased,
        listen: settings.listen,
        // Its neighbours' to say.
        peers: BTreeMap::new(),
        credentials: credentials(data)?,
        net: Arc::new(RealNet),
        clock: Arc::new(RealClock::new()),
        random: Arc::new(RealRandom),
    };
    Group::open(options)
        .map(Arc::new)
        .map_err(|error| site::cannot_open_journal(data, &error))
}

/// What stands before anybody was made primary: the one that made the cluster alone, or, on a node that
/// was invited, whoever it was told of.
fn first_config(settings: &Settings) -> Members {
    let members: BTreeSet<NodeId> = match settings.is_founder {
        true => [settings.node].into(),
        false => settings.members.iter().map(|member| member.node).collect(),
    };
    Members {
        version: Version::default(),
        members,
        mode: Mode::Async,
        policy: Policy::Wait,
        previous: None,
    }
}
