//! Messages between nodes: TCP, TLS on both sides, frames with a length limit and a checksum.
//!
//! Each node opens one connection to each other one and only writes to it; what it hears comes on the
//! connections that the others opened. So a direction that is cut is one connection that fails, and no
//! lock is held between reading and writing. Messages may be lost with a connection, never changed, and
//! never come twice by our doing; [`crate::machine`] wants no more.
//!
//! Frames and the greeting: docs/protocol/replication.md.

mod credentials;
mod frame;
mod greeting;
mod incoming;
mod outgoing;
mod patience;
mod refusals;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustls::{ClientConfig, ServerConfig};
use world::{Clock, Net};
use zeroize::Zeroizing;

pub use credentials::{Authority, Credentials};
pub use refusals::Refused;

use crate::machine::{Message, NodeId};
use outgoing::Outbox;
use refusals::Refusals;

/// Versions of messages that this program speaks, both inclusive.
pub const VERSION_MIN: u16 = 3;
pub const VERSION_MAX: u16 = 3;
/// The longest frame: a message of entries may hold one record of 16 MiB beside its fill.
pub const FRAME_LEN_MAX: usize = 40 << 20;
/// The longest note: a book of a handful of nodes, or some keys, is a few kilobytes.
pub const NOTE_LEN_MAX: usize = 256 << 10;
/// Notes that wait for one peer; more are lost, and said again by whoever has something to say.
const NOTES_WAITING_MAX: usize = 16;
/// Bytes that wait for one peer. Beyond it the connection is given up: the session's window is
/// smaller, so a peer that lets it come to this does not read.
pub const OUTBOX_BYTES_MAX: usize = 128 << 20;
/// What nobody waits for leaves with what comes within this time, or within so many bytes: what each
/// departure costs on both sides is paid once for all of them. Arbitrary.
const LINGER: Duration = Duration::from_millis(5);
const LINGER_BYTES: usize = 256 << 10;
/// An idle connection says so this often.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// One that says nothing for so long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How often a thread that waits for bytes looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Connections that others opened; a handful of nodes needs one each, and one more while the old one
/// of a restarted node is not known to be dead.
const INCOMING_MAX: usize = 64;
/// Of these, those that have not said who they are: beyond that the one that waits longest is closed, so
/// that strangers who say nothing keep no node out.
const STRANGERS_MAX: usize = INCOMING_MAX / 2;

/// What a transport tells its owner.
#[derive(Debug)]
pub enum Heard {
    /// What is sent reaches the peer, until `Down`. `endpoint`: which of its addresses, in order.
    Up {
        peer: NodeId,
        endpoint: u64,
    },
    Down {
        peer: NodeId,
    },
    Message(Box<Message>),
    /// What the owner of a peer had to say to the owner of this end.
    Note {
        peer: NodeId,
        note: Note,
    },
}

/// What owners of nodes say to each other. It may hold keys: it is wiped, and shows nothing.
pub struct Note(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({} bytes)", self.0.len())
    }
}

/// The connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub peer: NodeId,
    pub address: SocketAddr,
    /// Which one since the start, counted.
    pub connection: u64,
    /// The version that both speak; `None` while there is no connection.
    pub speaks: Option<u16>,
    /// Why there is none; empty before the first attempt failed.
    pub cause: String,
}

pub type Inbox = Arc<dyn Fn(Heard) + Send + Sync>;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Connections that ended by what came over them.
    pub garbage: u64,
    /// Greetings that were refused, here.
    pub refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    garbage: AtomicU64,
    refused: AtomicU64,
}

