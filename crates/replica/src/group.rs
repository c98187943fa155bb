//! [`Group`]: a journal on several nodes. The thin driver of the [`machine`](crate::machine), and the
//! second [`Journal`]: whoever writes to one cannot tell it from [`wal::Local`], but for who may write.
//!
//! Threads: whoever brings an event steps the machine and carries out what is quick, one at a time, and one
//! thread does so as time passes; one appends to the log and cuts it, in order, where no writer that waits
//! does that; one reads from it for replicas that are behind; one reads bases and takes them in. The connections have their own
//! ([`crate::transport`]).

mod bases;
mod bound;
mod core;
mod files;
mod inbox;
mod log;
mod rebuild;
mod requests;
mod telling;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use wal::{
    APPEND_LEN_MAX, Appended, Epoch, Error, Identity, Journal, Kind, Local, Lsn, Pin,
    RECORD_LEN_MAX, RecordKind, Records,
};
use world::{Clock, Net, Random};

use crate::{
    machine::{
        ANNOUNCEMENT, Event, Limits, NodeId, Order, Outcome, Refusal, Role, SessionId, Status, Time,
    },
    transport::{Credentials, Link, Note, Refused, Start, Traffic, Transport},
};
pub use bases::{Base, Bases, Derived, Receiving, Transfer};
pub use bound::Bound;
pub use files::{Beginning, make_record};
use inbox::{Inbox, Notes};
use log::Log;
use requests::{Request, Requests};
use telling::Telling;
pub use telling::Told;

/// What the header of a record takes in an append beside its bytes.
const RECORD_HEADER_LEN: usize = 5;

/// Bounds for a handful of nodes in one building or ship.
pub const LIMITS: Limits = Limits {
    silence: Duration::from_secs(3),
    heartbeat: Duration::from_millis(250),
    window_bytes: 64 << 20,
    window_records: 65_536,
    entries_bytes: 1 << 20,
    catch_up_duration: Duration::from_secs(3600),
    catch_up_records: u64::MAX,
    progress: Duration::from_secs(10),
    waiting_writes: 4096,
    write_wait: Duration::from_secs(10),
    rebuilds: 1,
    validation: Duration::from_secs(2),
    retained_records: 10_000_000,
    lease_margin: Duration::from_millis(500),
    log_lines: 4096,
};

/// What a group is opened with.
pub struct Options {
    pub me: NodeId,
    pub cluster: u128,
    /// The log. [`wal::Options::shown`] is the group's to set.
    pub journal: wal::Options,
    /// The same on every node.
    pub identity: Identity,
    /// The file of the authority record, as [`make_record`] made it.
    pub authority: PathBuf,
    /// State derived from the journal. Without any nothing can be rebuilt but from the log.
    pub derived: Option<Derived>,
    pub limits: Limits,
    /// Acknowledges only under a coordinator's lease: [`Group::leased`].
    pub is_leased: bool,
    pub listen: SocketAddr,
    pub peers: BTreeMap<NodeId, SocketAddr>,
    pub credentials: Credentials,
    pub net: Arc<dyn Net>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("me", &self.me)
            .field("journal", &self.journal)
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// This node's part of a replicated journal.
pub struct Group {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads of a group share with its callers.
pub(crate) struct Shared {
    me: NodeId,
    /// Another one once a base was begun.
    local: RwLock<Arc<Local>>,
    transport: Transport,
    log: Arc<Log>,
    inbox: Arc<Inbox>,
    notes: Arc<Notes>,
    requests: Requests,
    numbers: AtomicU64,
    role: Mutex<Role>,
    /// As of the last tick, or the last order that was carried out.
    status: Mutex<Option<Status>>,
    /// Bases on their way, at most one for each session that is alive, and those that went whole since the
    /// last one began.
    transfers: Mutex<BTreeMap<SessionId, Transfer>>,
    telling: Telling,
    /// Why the owner could not write.
    unfit: Mutex<Option<String>>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
}

impl Group {
    /// Opens this node's log, or makes it, and its record, and takes its place among the others: as a
    /// replica, or as the holder that it is on record as.
    pub fn open(options: Options) -> Result<Self, Error> {
        let (mut files, local) = files::Files::open(&options)?;
        let log = Arc::new(Log::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&log)));
        let notes = Arc::new(Notes::default());
        let (hearing, noting) = (Arc::clone(&inbox), Arc::clone(&notes));
        let random = Arc::clone(&options.random);
        let transport = Transport::start(Start {
            me: options.me,
            cluster: options.cluster,
            listen: options.listen,
            credentials: options.credentials.clone(),
            net: Arc::clone(&options.net),
            clock: Arc::clone(&options.clock),
            inbox: Arc::new(move |heard| core::hear(&hearing, &noting, &*random, heard)),
        })
        .map_err(|error| {
            let message = format!(
                "cannot listen for other nodes at {}: {error}",
                options.listen
            );
            Error::new(Kind::Io, message)
        })?;
        let shared = Arc::new(Shared {
            me: options.me,
            local: RwLock::new(local),
            transport,
            log,
            inbox,
            notes,
            requests: Requests::default(),
            numbers: AtomicU64::new(1),
            role: Mutex::new(Role::Replica { holder: None }),
            status: Mutex::default(),
            transfers: Mutex::default(),
            telling: Telling::default(),
            unfit: Mutex::default(),
            random: Arc::clone(&options.random),
            clock: Arc::clone(&options.clock),
        });
        let durable = files.durable(&shared)?;
        let threads = core::start(&shared, files, durable, &options)?;
        let group = Self {
            shared,
            threads: Mutex::new(threads),
        };
        for (peer, address) in &options.peers {
            group.set_peer(*peer, *address, 1)?;
        }
        Ok(group)
    }

