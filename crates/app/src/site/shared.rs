//! A site whose tables are in a PostgreSQL database, shared with other machines.
//!
//! Keys, locks and events stay in the data directory of each. The key that seals credentials must be the
//! same in all of them; the first to need it tells when it is not.

use std::{fmt::Write, path::Path, sync::Arc};

use postgres::{Address, Engine};
use scan::inventory::{Host, Reach};
use sha2::{Digest, Sha256};
use store::Store;
use world::{Disk, RealDisk};

use super::{Opened, Site, cannot_use, fleet_refused};
use crate::{config::Config, exit::Refusal};

/// Bytes of a digest in the name of a node: two directories of one machine do not meet by chance.
const NODE_LEN: usize = 8;

/// Left in a data directory whose tables were moved away: where to.
pub(crate) const MOVED: &str = "moved";
/// A URL without its password is shorter.
const MOVED_LEN_MAX: u64 = 4 * 1024;

pub(crate) fn is_used(config: &Config) -> bool {
    config.store.postgres.value.is_some()
}

pub(super) fn open(dir: &Path, address: &Address) -> Result<Opened, Refusal> {
    RealDisk
        .create_dir_all_synced(dir)
        .map_err(|error| cannot_use(dir, &error))?;
    let options = postgres::Options::new(address.clone(), scan::tables());
    let engine = Engine::open(options).map_err(|error| refused(&error))?;
    Ok(Opened {
        store: Store::on(Arc::new(engine)),
        recovery: String::new(),
    })
}

/// A database that cannot be used, as the user sees it.
pub(crate) fn refused(error: &store::Error) -> Refusal {
    let next = postgres::Fault::behind(error).map_or(
        "check store.postgres with `holdfast config show`",
        postgres::Fault::next,
    );
    Refusal::new(error.to_string()).next(next)
}

/// Refuses a directory whose tables are elsewhere: what it still holds is as old as the move.
pub(super) fn refuse_moved(dir: &Path) -> Result<(), Refusal> {
    let Some(to) = moved_to(dir)? else {
        return Ok(());
    };
    let refusal = Refusal::new(format!("the record of {} was moved to {to}", dir.display()));
    Err(refusal.next("set store.postgres or HOLDFAST_STORE_POSTGRES to that database"))
}

pub(crate) fn moved_to(dir: &Path) -> Result<Option<String>, Refusal> {
    let path = dir.join(MOVED);
    match RealDisk.stat(&path) {
        Ok(None) => Ok(None),
        Ok(Some(_)) => {
            let bytes = RealDisk
                .read(&path, MOVED_LEN_MAX)
                .map_err(|error| cannot_use(dir, &error))?;
            Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
        }
        Err(error) => Err(cannot_use(dir, &error)),
    }
}

/// Names the workers of this data directory: several on one machine may share a database.
pub(crate) fn node(config: &Config, host: String) -> Result<String, Refusal> {
    if !is_used(config) {
        return Ok(host);
    }
    let dir = config.data_dir()?;
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let mut node = host + ":";
    for byte in &digest[..NODE_LEN] {
        write!(node, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(node)
}

/// A host that is reached as "the machine itself" is another one for each machine that takes its jobs.
pub(crate) fn check_local(site: &Site, this: &str) -> Result<(), Refusal> {
    let hosts = site.inventory()?.list(None).map_err(fleet_refused)?;
    let is_other =
        |host: &&Host| host.reach == Reach::Local && host.retired.is_none() && host.name != this;
    match hosts.iter().find(is_other) {
        None => Ok(()),
        Some(host) => Err(Refusal::new(format!(
            "`{}` is scanned as the machine itself, and this machine is `{this}`: on a shared \
             database each would scan another one under that name",
            host.name
        ))
        .next("retire it, and add it by its address with `holdfast host add NAME ADDRESS`")),
    }
}