/// This node's end of all connections. Dropping it ends them.
pub struct Transport {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    me: NodeId,
    cluster: u128,
    net: Arc<dyn Net>,
    clock: Arc<dyn Clock>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    inbox: Inbox,
    peers: Mutex<BTreeMap<NodeId, Arc<Outbox>>>,
    /// Never heard, whatever they show.
    removed: Mutex<BTreeSet<NodeId>>,
    /// Heard though it is not known where they are.
    admitted: Mutex<BTreeSet<NodeId>>,
    refusals: Mutex<Refusals>,
    /// Connections that greeted here.
    greeted: AtomicU64,
    /// By peer: the number of its newest connection that was heard. Held while a message is handed on.
    newest: Mutex<BTreeMap<NodeId, Arc<Mutex<u64>>>>,
    began: Duration,
    /// By peer: when anything came from it last.
    heard: Mutex<BTreeMap<NodeId, Duration>>,
    counters: Counters,
    is_stopping: AtomicBool,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("me", &self.shared.me)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a transport is made with.
pub struct Start {
    pub me: NodeId,
    pub cluster: u128,
    pub listen: SocketAddr,
    pub credentials: Credentials,
    pub net: Arc<dyn Net>,
    pub clock: Arc<dyn Clock>,
    pub inbox: Inbox,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("me", &self.me)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Listens, and connects to nobody yet.
    pub fn start(start: Start) -> io::Result<Self> {
        let name = credentials::name(start.me, start.cluster);
        let (client, server) = start.credentials.configs().map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {error}"))
        })?;
        let listener = start.net.listen(start.listen)?;
        let address = listener.address();
        let shared = Arc::new(Shared {
            me: start.me,
            cluster: start.cluster,
            net: start.net,
            clock: Arc::clone(&start.clock),
            client,
            server,
            inbox: start.inbox,
            peers: Mutex::default(),
            removed: Mutex::default(),
            admitted: Mutex::default(),
            refusals: Mutex::default(),
            greeted: AtomicU64::new(0),
            newest: Mutex::default(),
            began: start.clock.monotonic(),
            heard: Mutex::default(),
            counters: Counters::default(),
            is_stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = world::spawn_spine("replica-accept", move || {
            incoming::accept_loop(&accepting, &*listener);
        })?;
        Ok(Self {
            shared,
            address,
            threads: Mutex::new(vec![thread]),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to `peer` at `address`, and again whenever that ends. Another address than before ends
    /// the connection; `endpoint` numbers the addresses. Nothing where the peer was shut out.
    pub fn set_peer(&self, peer: NodeId, address: SocketAddr, endpoint: u64) -> io::Result<()> {
        let mut peers = self.shared.peers();
        if self.shared.removed().contains(&peer) {
            return Ok(());
        }
        if let Some(outbox) = peers.get(&peer) {
            outbox.move_to(address, endpoint);
            return Ok(());
        }
        let outbox = Arc::new(Outbox::new(peer, address, endpoint));
        peers.insert(peer, Arc::clone(&outbox));
        drop(peers);
        let shared = Arc::clone(&self.shared);
        let thread = world::spawn_spine("replica-send", move || {
            outgoing::send_loop(&shared, &outbox);
        })?;
        self.threads().push(thread);
        Ok(())
    }

    /// Ends the connection to `peer`, and takes nothing from it any more.
    pub fn remove_peer(&self, peer: NodeId) {
        if let Some(outbox) = self.shared.peers().remove(&peer) {
            outbox.close();
        }
    }

    /// As [`Self::remove_peer`], for ever: neither called nor heard, and told why when it calls.
    pub fn shut_out(&self, peer: NodeId) {
        self.shared.removed().insert(peer);
        self.remove_peer(peer);
    }

    /// These are heard though nobody said yet where they are found: they say so themselves. Instead of those
    /// that were admitted before.
    pub fn admit(&self, nodes: BTreeSet<NodeId>) {
        *self.shared.admitted() = nodes;
    }

    /// Ends the connection to `peer`; another one is made.
    pub fn reconnect(&self, peer: NodeId) {
        if let Some(outbox) = self.shared.peers().get(&peer) {
            outbox.give_up();
        }
    }

    /// Hands a message over to the connection; without one it is lost.
    pub fn send(&self, to: NodeId, message: &Message) {
        self.push(to, message, false);
    }

    /// As [`Self::send`], a few milliseconds later: nobody waits for it.
    pub fn send_lingering(&self, to: NodeId, message: &Message) {
        self.push(to, message, true);
    }

    fn push(&self, to: NodeId, message: &Message, may_linger: bool) {
        let outbox = self.shared.peers().get(&to).cloned();
        if let Some(outbox) = outbox {
            outbox.push(frame::encode(message), may_linger);
        }
    }

    /// Hands a note over to the connection. False where there is none that takes it.
    pub fn note(&self, to: NodeId, note: &[u8]) -> bool {
        let outbox = self.shared.peers().get(&to).cloned();
        note.len() <= NOTE_LEN_MAX && outbox.is_some_and(|it| it.push_note(frame::wrap_note(note)))
    }

    /// The connections to all peers.
    pub fn links(&self) -> Vec<Link> {
        let peers = self.shared.peers();
        peers.values().map(|outbox| outbox.link()).collect()
    }

    /// For how long nothing was heard of `peer`, at most since the start.
    pub fn silence(&self, peer: NodeId) -> Duration {
        let last = self.shared.heard().get(&peer).copied();
        let now = self.shared.clock.monotonic();
        now.saturating_sub(last.unwrap_or(self.shared.began))
    }

    /// Who was refused here, the last one first.
    pub fn refusals(&self) -> Vec<Refused> {
        self.shared.refusals().all(self.shared.clock.monotonic())
    }

    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Traffic {
            sent_bytes: read(&counters.sent_bytes),
            received_bytes: read(&counters.received_bytes),
            garbage: read(&counters.garbage),
            refused: read(&counters.refused),
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        for outbox in self.shared.peers().values() {
            outbox.close();
        }
        // Wakes the thread that accepts; where that fails there is nobody to wake.
        drop(self.shared.net.connect(self.address, CONNECT_MAX));
        for thread in std::mem::take(&mut *self.threads()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the transport had panicked");
            }
        }
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Outbox>>> {
        self.peers
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    fn removed(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.removed
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    fn admitted(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.admitted
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    /// Whether what `peer` says is listened to. One lock after the other, never one inside another.
    fn hears(&self, peer: NodeId) -> bool {
        let is_removed = self.removed().contains(&peer);
        let is_called = self.peers().contains_key(&peer);
        !is_removed && (is_called || self.admitted().contains(&peer))
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, Duration>> {
        self.heard
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    /// Remembers it, and logs it where that is not too much.
    fn refuse(&self, address: SocketAddr, node: Option<NodeId>, cause: String) {
        let now = self.clock.monotonic();
        let is_told = self.refusals().note(address.ip(), node, cause.clone(), now);
        if is_told {
            let node = node.map(|NodeId(node)| format!("{node:032x}"));
            tracing::warn!(%address, node, cause, "a connection of a node was refused");
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}

impl Counters {
    fn add(counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
