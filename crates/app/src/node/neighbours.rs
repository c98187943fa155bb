//! The other nodes, as a running one keeps up with them: what `node/node.json` says of them goes to the
//! group, and what changes there is told to them and heard from them.
//!
//! Book, names of keys and what the clock shows are told after the greeting of a connection, when they changed, and now and then:
//! a note may be lost. Keys are given to those who ask. Who is heard was let in by the transport: whoever the
//! book has, and whoever counts in the configuration on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use replica::{group::Group, machine::NodeId};
use serde::{Deserialize, Serialize};
use world::{Clock, RealClock, Timestamp};
use zeroize::Zeroizing;

use super::{
    Book, Settings,
    clocks::{self, Clocks},
    keys::{Carried, Held, KeyName, Keys},
};
use crate::exit::Refusal;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What was lost is said again after so long.
const REPEAT_EVERY: Duration = Duration::from_secs(2);

/// What nodes say to each other, as JSON: what a program does not know of it, it passes over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
enum Said {
    Book(Book),
    Holds(Held),
    Wants {
        keys: Vec<KeyName>,
    },
    Keys {
        keys: Vec<Carried>,
    },
    /// What its clock shows, in nanoseconds since 1970.
    Clock {
        now: u64,
    },
    #[serde(other)]
    Unknown,
}

impl Said {
    /// Wiped: it may hold keys.
    fn text(&self) -> Zeroizing<Vec<u8>> {
        serde_json::to_vec(self)
            .map(Zeroizing::new)
            .expect("what nodes say is plain structs with string keys")
    }
}

/// The thread that keeps up with them.
#[derive(Debug)]
pub(super) struct Neighbours {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbours {
    pub(super) fn start(
        data: &Path,
        group: &Arc<Group>,
        settings: &Settings,
        keys: &Arc<Keys>,
        clocks: &Arc<Clocks>,
    ) -> Result<Self, Refusal> {
        let mut look = Look {
            data: data.to_owned(),
            group: Arc::clone(group),
            keys: Arc::clone(keys),
            clocks: Arc::clone(clocks),
            known: None,
            told: BTreeMap::new(),
            is_lost: false,
        };
        look.follow(settings.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Without it no book, key or removal is heard: its end ends the process.
        let body = move || {
            let clock = RealClock::new();
            while !stopped.load(Ordering::Relaxed) {
                look.once(clock.monotonic());
                clock.sleep(LOOK_EVERY);
            }
        };
        let thread = world::spawn_spine("node-neighbours", body)
            .map_err(|error| Refusal::new("the other nodes get no thread").source(error))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within its look.
            drop(thread.join());
        }
    }
}

struct Look {
    data: PathBuf,
    group: Arc<Group>,
    keys: Arc<Keys>,
    clocks: Arc<Clocks>,
    known: Option<Settings>,
    told: BTreeMap<NodeId, Told>,
    /// The file could not be read, and that was said.
    is_lost: bool,
}

/// What a peer was told last.
struct Told {
    connection: u64,
    book: Book,
    held: Held,
    at: Duration,
}

impl Look {
    fn once(&mut self, now: Duration) {
        self.admit();
        let Some(mut settings) = self.load() else {
            return;
        };
        for (peer, note) in self.group.notes() {
            match serde_json::from_slice(&note.0) {
                Ok(Said::Book(book)) => settings = self.merge(settings, &book),
                Ok(Said::Clock { now }) => {
                    self.heard_clock(peer, Timestamp::from_nanos(now), &settings);
                }
                Ok(said) => self.hear(peer, said),
                // No words of the parser's: they may quote a key.
                Err(_) => {
                    let peer = settings.name_of(peer);
                    tracing::debug!(peer, "a note was not understood");
                }
            }
        }
        self.follow(settings);
        self.tell(now);
    }

