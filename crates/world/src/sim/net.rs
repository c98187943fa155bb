//! Connections in memory that are partitioned, cut and refused on demand.
//!
//! Bytes arrive at once, whole and in order, as TCP gives them, or not at all. Loss, reordering
//! and duplication of messages belong to whoever drives a protocol's state machine, not here.
//! Time is [`Clock`]'s: a timeout ends when the test advances it, never by waiting.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Clock;
use crate::{
    Clock as _,
    net::{Listener, Stream},
};

#[cfg(test)]
mod tests;

/// Bytes under way in one direction; a writer beyond it waits. Of the order of a socket's buffers.
const PIPE_LEN_MAX: usize = 256 * 1024;

/// Connections a listener holds for `accept`; more are refused. The usual backlog of Linux.
const BACKLOG_LEN_MAX: usize = 4096;

/// The first port given to who asks for none: the start of IANA's dynamic range.
const PORT_FREE_MIN: u16 = 49_152;

type PipeId = u64;

/// A network of hosts, seen from one of them. Clones see it from the same host.
#[derive(Clone)]
pub struct Net {
    host: IpAddr,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<SocketAddr, Backlog>,
    pipes: BTreeMap<PipeId, Pipe>,
    /// Each pair once, the lower address first.
    partitions: BTreeSet<(IpAddr, IpAddr)>,
    pipes_made: PipeId,
    listeners_made: u64,
    ports: BTreeMap<IpAddr, u16>,
}

/// Connections nobody accepted yet.
#[derive(Debug)]
struct Backlog {
    /// Tells a listener from one of an earlier life of its host at the same address.
    listener: u64,
    ends: VecDeque<End>,
}

/// One direction of a connection.
#[derive(Debug)]
struct Pipe {
    from: IpAddr,
    to: IpAddr,
    bytes: VecDeque<u8>,
    /// The writer is done: what is left is read, then the stream ends.
    ended: bool,
    /// The reader is gone: writing is in vain.
    abandoned: bool,
    cut: bool,
}

/// One side of a connection before it belongs to a [`SimStream`].
#[derive(Debug)]
struct End {
    incoming: PipeId,
    outgoing: PipeId,
    peer: SocketAddr,
}

#[derive(Debug)]
struct SimStream {
    net: Net,
    end: End,
    timeouts: Mutex<Timeouts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
}

#[derive(Debug)]
struct SimListener {
    net: Net,
    id: u64,
    address: SocketAddr,
}

