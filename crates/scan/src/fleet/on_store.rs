//! The fleet in the store of one node.

#[cfg(test)]
mod tests;

use std::{fmt, path::Path, sync::Arc};

use russh::keys::PublicKey;
use store::Store;
use world::{Clock, Disk, Random, RealRandom};

use super::{Access, Opened, ask};
use crate::{
    backend::{Backend, Embedded},
    credential::{KEYS_DIR, Secret, Vault},
    executor::{Local, NoWay, Ssh, Way},
    failure::{Failure, Reason},
    inventory::{Host, Inventory, Reach},
    known_hosts::KnownHosts,
    ledger::Ledger,
    policy::{Policy, Registry},
    rule::Rule,
    schedule::QueueKey,
    ssh,
    variable::{Place, Settings, tune},
    waiver::{Waiver, Waivers},
};

/// An open store with everything of the fleet in it.
pub struct OnStore {
    backend: Embedded,
    ledger: Ledger,
    inventory: Inventory,
    known_hosts: KnownHosts,
    vault: Vault,
    registry: Registry,
    settings: Settings,
    waivers: Waivers,
    clock: Arc<dyn Clock>,
    /// Whose own host this one is, where several machines have the store in turn.
    machine: Option<String>,
}

impl fmt::Debug for OnStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStore")
    }
}

impl OnStore {
    /// On a store that has [`crate::tables`], in the data directory `dir`. Makes the data key when
    /// nothing is sealed yet.
    ///
    /// # Errors
    /// One line for people.
    pub fn new(
        store: &Store,
        dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let vault = Self::vault(store, dir, disk)?;
        let key = QueueKey::of(&vault.data_key().map_err(words)?);
        Self::with(store, vault, key, clock)
    }

    /// For questions and manual scans, which never touch the queue: makes no key, and would refuse
    /// every job.
    ///
    /// # Errors
    /// One line for people.
    pub fn without_queue(
        store: &Store,
        dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let mut key = [0; 32];
        RealRandom.fill(&mut key).map_err(words)?;
        let vault = Self::vault(store, dir, disk)?;
        Self::with(store, vault, QueueKey::from_bytes(key), clock)
    }

    fn vault(store: &Store, dir: &Path, disk: Arc<dyn Disk>) -> Result<Vault, String> {
        let keys = dir.join(KEYS_DIR);
        Vault::new(store.clone(), disk, Arc::new(RealRandom), keys).map_err(words)
    }

    fn with(
        store: &Store,
        vault: Vault,
        key: QueueKey,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let random = Arc::new(RealRandom);
        Ok(Self {
            backend: Embedded::new(store.clone(), key, random).map_err(words)?,
            ledger: Ledger::new(store.clone()).map_err(words)?,
            inventory: Inventory::new(store.clone()).map_err(words)?,
            known_hosts: KnownHosts::new(store.clone()).map_err(words)?,
            registry: Registry::new(store.clone()).map_err(words)?,
            settings: Settings::new(store.clone()).map_err(words)?,
            waivers: Waivers::new(store.clone()).map_err(|error| error.detail)?,
            vault,
            clock,
            machine: None,
        })
    }

    /// One of several machines, known by this name: a host that is scanned as the machine itself is the
    /// one of that name. What is found here would be recorded under another one's name.
    pub fn on_machine(self, name: String) -> Self {
        Self {
            machine: Some(name),
            ..self
        }
    }

    fn ssh(&self, host: &Host, endpoint: ssh::Endpoint, access: &Arc<dyn Access>) -> Arc<dyn Way> {
        let ssh = self.prepare(host, endpoint, access);
        ssh.map_or_else(
            |failure| Arc::new(NoWay(failure)) as Arc<dyn Way>,
            |ssh| Arc::new(ssh),
        )
    }

