//! A site whose tables are in a PostgreSQL database, shared with other machines.
//!
//! Keys, locks and events stay in the data directory of each. The data key and the ledger key must be the
//! same in all of them; the database says which they are and who has them, and `up` does not start on
//! others.

use std::{
    fmt::{Display, Write},
    path::Path,
    sync::Arc,
};

use postgres::{Address, Engine};
use scan::{
    credential::DATA_KEY_FILE,
    inventory::{Host, Kind, Reach},
    seal::{self, Book},
    site_key::{SiteKey, SiteKeys},
};
use sha2::{Digest, Sha256};
use store::Store;
use world::{Clock, Disk, RealClock, RealDisk, RealRandom};

use super::{Opened, Site, cannot_use, fleet_refused};
use crate::{config::Config, exit::Refusal, present::safe};

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

/// Refuses a machine whose keys are not the site's; the first one's are, from here on.
pub(crate) fn check_keys(site: &Site, this: &str) -> Result<(), Refusal> {
    let holder = format!("{this}:{}", site.dir().display());
    let keys = SiteKeys::new(site.store().clone()).map_err(Site::store_refused)?;
    let now = RealClock::new().now();
    site.vault()?
        .shared_data_key(&holder, now)
        .map_err(|error| match (error.kind(), keys.get(DATA_KEY_FILE)) {
            (Kind::Sealed, Ok(Some(key))) => other_key(site, DATA_KEY_FILE, &key, &error),
            _ => fleet_refused(error),
        })?;
    check_ledger_key(site, &keys, &holder)
}

/// By the newest statement, which a change of keys makes; where there is none yet, by the row.
fn check_ledger_key(site: &Site, keys: &SiteKeys, holder: &str) -> Result<(), Refusal> {
    let refused = crate::command::ledger::refused;
    let (name, dir) = (seal::key::KEY_FILE, site.keys_dir());
    let path = dir.join(name);
    let was_there = RealDisk
        .stat(&path)
        .map_err(|error| cannot_use(site.dir(), &error))?
        .is_some();
    let book = Book::new(site.store().clone()).map_err(refused)?;
    let key = match book.key(&RealDisk, &dir, &RealRandom) {
        Ok(key) => key.public().base64(),
        Err(error @ seal::Error::Key(_)) => {
            let holder = keys.get(name).map_err(Site::store_refused)?;
            return Err(match holder {
                Some(key) => other_key(site, name, &key, &error),
                None => refused(error),
            });
        }
        Err(error) => return Err(refused(error)),
    };
    let now = RealClock::new().now();
    let settled = keys
        .settle(name, &key, holder, now)
        .map_err(Site::store_refused)?;
    if settled.fingerprint == key || book.is_begun().map_err(refused)? {
        return Ok(());
    }
    if !was_there {
        // Nothing was signed by it, and it would be taken for the site's.
        seal::key::remove(&RealDisk, &dir).map_err(refused)?;
    }
    let found = format!(
        "{} is not the ledger key of the site, whose public key is {}",
        path.display(),
        settled.fingerprint
    );
    Err(other_key(site, name, &settled, &found))
}

fn other_key(site: &Site, name: &str, key: &SiteKey, found: &dyn Display) -> Refusal {
    let path = site.keys_dir().join(name);
    let lost = match name == seal::key::KEY_FILE {
        true => "; where nobody has it any more, `holdfast ledger key replace --lost`",
        false => "",
    };
    Refusal::new(found.to_string()).next(format!(
        "copy keys/{name} from `{}` to {}, readable by its user alone, and start again{lost}",
        safe(&key.holder),
        path.display()
    ))
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