impl Net {
    /// A network without faults, seen from `host`.
    pub fn new(clock: &Clock, host: IpAddr) -> Self {
        let shared = Arc::new(Shared {
            clock: clock.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let watcher = Arc::downgrade(&shared);
        clock.watch(move || {
            if let Some(shared) = watcher.upgrade() {
                // Taken so that nobody is between looking at the time and waiting.
                drop(shared.lock());
                shared.changed.notify_all();
            }
        });
        Self { host, shared }
    }

    /// The same network seen from another host.
    #[must_use]
    pub fn at(&self, host: IpAddr) -> Self {
        Self {
            host,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Holds back every byte between two hosts and lets connecting time out.
    pub fn partition(&self, a: IpAddr, b: IpAddr) {
        self.change(|state| {
            state.partitions.insert(pair(a, b));
        });
    }

    /// Ends a partition; what was held back arrives.
    pub fn heal(&self, a: IpAddr, b: IpAddr) {
        self.change(|state| {
            state.partitions.remove(&pair(a, b));
        });
    }

    /// Resets every connection between two hosts; bytes under way are lost.
    pub fn cut(&self, a: IpAddr, b: IpAddr) {
        self.change(|state| state.cut(|pipe| pair(pipe.from, pipe.to) == pair(a, b)));
    }

    /// The end of a host's machine: its connections are reset, its listeners gone.
    pub fn end(&self, host: IpAddr) {
        self.change(|state| {
            state.cut(|pipe| pipe.from == host || pipe.to == host);
            state.listeners.retain(|address, _| address.ip() != host);
        });
    }

    fn change(&self, body: impl FnOnce(&mut State)) {
        body(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// Looks until `ready` answers, again after each change; without an answer at the end of
    /// `timeout` on the simulated clock: `TimedOut`.
    fn wait<T>(
        &self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(&mut State) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let deadline = timeout.map(|timeout| self.shared.clock.monotonic().saturating_add(timeout));
        let mut state = self.shared.lock();
        loop {
            if let Some(answer) = ready(&mut state) {
                drop(state);
                self.shared.changed.notify_all();
                return answer;
            }
            if deadline.is_some_and(|deadline| self.shared.clock.monotonic() >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stream(&self, end: End) -> Box<dyn Stream> {
        Box::new(SimStream {
            net: self.clone(),
            end,
            timeouts: Mutex::default(),
        })
    }
}

fn pair(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    (a.min(b), a.max(b))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl State {
    fn cut(&mut self, meant: impl Fn(&Pipe) -> bool) {
        for pipe in self.pipes.values_mut().filter(|pipe| meant(pipe)) {
            pipe.cut = true;
            pipe.bytes.clear();
        }
    }

    fn parted(&self, a: IpAddr, b: IpAddr) -> bool {
        self.partitions.contains(&pair(a, b))
    }

    fn port(&mut self, host: IpAddr) -> io::Result<u16> {
        let next = self.ports.entry(host).or_insert(PORT_FREE_MIN);
        let port = *next;
        *next = port.checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(port)
    }

    fn pipe(&mut self, from: IpAddr, to: IpAddr) -> PipeId {
        self.pipes_made += 1;
        let pipe = Pipe {
            from,
            to,
            bytes: VecDeque::new(),
            ended: false,
            abandoned: false,
            cut: false,
        };
        self.pipes.insert(self.pipes_made, pipe);
        self.pipes_made
    }

    fn connect(&mut self, from: IpAddr, to: SocketAddr) -> io::Result<End> {
        if self.parted(from, to.ip()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self.listeners.get(&to) {
            Some(backlog) if backlog.ends.len() < BACKLOG_LEN_MAX => {}
            _ => return Err(io::ErrorKind::ConnectionRefused.into()),
        }
        let caller = SocketAddr::new(from, self.port(from)?);
        let there = self.pipe(from, to.ip());
        let back = self.pipe(to.ip(), from);
        let accepted = End {
            incoming: there,
            outgoing: back,
            peer: caller,
        };
        if let Some(backlog) = self.listeners.get_mut(&to) {
            backlog.ends.push_back(accepted);
        }
        Ok(End {
            incoming: back,
            outgoing: there,
            peer: to,
        })
    }

    fn read(&mut self, id: PipeId, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let pipe = self.pipes.get_mut(&id)?;
        if pipe.cut {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.partitions.contains(&pair(pipe.from, pipe.to)) && !pipe.abandoned {
            return None;
        }
        let len = buffer.len().min(pipe.bytes.len());
        if len == 0 && !buffer.is_empty() && !pipe.ended {
            return None;
        }
        for (byte, read) in buffer.iter_mut().zip(pipe.bytes.drain(..len)) {
            *byte = read;
        }
        Some(Ok(len))
    }

    fn write(&mut self, id: PipeId, bytes: &[u8]) -> Option<io::Result<usize>> {
        let pipe = self.pipes.get_mut(&id)?;
        if pipe.cut {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.ended || pipe.abandoned {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(PIPE_LEN_MAX - pipe.bytes.len());
        if len == 0 && !bytes.is_empty() {
            return None;
        }
        pipe.bytes.extend(&bytes[..len]);
        Some(Ok(len))
    }

    fn shut_down(&mut self, end: &End) {
        if let Some(pipe) = self.pipes.get_mut(&end.outgoing) {
            pipe.ended = true;
        }
        if let Some(pipe) = self.pipes.get_mut(&end.incoming) {
            pipe.ended = true;
            pipe.abandoned = true;
            pipe.bytes.clear();
        }
    }

    /// After a stream is dropped: its pipes go once nobody is left at the other side either.
    fn forget(&mut self, end: &End) {
        self.shut_down(end);
        let both_gone = [end.incoming, end.outgoing]
            .iter()
            .all(|id| self.pipes.get(id).is_none_or(|pipe| pipe.abandoned));
        if both_gone {
            self.pipes.remove(&end.incoming);
            self.pipes.remove(&end.outgoing);
        }
    }
}

impl crate::Net for Net {
    /// The timeout of a partition is over at once: nobody else could end it earlier.
    fn connect(&self, to: SocketAddr, _timeout: Duration) -> io::Result<Box<dyn Stream>> {
        let end = self.shared.lock().connect(self.host, to)?;
        self.shared.changed.notify_all();
        Ok(self.stream(end))
    }

    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        if at.ip() != self.host && !at.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut state = self.shared.lock();
        let port = match at.port() {
            0 => state.port(self.host)?,
            port => port,
        };
        let address = SocketAddr::new(self.host, port);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners_made += 1;
        let id = state.listeners_made;
        let backlog = Backlog {
            listener: id,
            ends: VecDeque::new(),
        };
        state.listeners.insert(address, backlog);
        drop(state);
        Ok(Box::new(SimListener {
            net: self.clone(),
            id,
            address,
        }))
    }
}

impl Listener for SimListener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        let end = self
            .net
            .wait(None, |state| match state.listeners.get_mut(&self.address) {
                Some(backlog) if backlog.listener == self.id => backlog.ends.pop_front().map(Ok),
                _ => Some(Err(io::ErrorKind::ConnectionAborted.into())),
            })?;
        Ok(self.net.stream(end))
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.change(|state| {
            let mine = |backlog: &Backlog| backlog.listener == self.id;
            if !state.listeners.get(&self.address).is_some_and(mine) {
                return;
            }
            if let Some(backlog) = state.listeners.remove(&self.address) {
                backlog.ends.iter().for_each(|end| state.forget(end));
            }
        });
    }
}

impl SimStream {
    fn timeouts(&self) -> MutexGuard<'_, Timeouts> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn positive(timeout: Duration) -> io::Result<Option<Duration>> {
    if timeout.is_zero() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Some(timeout))
}

impl Read for SimStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = self.timeouts().read;
        let id = self.end.incoming;
        self.net.wait(timeout, |state| state.read(id, buffer))
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = self.timeouts().write;
        let id = self.end.outgoing;
        self.net.wait(timeout, |state| state.write(id, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for SimStream {
    fn peer(&self) -> SocketAddr {
        self.end.peer
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.timeouts().read = positive(timeout)?;
        Ok(())
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.timeouts().write = positive(timeout)?;
        Ok(())
    }

    fn shut_down(&self) -> io::Result<()> {
        self.net.change(|state| state.shut_down(&self.end));
        Ok(())
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.change(|state| state.forget(&self.end));
    }
}