    fn prepare(
        &self,
        host: &Host,
        endpoint: ssh::Endpoint,
        access: &Arc<dyn Access>,
    ) -> Result<Ssh, Failure> {
        // Nobody is dialled for a credential that would not open (EXE-3). It is opened again for use,
        // after the host's key was accepted.
        self.vault.check(host)?;
        // Without one that may be used no host is dispatched, but a person may still look at one
        // (SCH-11): by the default, which trusts no key that nobody vouched for.
        let policy = self.policy().unwrap_or_default();
        let known = self.known_hosts.of(&endpoint.address, endpoint.port);
        let trust = ssh::Trust {
            known: known.map_err(internal)?,
            policy: policy.host_key_policy,
            first_sight: first_sight(Arc::clone(access), endpoint.clone()),
        };
        let (access, host) = (Arc::clone(access), host.clone());
        Ok(Ssh {
            endpoint,
            trust,
            resolve: Arc::new(move || {
                let host = host.clone();
                ask(access.as_ref(), move |opened| Ok(opened.secret(&host)))
                    .unwrap_or_else(|text| Err(internal(text)))
            }),
            random: Arc::new(RealRandom),
        })
    }
}

type FirstSight = Arc<dyn Fn(&PublicKey) -> Result<(), Failure> + Send + Sync>;

fn first_sight(access: Arc<dyn Access>, endpoint: ssh::Endpoint) -> FirstSight {
    Arc::new(move |key| {
        let (endpoint, key) = (endpoint.clone(), key.clone());
        ask(access.as_ref(), move |opened| {
            Ok(opened.trust(&endpoint.address, endpoint.port, &key))
        })
        .unwrap_or_else(|text| Err(internal(text)))
    })
}

impl Opened for OnStore {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn policy(&self) -> Result<Arc<Policy>, String> {
        let active = self.registry.in_force(self.clock.now()).map_err(words)?;
        Ok(Arc::new(active.policy().clone()))
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn host(&self, name: &str) -> Result<Host, Failure> {
        let host = self.inventory.get(name).map_err(internal)?;
        host.filter(|host| host.retired.is_none())
            .ok_or_else(|| internal(format!("the inventory has no host `{name}` to scan")))
    }

    fn way(&self, host: &Host, access: &Arc<dyn Access>) -> Arc<dyn Way> {
        match &host.reach {
            Reach::Local => match &self.machine {
                Some(machine) if *machine != host.name => Arc::new(NoWay::of_another(machine)),
                _ => Arc::new(Local),
            },
            Reach::Offline => Arc::new(NoWay::offline()),
            Reach::Ssh { address, port, .. } => {
                let endpoint = ssh::Endpoint {
                    address: address.clone(),
                    port: *port,
                };
                self.ssh(host, endpoint, access)
            }
        }
    }

    fn rules(&self, rules: &Arc<[Rule]>, host: &Host) -> Result<Arc<[Rule]>, Failure> {
        let settings = self.settings.list().map_err(internal)?;
        if settings.is_empty() {
            return Ok(Arc::clone(rules));
        }
        let tuned = tune(rules, &settings, &Place::of(&host.name, Some(host)));
        for setting in &tuned.stale {
            tracing::warn!(
                rule = setting.rule,
                variable = setting.variable,
                "a value of the site is left out: the rule does not take it"
            );
        }
        Ok(tuned.rules.into())
    }

    fn waivers(&self) -> Result<Vec<Waiver>, String> {
        self.waivers.list().map_err(|error| error.detail)
    }

    fn secret(&self, host: &Host) -> Result<Secret, Failure> {
        self.vault.resolve(host)
    }

    fn trust(&self, address: &str, port: u16, key: &PublicKey) -> Result<(), Failure> {
        let recorded = self.known_hosts.trust(address, port, key, self.clock.now());
        recorded.map(drop).map_err(internal)
    }
}

fn words(error: impl fmt::Display) -> String {
    error.to_string()
}

fn internal(error: impl fmt::Display) -> Failure {
    Failure::new(Reason::Internal, error.to_string())
}