    /// Where `peer` is found. `endpoint` numbers its addresses.
    pub fn set_peer(&self, peer: NodeId, address: SocketAddr, endpoint: u64) -> Result<(), Error> {
        self.shared
            .transport
            .set_peer(peer, address, endpoint)
            .map_err(|error| Error::new(Kind::Io, format!("cannot connect to {address}: {error}")))
    }

    /// These are heard though nobody said yet where they are found, instead of those that were admitted before.
    pub fn admit(&self, nodes: BTreeSet<NodeId>) {
        self.shared.transport.admit(nodes);
    }

    /// `peer` is neither called nor heard any more, whatever certificate it has.
    pub fn shut_out(&self, peer: NodeId) {
        self.shared.transport.shut_out(peer);
    }

    /// Says something to the owner of `peer`, up to [`NOTE_LEN_MAX`](crate::transport::NOTE_LEN_MAX). It
    /// may be lost; false where it certainly is.
    pub fn note(&self, peer: NodeId, note: &[u8]) -> bool {
        self.shared.transport.note(peer, note)
    }

    /// What the owners of other nodes said since this was called last.
    pub fn notes(&self) -> VecDeque<(NodeId, Note)> {
        self.shared.notes.take()
    }

    /// The connections to the others.
    pub fn links(&self) -> Vec<Link> {
        self.shared.transport.links()
    }

    /// For how long nothing was heard of `peer`, at most since this was opened.
    pub fn silence(&self, peer: NodeId) -> Duration {
        self.shared.transport.silence(peer)
    }

    /// Who was refused here, the last one first.
    pub fn refusals(&self) -> Vec<Refused> {
        self.shared.transport.refusals()
    }

