//! Clients that write through a node's store socket, as the product's own commands do, and note what they
//! were told.
//!
//! Most stay with a node until it refuses them. A few ask every node in turn, so that one which
//! acknowledges where it must not is met.

use std::{
    collections::BTreeMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use store::{Kind, Store, TableId, Transaction, socket::Remote};
use world::{Clock, RealClock};

use super::{
    super::crash::dice::Dice,
    history::{Action, Operation, Told, Transfer, What},
    rows::{self, Account},
};

/// How long a client rests that nobody takes a write of. Arbitrary: short against a failover.
const PAUSE: Duration = Duration::from_millis(5);

/// One client in so many asks every node in turn.
const ROAMERS: u16 = 4;

/// How long a client that writes hardly anything rests after each row.
const REST: Duration = Duration::from_millis(5);

const NO_NODE: usize = usize::MAX;

/// One client in so many waits for a node that answers nobody.
const PATIENT: u16 = 3;

/// The socket of a node's store, in its data directory.
pub(super) const STORE_SOCKET: &str = "store.socket";

/// The load of one round.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Operation>>>,
}

#[derive(Debug)]
struct Shared {
    sockets: Vec<PathBuf>,
    round: u32,
    stop: AtomicBool,
    /// Hardly anything is to be written.
    rests: AtomicBool,
    /// A node that answers nobody, or [`NO_NODE`].
    silent: AtomicUsize,
    clock: Arc<RealClock>,
    /// The first acknowledgement of each node after it was last asked for one.
    firsts: Vec<Mutex<Option<Duration>>>,
    /// Of each node, so that clients can be made to give up on it.
    streams: Vec<Mutex<BTreeMap<u16, UnixStream>>>,
    acknowledged: AtomicU32,
}

impl Load {
    /// Starts `clients` on the nodes whose store sockets these are.
    pub(super) fn start(
        sockets: Vec<PathBuf>,
        round: u32,
        clients: u16,
        clock: &Arc<RealClock>,
        dice: &mut Dice,
    ) -> Self {
        let nodes = sockets.len();
        let shared = Arc::new(Shared {
            sockets,
            round,
            stop: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            silent: AtomicUsize::new(NO_NODE),
            clock: Arc::clone(clock),
            firsts: (0..nodes).map(|_| Mutex::default()).collect(),
            streams: (0..nodes).map(|_| Mutex::default()).collect(),
            acknowledged: AtomicU32::new(0),
        });
        let clients = (0..clients)
            .map(|number| {
                let (shared, dice) = (Arc::clone(&shared), Dice::new(dice.next()));
                thread::spawn(move || Client::new(&shared, number, dice).work())
            })
            .collect();
        Self { shared, clients }
    }

    /// Acknowledgements so far.
    pub(super) fn acknowledged(&self) -> u32 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// From here on only the first client that stays and the first that roams write, a row at a time.
    pub(super) fn rest(&self, rests: bool) {
        self.shared.rests.store(rests, Ordering::Relaxed);
    }

    /// Forgets which nodes acknowledged.
    pub(super) fn forget_firsts(&self) {
        for first in &self.shared.firsts {
            *lock(first) = None;
        }
    }

    /// When `node` first acknowledged, since that was forgotten.
    pub(super) fn first(&self, node: usize) -> Option<Duration> {
        *lock(&self.shared.firsts[node])
    }

    /// Nobody else asks `node` from here on: it would not answer, and be waited for.
    pub(super) fn avoid(&self, node: Option<usize>) {
        let node = node.unwrap_or(NO_NODE);
        self.shared.silent.store(node, Ordering::Relaxed);
    }

    /// Clients that wait for `node` wait no longer, but for every third: that one hears what the node still
    /// has to say.
    pub(super) fn give_up_on(&self, node: usize) {
        for (client, stream) in lock(&self.shared.streams[node]).iter() {
            if !client.is_multiple_of(PATIENT) {
                // Fails for a stream that is closed already.
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }

    /// What they were told, after each has had its last answer.
    pub(super) fn stop(self) -> Vec<Operation> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut operations = Vec::new();
        for client in self.clients {
            operations.extend(client.join().expect("a client does not panic"));
        }
        operations
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Client<'a> {
    shared: &'a Arc<Shared>,
    number: u16,
    dice: Dice,
    roams: bool,
    at: usize,
    stores: Vec<Option<(Store, TableId)>>,
    inserts: u32,
    values: u64,
    operations: Vec<Operation>,
}

impl<'a> Client<'a> {
    fn new(shared: &'a Arc<Shared>, number: u16, dice: Dice) -> Self {
        let nodes = shared.sockets.len();
        Self {
            shared,
            number,
            dice,
            roams: number % ROAMERS == ROAMERS - 1,
            at: usize::from(number) % nodes,
            stores: (0..nodes).map(|_| None).collect(),
            inserts: 0,
            values: 0,
            operations: Vec::new(),
        }
    }

    fn work(mut self) -> Vec<Operation> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.shared.rests.load(Ordering::Relaxed) {
                self.shared.clock.sleep(REST);
                if self.number != 0 && self.number != ROAMERS - 1 {
                    continue;
                }
            }
            if self.at == self.shared.silent.load(Ordering::Relaxed)
                && !self.number.is_multiple_of(PATIENT)
            {
                self.at = (self.at + 1) % self.stores.len();
            }
            let is_content = match self.store() {
                Some((store, table)) => self.attempt(&store, table),
                None => false,
            };
            if !is_content {
                self.stores[self.at] = None;
                self.shared.clock.sleep(PAUSE);
            }
            if !is_content || self.roams {
                self.at = (self.at + 1) % self.stores.len();
            }
        }
        self.operations
    }

