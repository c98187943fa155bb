//! How this node stands among the others, for those who ask what it serves: which one writes and where it
//! is found, and how far this copy is behind.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use replica::{
    group::Group,
    machine::{self, NodeId, Status},
};
use scan::node::Nodes;
use store::Store;
use wal::Lsn;
use world::{Clock, RealClock, Timestamp};

use super::Settings;
use crate::{config::Config, exit::Refusal, site::Site};

/// What a node may do at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    /// Another node writes, or none.
    Standby,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// The node that writes, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Primary {
    pub(crate) name: String,
    /// None where it said that others cannot reach its interface, or has not said anything yet.
    pub(crate) url: Option<String>,
}

/// How a node stands at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) node: String,
    pub(crate) role: Role,
    pub(crate) epoch: u64,
    pub(crate) primary: Option<Primary>,
    /// Every record up to it can be read here.
    pub(crate) applied: Lsn,
    pub(crate) behind: Behind,
    /// Of the newest commit that can be read here.
    pub(crate) newest: Timestamp,
}

/// How far behind the node that writes. Zero on that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Received, or said to be committed by the node that writes, and not applied.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Whatever was acknowledged longer ago can be read here; with nothing heard of the node that writes
    /// since the start, as long as this runs.
    pub(crate) time: Duration,
}

/// Told to whoever asks a node of several.
pub(crate) struct Standing {
    group: Arc<Group>,
    settings: Settings,
    clock: RealClock,
    seen: Mutex<Seen>,
}

/// What was found when it was looked last: asking is for threads that may not wait.
#[derive(Clone, Debug, Default)]
struct Seen {
    epoch: u64,
    primary: Option<Primary>,
    behind: Behind,
    /// When everything that was heard of until then was applied last.
    level: Duration,
}

impl Standing {
    pub(super) fn new(group: &Arc<Group>, settings: &Settings) -> Self {
        let clock = RealClock::new();
        Self {
            group: Arc::clone(group),
            settings: settings.clone(),
            seen: Mutex::new(Seen {
                level: clock.monotonic(),
                ..Seen::default()
            }),
            clock,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing is left half done by a panic: what is looked up is looked up before.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How this node stands, with `store` as what it has of the site.
    pub(crate) fn of(&self, store: &Store) -> Stand {
        let seen = self.seen().clone();
        let role = match self.group.role() {
            machine::Role::Primary { .. } => Role::Primary,
            machine::Role::Replica { .. } => Role::Standby,
        };
        let newest = store.newest_here();
        Stand {
            node: self.settings.own_name(),
            role,
            epoch: seen.epoch,
            // Found before this node wrote, or while it did.
            primary: seen
                .primary
                .filter(|it| role == Role::Primary || it.name != self.settings.own_name()),
            applied: applied(store),
            behind: match role {
                Role::Primary => Behind::default(),
                Role::Standby => seen.behind,
            },
            newest: newest.map_or(Timestamp::from_nanos(0), |commit| commit.time),
        }
    }

    /// Looks who writes and how far behind this node is. Whoever keeps the node does so all the time.
    pub(super) fn look(&self, store: &Store) {
        let holder = match self.group.role() {
            machine::Role::Primary { .. } => Some(self.settings.node),
            machine::Role::Replica { holder } => holder,
        };
        let primary = holder.map(|holder| self.primary(store, holder));
        let status = self.group.status();
        let mut seen = self.seen();
        seen.primary = primary;
        if let Some(status) = status {
            seen.epoch = status.record.promised.0.0;
            self.look_behind(&status, applied(store), &mut seen);
        }
    }

    fn primary(&self, store: &Store, holder: NodeId) -> Primary {
        let known = Nodes::new(store.clone()).and_then(|nodes| nodes.get(holder.0));
        let known = known.unwrap_or_else(|error| {
            tracing::debug!(%error, "where the node that writes is found is not known");
            None
        });
        Primary {
            name: self.settings.name_of(holder),
            url: known.and_then(|node| node.url),
        }
    }

    fn look_behind(&self, status: &Status, applied: Lsn, seen: &mut Seen) {
        let now = self.clock.monotonic();
        let records = records_behind(status.end.lsn, status.announced, applied);
        // Whoever begins to feed it has said nothing yet.
        if records == 0
            && status.is_informed
            && let Some((_, _, silent)) = status.fed_by
        {
            seen.level = seen.level.max(now.saturating_sub(silent));
        }
        seen.behind = Behind {
            records,
            bytes: if records == 0 { 0 } else { status.unapplied.0 },
            time: now.saturating_sub(seen.level),
        };
    }

    /// Says in the store where clients find this node, for it begins to write.
    pub(super) fn announce(&self, store: &Store, url: Option<&str>) -> Result<(), Refusal> {
        let node = self.settings.node.0;
        Nodes::new(store.clone())
            .and_then(|nodes| {
                nodes.found_at(node, &self.settings.own_name(), url, self.clock.now())
            })
            .map_err(Site::store_refused)
    }
}

/// Where clients find the interface of this node: as configured, or the address that it listens on. One
/// that listens on loopback is found by those that reach the node itself on loopback, and by nobody else;
/// one that listens on every address of the machine is found where the other nodes find this one.
pub(crate) fn url(
    config: &Config,
    settings: &Settings,
    listens: std::net::SocketAddr,
) -> Option<String> {
    if let Some(url) = &config.server.url.value {
        return Some(url.clone());
    }
    let own = settings.members.iter().find(|it| it.node == settings.node);
    let own = own.map(|member| member.address.ip());
    let reached = match listens.ip() {
        ip if ip.is_loopback() => own.filter(IpAddr::is_loopback).map(|_| ip),
        ip if ip.is_unspecified() => own,
        ip => Some(ip),
    };
    let scheme = match config.server.is_encrypted() {
        true => "https",
        false => "http",
    };
    let address = std::net::SocketAddr::new(reached?, listens.port());
    Some(format!("{scheme}://{address}"))
}

/// What is known to be there: amid a catch-up that is more than what was received, which is applied in the
/// meantime again and again.
fn records_behind(received: Lsn, announced: Lsn, applied: Lsn) -> u64 {
    received.max(announced).get().saturating_sub(applied.get())
}

/// How far what can be read reaches: of one that follows, records that are no commits included.
fn applied(store: &Store) -> Lsn {
    let newest = store.newest_here().map(|commit| commit.lsn);
    store.applied().max(newest).unwrap_or(Lsn::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that had been off for an hour said every few moments that it was level: whatever it had received
    /// by then was applied, and of a million records more it had been told.
    #[test]
    fn a_copy_amid_a_catch_up_is_behind_by_what_it_was_told_of() {
        let lsn = Lsn::new;
        for (received, announced, applied, behind) in [
            (100, 100, 100, 0),
            (100, 1_000_000, 100, 999_900),
            (120, 100, 100, 20),
            (100, 90, 110, 0),
        ] {
            let found = records_behind(lsn(received), lsn(announced), lsn(applied));
            assert_eq!(found, behind, "{received} {announced} {applied}");
        }
    }
}
