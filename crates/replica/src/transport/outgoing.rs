//! The connection to one peer: a bounded box of frames, and the thread that writes them.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};

use super::{
    CONNECT_MAX, Counters, Heard, KEEPALIVE, LINGER, LINGER_BYTES, LOOK_EVERY, Link,
    NOTES_WAITING_MAX, Note, OUTBOX_BYTES_MAX, RETRY_FIRST, RETRY_LAST, SILENCE_MAX, Shared,
    credentials,
    frame::{self, Broken, Frames},
    greeting::{Answer, GREETING_LEN_MAX, Hello},
    patience::{self, Patience},
};
use crate::machine::NodeId;

#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) peer: NodeId,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    endpoint: u64,
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Among `frames` is one that somebody waits for, or there are enough of them.
    is_due: bool,
    notes: VecDeque<Note>,
    /// Counts the connections that were made.
    connection: u64,
    /// What both speak, while frames are taken; else they are lost.
    speaks: Option<u16>,
    /// Why there is no connection.
    cause: String,
    /// The connection is to end, and another to be made.
    is_given_up: bool,
    is_closed: bool,
}

type Connection = StreamOwned<ClientConnection, Patience>;

impl Outbox {
    pub(super) fn new(peer: NodeId, address: SocketAddr, endpoint: u64) -> Self {
        Self {
            peer,
            state: Mutex::new(State {
                address,
                endpoint,
                frames: VecDeque::new(),
                bytes: 0,
                is_due: false,
                notes: VecDeque::new(),
                connection: 0,
                speaks: None,
                cause: String::new(),
                is_given_up: false,
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// `may_linger`: for up to [`LINGER`], so that others leave with it.
    pub(super) fn push(&self, frame: Vec<u8>, may_linger: bool) {
        let mut state = self.state();
        if state.speaks.is_none() || state.is_given_up {
            return;
        }
        let was_due = state.is_due;
        if state.bytes + frame.len() > OUTBOX_BYTES_MAX {
            state.is_given_up = true;
        } else {
            state.bytes += frame.len();
            state.frames.push_back(frame);
            state.is_due |= !may_linger || state.bytes >= LINGER_BYTES;
        }
        let is_first = state.frames.len() == 1;
        if is_first || state.is_due != was_due || state.is_given_up {
            self.changed.notify_all();
        }
    }

    /// Whether the connection takes it: it is there, and is not behind.
    pub(super) fn push_note(&self, note: Note) -> bool {
        let mut state = self.state();
        let is_taken =
            state.speaks.is_some() && !state.is_given_up && state.notes.len() < NOTES_WAITING_MAX;
        if is_taken {
            state.notes.push_back(note);
            self.changed.notify_all();
        }
        is_taken
    }

    pub(super) fn link(&self) -> Link {
        let state = self.state();
        Link {
            peer: self.peer,
            address: state.address,
            connection: state.connection,
            speaks: state.speaks,
            cause: state.cause.clone(),
        }
    }

    pub(super) fn move_to(&self, address: SocketAddr, endpoint: u64) {
        let mut state = self.state();
        if (state.address, state.endpoint) != (address, endpoint) {
            (state.address, state.endpoint) = (address, endpoint);
            state.is_given_up = true;
            self.changed.notify_all();
        }
    }

    pub(super) fn give_up(&self) {
        self.state().is_given_up = true;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Everything that waits; nothing after a while of idleness; `None` when the connection is to end. Where the
    /// owner ends it, what waits leaves first.
    fn take(&self) -> Option<(VecDeque<Vec<u8>>, VecDeque<Note>)> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), KEEPALIVE, |state| {
                let is_idle = state.frames.is_empty() && state.notes.is_empty();
                is_idle && !state.is_given_up && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, LINGER, |state| {
                let is_nothing = state.frames.is_empty() || !state.notes.is_empty();
                !is_nothing && !state.is_due && !state.is_given_up && !state.is_closed
            })
            .expect("never poisoned: holds no code that panics");
        if state.is_given_up || (state.is_closed && state.frames.is_empty()) {
            return None;
        }
        (state.bytes, state.is_due) = (0, false);
        let notes = std::mem::take(&mut state.notes);
        Some((std::mem::take(&mut state.frames), notes))
    }

    /// Waits between two attempts. False when there is to be no other.
    fn pause(&self, pause: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), pause, |state| {
                !state.is_closed && !state.is_given_up
            })
            .expect("never poisoned: holds no code that panics");
        !state.is_closed
    }

    /// Where to connect. Forgets what was to be sent before.
    fn target(&self) -> Option<(SocketAddr, u64)> {
        let mut state = self.state();
        state.is_given_up = false;
        (!state.is_closed).then_some((state.address, state.endpoint))
    }

    /// False when the address changed meanwhile.
    fn begin(&self, endpoint: u64, version: u16) -> bool {
        let mut state = self.state();
        let is_up = state.endpoint == endpoint && !state.is_given_up && !state.is_closed;
        if is_up {
            state.speaks = Some(version);
            state.connection += 1;
            state.cause.clear();
        }
        is_up
    }

    fn end(&self) {
        let mut state = self.state();
        state.speaks = None;
        state.frames.clear();
        state.notes.clear();
        (state.bytes, state.is_due) = (0, false);
    }

    fn failed(&self, cause: &str) {
        cause.clone_into(&mut self.state().cause);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("never poisoned: holds no code that panics")
    }
}

pub(super) fn send_loop(shared: &Shared, outbox: &Outbox) {
    let mut pause = RETRY_FIRST;
    let mut said = String::new();
    while !shared.is_stopping() {
        let Some((address, endpoint)) = outbox.target() else {
            return;
        };
        let ended = match connect(shared, outbox.peer, address) {
            Ok((mut connection, version)) => {
                pause = RETRY_FIRST;
                said.clear();
                if !outbox.begin(endpoint, version) {
                    continue;
                }
                (shared.inbox)(Heard::Up {
                    peer: outbox.peer,
                    endpoint,
                });
                let ended = write_loop(shared, outbox, &mut connection);
                outbox.end();
                (shared.inbox)(Heard::Down { peer: outbox.peer });
                // Told to the other side as well as it can be; it finds out by silence else.
                connection.conn.send_close_notify();
                drop(connection.flush());
                ended
            }
            Err(broken) => Some(broken),
        };
        if let Some(broken) = ended {
            let saying = broken.to_string();
            outbox.failed(&saying);
            // Once for each cause: a peer that is off for a week is not news twice a second.
            if saying != said {
                let peer = format!("{:032x}", outbox.peer.0);
                tracing::warn!(peer, %address, cause = saying, "no connection to a node");
                said = saying;
            }
        }
        if !outbox.pause(pause) {
            return;
        }
        pause = (pause * 2).min(RETRY_LAST);
    }
}

/// With the version that both speak.
fn connect(
    shared: &Shared,
    peer: NodeId,
    address: SocketAddr,
) -> Result<(Connection, u16), Broken> {
    let socket = shared
        .net
        .connect(address, CONNECT_MAX)
        .map_err(Broken::Io)?;
    socket.set_read_timeout(LOOK_EVERY).map_err(Broken::Io)?;
    socket.set_write_timeout(SILENCE_MAX).map_err(Broken::Io)?;
    let name = credentials::server_name(peer, shared.cluster);
    let tls = ClientConnection::new(Arc::clone(&shared.client), name)
        .map_err(|error| Broken::Io(io::Error::other(error)))?;
    let mut connection = StreamOwned::new(tls, Patience::new(socket, &shared.clock));
    let hello = Hello::new(shared.cluster, shared.me, peer);
    let hello = postcard::to_stdvec(&hello).expect("a greeting can be written");
    let greeting = frame::wrap(&hello);
    // The handshake reads, so it may pause before anything of the greeting is taken; after that, only
    // while what was taken leaves.
    patience::until_done(|| connection.write_all(&greeting))?;
    patience::until_done(|| connection.flush())?;
    let mut frames = Frames::default();
    let payload = loop {
        if let Some(payload) = frames.next(&mut connection, GREETING_LEN_MAX, &mut false)? {
            break payload;
        }
    };
    match postcard::from_bytes(&payload).map_err(Broken::Undecodable)? {
        Answer::Welcome(version) => {
            connection.sock.lift();
            Ok((connection, version))
        }
        Answer::Refused(reason) => Err(Broken::Io(io::Error::other(reason.to_string()))),
    }
}

/// Ends when the owner wants it to (`None`), or by an error.
fn write_loop(shared: &Shared, outbox: &Outbox, connection: &mut Connection) -> Option<Broken> {
    let alive = frame::wrap(&[]);
    loop {
        let (frames, notes) = outbox.take()?;
        let mut write = || {
            if frames.is_empty() {
                connection.write_all(&alive)?;
            }
            for note in &notes {
                connection.write_all(&note.0)?;
                Counters::add(&shared.counters.sent_bytes, note.0.len());
            }
            for frame in &frames {
                connection.write_all(frame)?;
                Counters::add(&shared.counters.sent_bytes, frame.len());
            }
            connection.flush()
        };
        if let Err(error) = write() {
            return Some(Broken::Io(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use world::{Clock as _, RealClock};

    use super::*;

    fn outbox() -> Outbox {
        let outbox = Outbox::new(NodeId(2), SocketAddr::from(([127, 0, 0, 1], 1)), 1);
        assert!(outbox.begin(1, 3));
        outbox
    }

    /// What somebody waits for takes along what lies before it; enough of the others leaves by itself.
    #[test]
    fn frames_that_linger_leave_in_order_with_the_first_that_does_not_or_when_they_are_many() {
        let outbox = outbox();
        outbox.push(vec![1], true);
        outbox.push(vec![2], true);
        assert!(!outbox.state().is_due);
        outbox.push(vec![3], false);
        outbox.push(vec![4], true);
        assert!(outbox.state().is_due);
        let (frames, _) = outbox.take().unwrap();
        assert_eq!(frames, [[1], [2], [3], [4]]);

        outbox.push(vec![5; LINGER_BYTES - 1], true);
        assert!(!outbox.state().is_due);
        outbox.push(vec![6], true);
        assert!(outbox.state().is_due);
        assert_eq!(outbox.take().unwrap().0.len(), 2);

        // Nothing comes after it: its time makes it leave, and not less.
        let clock = RealClock::new();
        outbox.push(vec![7], true);
        let before = clock.monotonic();
        assert_eq!(outbox.take().unwrap().0, [[7]]);
        assert!(clock.monotonic() - before >= LINGER);
    }

    #[test]
    fn what_lingers_leaves_before_an_orderly_end() {
        let outbox = outbox();
        outbox.push(vec![1], true);
        outbox.close();
        assert_eq!(outbox.take().unwrap().0, [[1]]);
        assert!(outbox.take().is_none());
    }

    #[test]
    fn what_lingers_is_lost_with_its_connection() {
        let outbox = outbox();
        outbox.push(vec![1; LINGER_BYTES], true);
        outbox.end();
        assert!(outbox.begin(1, 3));
        assert!(!outbox.state().is_due);
        outbox.push(vec![2], false);
        assert_eq!(outbox.take().unwrap().0, [[2]]);
    }
}