    /// Where this node listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.transport.address()
    }

    pub fn role(&self) -> Role {
        *self.shared.role()
    }

    /// What this node knows, as of a moment ago; nothing right after it was opened.
    pub fn status(&self) -> Option<Status> {
        self.shared.status().clone()
    }

    /// Bases that are on their way, by the session they belong to; and the last that arrived.
    pub fn transfers(&self) -> BTreeMap<SessionId, Transfer> {
        self.shared.transfers().clone()
    }

    /// What went over the connections, since this was opened.
    pub fn traffic(&self) -> Traffic {
        self.shared.transport.traffic()
    }

    /// What happened on this node since it was started.
    pub fn told(&self) -> Told {
        self.shared.telling.told()
    }

    /// Says how far state derived from the journal has come: in memory, and on disk.
    pub fn applied(&self, applied: Lsn, derived: Lsn) {
        self.shared.inbox.leave(Event::Applied { applied, derived });
    }

    /// Monotonic time of this group: what ends of leases are told in.
    pub fn now(&self) -> Time {
        Time(self.shared.clock.monotonic())
    }

    /// A coordinator's lease lets this node hold `epoch`, and its starts, until then.
    pub fn leased(&self, epoch: Epoch, until: Time) -> Result<(), Error> {
        let fresh = core::epoch_id(&*self.shared.random)?;
        self.shared.inbox.leave(Event::Leased {
            epoch,
            until,
            fresh,
        });
        Ok(())
    }

    /// The coordinator's lease is gone, or is about to be given up.
    pub fn lease_lost(&self) {
        self.shared.inbox.leave(Event::LeaseLost);
    }

    /// The owner could not write, for this reason, or could again: a promotion without force is refused
    /// here, whoever orders it.
    pub fn set_unfit(&self, why: Option<String>) {
        *self.shared.unfit() = why;
    }

    /// As far as the owner said, it could write.
    pub fn is_fit(&self) -> bool {
        self.shared.unfit().is_none()
    }

    /// Carries out an operator's order, and waits for its end.
    pub fn order(&self, order: Order) -> Result<Outcome, Error> {
        self.begin(order)?.wait().ok_or_else(closed)
    }

    /// As [`Self::order`], and waits no longer than `patience`. `None`: it is under way, and is not taken back.
    pub fn order_within(&self, order: Order, patience: Duration) -> Result<Option<Outcome>, Error> {
        let request = self.begin(order)?;
        let ended = self.shared.requests.wait_within(request, patience);
        ended.map(|ended| ended.ok_or_else(closed)).transpose()
    }

    fn begin(&self, order: Order) -> Result<Request, Error> {
        let is_unforced = matches!(
            order,
            Order::Promote { force: None, .. } | Order::Succeed { .. }
        );
        if is_unforced && let Some(why) = &*self.shared.unfit() {
            return Err(Error::new(Kind::Invalid, why.clone()));
        }
        let epoch_id = core::epoch_id(&*self.shared.random)?;
        self.shared.begin(|number| Event::Ordered {
            number,
            order,
            epoch_id,
        })
    }

    fn append_under(
        &self,
        records: &[(RecordKind, &[u8])],
        under: Option<Epoch>,
    ) -> Result<Appended, Error> {
        check(records)?;
        let records = records
            .iter()
            .map(|(kind, bytes)| (*kind, Arc::from(*bytes)))
            .collect();
        let written = self.shared.write(|number| Event::Write {
            number,
            records,
            under,
        })?;
        match written {
            Outcome::Written { first, last } => Ok(Appended { first, last }),
            outcome => Err(refused("append", &outcome)),
        }
    }

    /// A position with every write that was acknowledged, by whatever node, before this was called.
    pub fn confirm(&self) -> Result<Lsn, Error> {
        match self.shared.ask(|number| Event::Confirm { number })? {
            Outcome::Confirmed { applied } => Ok(applied),
            outcome => Err(refused("read what every node acknowledged", &outcome)),
        }
    }
}

impl Shared {
    /// Hands a request to the machine and waits for its answer.
    fn ask(&self, event: impl FnOnce(u64) -> Event) -> Result<Outcome, Error> {
        self.begin(event)?.wait().ok_or_else(closed)
    }

    /// The same, and does what it waits for itself where nobody else is at it.
    fn write(&self, event: impl FnOnce(u64) -> Event) -> Result<Outcome, Error> {
        let (number, request) = self.open_request();
        if !self.inbox.push_helping(event(number)) {
            return Err(closed());
        }
        if request.is_waiting() {
            log::help(self);
        } else {
            self.log.kick();
        }
        request.wait().ok_or_else(closed)
    }

    fn begin(&self, event: impl FnOnce(u64) -> Event) -> Result<Request, Error> {
        let (number, request) = self.open_request();
        if !self.inbox.push_from_outside(event(number)) {
            return Err(closed());
        }
        Ok(request)
    }

    fn open_request(&self) -> (u64, Request) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        (number, self.requests.begin(number))
    }

    fn unfit(&self) -> MutexGuard<'_, Option<String>> {
        self.unfit
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    fn role(&self) -> MutexGuard<'_, Role> {
        self.role
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, Option<Status>> {
        self.status
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    /// The log, as it is at the moment: closed, when a base has just taken its place.
    fn local(&self) -> Arc<Local> {
        let local = self.local.read();
        Arc::clone(&local.expect("never poisoned: holds no code that panics"))
    }

    fn change_local(&self, local: Local) {
        let mut held = self
            .local
            .write()
            .expect("never poisoned: holds no code that panics");
        *held = Arc::new(local);
    }

    fn transfers(&self) -> MutexGuard<'_, BTreeMap<SessionId, Transfer>> {
        self.transfers
            .lock()
            .expect("never poisoned: holds no code that panics")
    }

    /// What went whole before is forgotten.
    fn begin_transfer(&self, session: SessionId, transfer: Transfer) {
        let mut transfers = self.transfers();
        transfers.retain(|_, before| !before.is_whole());
        transfers.insert(session, transfer);
    }

    fn end_transfer(&self, session: SessionId) {
        self.transfers()
            .retain(|of, transfer| *of != session || transfer.is_whole());
    }

    /// So many parts of a base are done, and so many bytes went for the last of them.
    fn transferred(&self, session: SessionId, parts: u32, bytes: u64) {
        if let Some(transfer) = self.transfers().get_mut(&session) {
            transfer.parts_done = transfer.parts_done.max(parts);
            transfer.bytes_done += bytes;
        }
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the replicated journal was closed")
}