    /// Without the file nothing is heard of the others and nobody removed is shut out: said once, until it is
    /// there again.
    fn load(&mut self) -> Option<Settings> {
        let unreadable = match Settings::load(&self.data) {
            Ok(Some(settings)) => {
                self.is_lost = false;
                return Some(settings);
            }
            Ok(None) => "it is gone".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        if !std::mem::replace(&mut self.is_lost, true) {
            tracing::error!(
                unreadable,
                "node/node.json: what other nodes say of the cluster is not taken over until it can be read"
            );
        }
        None
    }

    /// Who counts is heard, also before anybody said where it is found: that may have been known to the node
    /// that invited it alone, which is gone. It says so itself, in its book.
    fn admit(&self) {
        let Some(status) = self.group.status() else {
            return;
        };
        let config = status.record.config;
        let replaced = config.previous.into_iter().flat_map(|it| it.members);
        let mut members: BTreeSet<NodeId> = config.members.into_iter().chain(replaced).collect();
        members.remove(&status.me);
        self.group.admit(members);
    }

    fn hear(&self, peer: NodeId, said: Said) {
        match said {
            Said::Holds(held) => {
                self.keys.heard(peer, held);
                let wanted = self.keys.wanted(peer, holder(&self.group) == Some(peer));
                if !wanted.is_empty() {
                    self.group.note(peer, &Said::Wants { keys: wanted }.text());
                }
            }
            Said::Wants { keys } => {
                let keys = self.keys.given(&keys);
                if !keys.is_empty() {
                    self.group.note(peer, &Said::Keys { keys }.text());
                }
            }
            Said::Keys { keys } => {
                if let Err(error) = self.keys.take(peer, &keys) {
                    tracing::warn!(%error, "a key of the site was not written");
                }
            }
            Said::Book(_) | Said::Clock { .. } | Said::Unknown => {}
        }
    }

    fn heard_clock(&self, peer: NodeId, theirs: Timestamp, settings: &Settings) {
        let node = settings.name_of(peer);
        match self.clocks.heard(peer, theirs) {
            Some(Some(ahead)) => tracing::warn!("{}", clocks::text(&node, ahead)),
            Some(None) => tracing::info!(node, "the clocks of both nodes agree again"),
            None => {}
        }
    }

    fn merge(&self, settings: Settings, book: &Book) -> Settings {
        let mut merged = settings.clone();
        book.merge_into(&mut merged);
        if merged == settings {
            return settings;
        }
        // Again over what is there then: a command may have changed it.
        let changed = Settings::change(&self.data, |settings| {
            book.merge_into(settings);
            Ok(())
        });
        changed.map_or_else(
            |refusal| {
                tracing::warn!(%refusal, "what another node knows of the cluster was not taken over");
                settings
            },
            |((), changed)| changed,
        )
    }

    /// Takes over where the others are, and who is one no more.
    fn follow(&mut self, settings: Settings) {
        if self.known.as_ref() == Some(&settings) {
            return;
        }
        for removed in &settings.removed {
            let is_news = self
                .known
                .as_ref()
                .is_none_or(|known| !known.removed.contains(removed));
            if is_news {
                tracing::info!(node = removed.name, "a removed node is heard no more");
                self.group.shut_out(removed.node);
            }
        }
        for member in settings.others() {
            let is_known = |known: &Settings| known.members.contains(member);
            if self.known.as_ref().is_some_and(is_known) {
                continue;
            }
            tracing::info!(node = member.name, address = %member.address, "a node of the cluster");
            // The number rises with each change, so it numbers the addresses too.
            let told = self
                .group
                .set_peer(member.node, member.address, member.number);
            if let Err(error) = told {
                tracing::warn!(node = member.name, %error, "a node was not taken over");
            }
        }
        self.known = Some(settings);
    }

    fn tell(&mut self, now: Duration) {
        let Some(known) = &self.known else { return };
        let (book, held) = (Book::of(known), self.keys.look());
        for link in self.group.links() {
            if link.speaks.is_none() {
                continue;
            }
            let is_told = self.told.get(&link.peer).is_some_and(|told| {
                let is_same = (&told.book, &told.held) == (&book, &held);
                told.connection == link.connection && is_same && now - told.at < REPEAT_EVERY
            });
            if is_told {
                continue;
            }
            let clock = Said::Clock {
                now: RealClock::new().now().nanos(),
            };
            let notes = [Said::Book(book.clone()), Said::Holds(held.clone()), clock];
            if notes
                .iter()
                .all(|said| self.group.note(link.peer, &said.text()))
            {
                let told = Told {
                    connection: link.connection,
                    book: book.clone(),
                    held: held.clone(),
                    at: now,
                };
                self.told.insert(link.peer, told);
            }
        }
    }
}

/// Who holds the authority, as far as this node knows.
pub(super) fn holder(group: &Group) -> Option<NodeId> {
    let (epoch, _, holder) = group.status()?.record.granted;
    (epoch.0 > 0).then_some(holder)
}
