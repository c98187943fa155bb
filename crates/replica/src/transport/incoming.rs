//! Connections that others opened: who they are, and what they say.

use std::{
    io::Write,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use rustls::{ServerConnection, StreamOwned};
use world::net::{Listener, Stream};

use super::{
    Counters, FRAME_LEN_MAX, Heard, INCOMING_MAX, LOOK_EVERY, RETRY_FIRST, SILENCE_MAX, Shared,
    credentials,
    frame::{self, Broken, Frames},
    greeting::{Answer, GREETING_LEN_MAX, Hello, Reason},
    patience::Patience,
};
use crate::machine::{Message, NodeId};

type Connection = StreamOwned<ServerConnection, Patience>;

pub(super) fn accept_loop(shared: &Arc<Shared>, listener: &dyn Listener) {
    let mut threads = Vec::new();
    while !shared.is_stopping() {
        let socket = match listener.accept() {
            Ok(socket) => socket,
            Err(error) => {
                // Out of descriptors, most likely: others will be closed.
                tracing::warn!(%error, "a connection of a node could not be accepted");
                shared.clock.sleep(RETRY_FIRST);
                continue;
            }
        };
        threads.retain(|thread: &std::thread::JoinHandle<()>| !thread.is_finished());
        if threads.len() >= INCOMING_MAX {
            // Dropped: whoever it is tries again.
            continue;
        }
        let shared = Arc::clone(shared);
        match world::spawn_spine("replica-hear", move || hear(&shared, socket)) {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::warn!(%error, "a connection of a node got no thread"),
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the transport had panicked");
        }
    }
}

fn hear(shared: &Shared, socket: Box<dyn Stream>) {
    let address = socket.peer();
    let ended = greet(shared, socket).and_then(|(connection, peer, line)| {
        let ended = listen(shared, connection, peer, &line);
        Err(ended)
    });
    if let Err::<(), _>(broken) = ended {
        if broken.is_garbage() {
            Counters::add(&shared.counters.garbage, 1);
            tracing::warn!(%address, cause = %broken, "a connection of a node was closed");
        } else {
            tracing::debug!(%address, cause = %broken, "a connection of a node ended");
        }
    }
}

/// TLS, then the greeting, within the time that a peer may be silent.
fn greet(shared: &Shared, socket: Box<dyn Stream>) -> Result<(Connection, NodeId, Line), Broken> {
    socket.set_read_timeout(LOOK_EVERY).map_err(Broken::Io)?;
    socket.set_write_timeout(SILENCE_MAX).map_err(Broken::Io)?;
    let tls = ServerConnection::new(Arc::clone(&shared.server))
        .map_err(|error| Broken::Io(std::io::Error::other(error)))?;
    let mut connection = StreamOwned::new(tls, Patience::new(socket, &shared.clock));
    let mut frames = Frames::default();
    let payload = loop {
        if let Some(payload) = frames.next(&mut connection, GREETING_LEN_MAX, &mut false)? {
            break payload;
        }
        if shared.is_stopping() {
            return Err(Broken::Closed);
        }
    };
    let hello: Result<Hello, _> = postcard::from_bytes(&payload);
    let checked = hello
        .map_err(|_| Reason::NotAGreeting)
        .and_then(|hello| check(shared, &connection, hello));
    // Before the answer: what a peer sends upon it is of a connection that has its number.
    let checked = checked.map(|(version, peer)| (version, peer, Line::new(shared, peer)));
    let answer = match &checked {
        Ok((version, ..)) => Answer::Welcome(*version),
        Err(reason) => Answer::Refused(*reason),
    };
    let answer = postcard::to_stdvec(&answer).expect("an answer can be written");
    connection
        .write_all(&frame::wrap(&answer))
        .and_then(|()| connection.flush())
        .map_err(Broken::Io)?;
    match checked {
        Ok((_, peer, line)) => {
            connection.sock.lift();
            Ok((connection, peer, line))
        }
        Err(reason) => {
            Counters::add(&shared.counters.refused, 1);
            // Counted; whoever called says it once, and calls again every two seconds.
            tracing::debug!(%reason, "a greeting was refused");
            Err(Broken::Closed)
        }
    }
}

fn check(shared: &Shared, connection: &Connection, hello: Hello) -> Result<(u16, NodeId), Reason> {
    let version = hello.check(shared.cluster, shared.me)?;
    let shown = connection.conn.peer_certificates().unwrap_or_default();
    let is_its_own = shown
        .first()
        .is_some_and(|shown| credentials::belongs(shown, hello.from, shared.cluster));
    if !is_its_own {
        return Err(Reason::NotItsCertificate);
    }
    if !shared.peers().contains_key(&hello.from) {
        return Err(Reason::NotAMember);
    }
    Ok((version, hello.from))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("a panic of a spine thread ends the process")
}

/// The right to be heard as a peer: the newest of its connections that said anything has it. A node
/// that lost its disk and came back must not be heard from its life before, which may still lie in a
/// buffer here.
struct Line {
    newest: Arc<Mutex<u64>>,
    /// In the order of greetings.
    number: u64,
}

impl Line {
    fn new(shared: &Shared, peer: NodeId) -> Self {
        Self {
            newest: Arc::clone(lock(&shared.newest).entry(peer).or_default()),
            number: shared.greeted.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Whether it was handed on: no newer connection has been heard, and none is until it is.
    fn hand_on(&self, shared: &Shared, message: Message) -> bool {
        let mut newest = lock(&self.newest);
        let is_newest = *newest <= self.number;
        if is_newest {
            *newest = self.number;
            (shared.inbox)(Heard::Message(Box::new(message)));
        }
        is_newest
    }
}

fn listen(shared: &Shared, mut connection: Connection, peer: NodeId, line: &Line) -> Broken {
    let mut frames = Frames::default();
    let mut last = shared.clock.monotonic();
    loop {
        let mut heard = false;
        let payload = match frames.next(&mut connection, FRAME_LEN_MAX, &mut heard) {
            Ok(payload) => payload,
            Err(broken) => return broken,
        };
        let now = shared.clock.monotonic();
        if heard {
            last = now;
        }
        if shared.is_stopping() || !shared.peers().contains_key(&peer) {
            return Broken::Closed;
        }
        let Some(payload) = payload else {
            if now.saturating_sub(last) >= SILENCE_MAX {
                return Broken::Io(std::io::ErrorKind::TimedOut.into());
            }
            continue;
        };
        Counters::add(&shared.counters.received_bytes, payload.len());
        match frame::decode(&payload) {
            // A member may speak for itself only.
            Ok(message) if message.header.from != peer => {
                return Broken::Forged("a message named another node as its sender");
            }
            Ok(message) => {
                if !line.hand_on(shared, message) {
                    return Broken::Closed;
                }
            }
            Err(broken) => return broken,
        }
    }
}