/// What a caller is told who was not answered as wished.
fn refused(attempted: &str, outcome: &Outcome) -> Error {
    let (kind, what) = match outcome {
        Outcome::Unknown(refusal) => (
            Kind::Fenced,
            format!("{refusal}; whether it was written is not known"),
        ),
        Outcome::Refused(refusal) => {
            let kind = match refusal {
                Refusal::TooFewReplicas { .. } | Refusal::TooManyWaiting => Kind::Io,
                Refusal::LogFailed => Kind::Poisoned,
                _ => Kind::Fenced,
            };
            (kind, refusal.to_string())
        }
        outcome => (Kind::Invalid, format!("{outcome:?}")),
    };
    Error::new(kind, format!("cannot {attempted}: {what}"))
}

impl Journal for Group {
    fn identity(&self) -> Identity {
        self.shared.local().identity()
    }

    fn append(&self, records: &[(RecordKind, &[u8])]) -> Result<Appended, Error> {
        self.append_under(records, None)
    }

    fn safe_point(&self) -> Lsn {
        self.shared.local().safe_point()
    }

    fn first_retained(&self) -> Lsn {
        self.shared.local().first_retained()
    }

    fn read(&self, from: Lsn) -> Result<Records<'_>, Error> {
        self.shared.local().read_on(from)
    }

    fn wait_above(&self, seen: Lsn, timeout: Duration) -> Lsn {
        self.shared.local().wait_above(seen, timeout)
    }

    fn pin(&self, from: Lsn) -> Result<Pin, Error> {
        self.shared.local().pin(from)
    }

    fn milestones(&self, from: Lsn) -> Vec<(Lsn, u64)> {
        self.shared.local().milestones(from)
    }

    fn release_below(&self, keep_from: Lsn) -> Result<(), Error> {
        let local = self.shared.local();
        let Some(history) = self.status().map(|status| status.history) else {
            // Nothing goes before it is known what to keep of it; whoever releases does so again.
            return Ok(());
        };
        // The ids of epochs are in their first records, and other logs are compared by them. What goes
        // was committed, so no cut takes any of it back.
        let starts = history.starts.iter();
        let noted: Vec<wal::EpochStart> = starts
            .filter(|start| start.first < keep_from)
            .map(rebuild::start)
            .collect();
        local.note_epochs(&noted)?;
        local.release_below(keep_from)?;
        let first = local.first_retained();
        self.shared.inbox.push(Event::Retained {
            first,
            wants: keep_from,
        });
        Ok(())
    }

    fn settle(&self) -> Result<(), Error> {
        self.shared.local().settle()
    }
}

/// As the log would refuse them, which is too late once others have them.
fn check(records: &[(RecordKind, &[u8])]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::new(Kind::Invalid, what));
    if records.is_empty() {
        return refuse("append without a record".to_owned());
    }
    let mut bytes = 0;
    for (kind, record) in records {
        if *kind == RecordKind(0) || *kind == ANNOUNCEMENT || *kind == RecordKind::RESET {
            return refuse(format!("records of kind {} are not for appends", kind.0));
        }
        if record.len() > RECORD_LEN_MAX {
            let len = record.len();
            return refuse(format!("record of {len} bytes; at most {RECORD_LEN_MAX}"));
        }
        bytes += RECORD_HEADER_LEN + record.len();
    }
    if bytes > APPEND_LEN_MAX {
        return refuse(format!("append of {bytes} bytes; at most {APPEND_LEN_MAX}"));
    }
    Ok(())
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("me", &self.shared.me)
            .field("role", &*self.shared.role())
            .field("local", &self.shared.local())
            .finish_non_exhaustive()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let threads = std::mem::take(
            &mut *self
                .threads
                .lock()
                .expect("never poisoned: holds no code that panics"),
        );
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the replicated journal had panicked");
            }
        }
    }
}