    fn store(&mut self) -> Option<(Store, TableId)> {
        if self.stores[self.at].is_none() {
            let (shared, at, client) = (Arc::clone(self.shared), self.at, self.number);
            let dial = Box::new(move || {
                let stream = UnixStream::connect(&shared.sockets[at])?;
                lock(&shared.streams[at]).insert(client, stream.try_clone()?);
                Ok(stream)
            });
            let clock = Arc::clone(&self.shared.clock) as Arc<dyn Clock>;
            let store = Store::on(Arc::new(Remote::open("the node", dial, clock).ok()?));
            let table = store.table(rows::TABLE).ok()?;
            self.stores[self.at] = Some((store, table));
        }
        self.stores[self.at].clone()
    }

    /// One transaction. Whether the node is good for the next one.
    fn attempt(&mut self, store: &Store, table: TableId) -> bool {
        let begun = self.shared.clock.monotonic();
        let Ok(mut transaction) = store.begin() else {
            return false;
        };
        let Ok(what) = self.fill(&mut transaction, table) else {
            return false;
        };
        let (told, is_content) = match transaction.commit() {
            Ok(commit) => (Told::Acknowledged(commit.lsn.get()), true),
            Err(error) => match error.kind() {
                Kind::Conflict => (Told::NotDone, true),
                // By what the product says of these kinds.
                Kind::Full | Kind::Invalid | Kind::OutOfRange | Kind::Io => (Told::NotDone, false),
                _ => (Told::Unknown, false),
            },
        };
        let ended = self.shared.clock.monotonic();
        if let Told::Acknowledged(_) = told {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            lock(&self.shared.firsts[self.at]).get_or_insert(ended);
        }
        self.operations.push(Operation {
            client: self.number,
            node: self.at,
            begun,
            ended,
            what,
            told,
        });
        is_content
    }

    fn fill(
        &mut self,
        transaction: &mut Transaction,
        table: TableId,
    ) -> Result<What, store::Error> {
        match self.dice.below(10) {
            0..5 => self.fill_insert(transaction, table),
            5..7 => self.fill_transfer(transaction, table),
            _ => self.fill_register(transaction, table),
        }
    }

    fn fill_insert(
        &mut self,
        transaction: &mut Transaction,
        table: TableId,
    ) -> Result<What, store::Error> {
        self.inserts += 1;
        let (round, number) = (self.shared.round, self.inserts);
        let key = rows::insert(round, self.number, number);
        transaction.put(table, &key, &rows::written(round, self.number, number))?;
        Ok(What::Insert { number })
    }

    fn fill_register(
        &mut self,
        transaction: &mut Transaction,
        table: TableId,
    ) -> Result<What, store::Error> {
        let register = u8::try_from(self.dice.below(rows::REGISTERS.into())).expect("it is few");
        let key = rows::register(self.shared.round, register);
        let kind = self.dice.below(3);
        if kind == 0 {
            let value = self.value();
            transaction.put(table, &key, &value.to_le_bytes())?;
            let action = Action::Write { value };
            return Ok(What::Register { register, action });
        }
        let found = transaction.get(table, &key)?;
        let found = found.map_or(0, |value| rows::number(&value));
        let value = self.value();
        let action = if kind == 1 {
            let seen = rows::seen(self.shared.round, self.number);
            transaction.put(table, &seen, &value.to_le_bytes())?;
            Action::Read { found }
        } else {
            transaction.put(table, &key, &value.to_le_bytes())?;
            Action::Swap { found, value }
        };
        Ok(What::Register { register, action })
    }

    fn fill_transfer(
        &mut self,
        transaction: &mut Transaction,
        table: TableId,
    ) -> Result<What, store::Error> {
        let accounts = u64::from(rows::ACCOUNTS);
        let from = self.dice.below(accounts);
        let to = (from + 1 + self.dice.below(accounts - 1)) % accounts;
        let accounts = [from, to].map(|it| u8::try_from(it).expect("accounts are few"));
        let tag = self.value();
        let amount = i64::try_from(self.dice.range(1, 50)).expect("it is small");
        let mut found = [0; 2];
        for (place, change) in [-amount, amount].into_iter().enumerate() {
            let key = rows::account(self.shared.round, accounts[place]);
            let there = transaction.get(table, &key)?;
            let there = there.map_or_else(
                || Account {
                    balance: rows::OPENING_BALANCE,
                    tag: 0,
                },
                |value| rows::account_of(&value),
            );
            found[place] = there.tag;
            let account = Account {
                balance: there.balance + change,
                tag,
            };
            transaction.put(table, &key, &rows::account_bytes(account))?;
        }
        Ok(What::Transfer(Transfer {
            tag,
            accounts,
            found,
        }))
    }

    /// One that nobody else writes in this round, and not 0.
    fn value(&mut self) -> u64 {
        self.values += 1;
        (u64::from(self.number) + 1) << 40 | self.values
    }
}
