//! One scan at a time for each host, in this process and beside it.
//!
//! A set of names answers within the process. Where scans of other processes may meet, as `scan
//! --host` beside `up`, a lock file for each host answers too: the kernel releases it with its
//! holder, so that a killed scan leaves no host busy. The files stay, one for each host ever
//! scanned, empty but for the last holder's name.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use world::{Disk, disk};

use crate::{
    failure::{Failure, Reason},
    judge::hex,
};

/// Who is being scanned.
#[derive(Clone, Default)]
pub struct Guard {
    hosts: Arc<Mutex<BTreeSet<String>>>,
    locks: Option<Locks>,
}

#[derive(Clone)]
struct Locks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    holder: String,
}

/// The right to scan one host. Dropping it gives the host free.
pub struct Held {
    host: String,
    hosts: Arc<Mutex<BTreeSet<String>>>,
    /// Released before the name is: whoever finds the name free finds the file free.
    lock: Option<Box<dyn disk::Lock>>,
}

impl Guard {
    /// Among the scans of this process only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Among the scans of every process that names the same `dir`, which must exist. `holder` is
    /// what a refused scan is told.
    #[must_use]
    pub fn across_processes(disk: Arc<dyn Disk>, dir: PathBuf, holder: String) -> Self {
        Self {
            hosts: Arc::default(),
            locks: Some(Locks { disk, dir, holder }),
        }
    }

    /// # Errors
    /// `host_busy` when another scan of this host is running.
    pub fn take(&self, host: &str) -> Result<Held, Failure> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.insert(host.to_owned()) {
            return Err(Failure::new(
                Reason::HostBusy,
                "another scan of this host is running",
            ));
        }
        drop(hosts);
        let mut held = Held {
            host: host.to_owned(),
            hosts: Arc::clone(&self.hosts),
            lock: None,
        };
        if let Some(locks) = &self.locks {
            held.lock = Some(locks.take(host)?);
        }
        Ok(held)
    }
}

impl Locks {
    fn take(&self, host: &str) -> Result<Box<dyn disk::Lock>, Failure> {
        // A name of a host may hold what a file name may not.
        let name = hex(&Sha256::digest(host.as_bytes()));
        let path = self.dir.join(format!("{name}.lock"));
        self.disk.lock(&path, &self.holder).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                let text = format!("another scan of this host is running: {error}");
                Failure::new(Reason::HostBusy, text)
            } else {
                let text = format!("lock {}: {error}", path.display());
                Failure::new(Reason::Internal, text)
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.lock.take());
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.remove(&self.host);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.host).finish()
    }
}
