//! Connections that others opened: who they are, and what they say.

use std::{
    io::Write,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    thread::JoinHandle,
};

use rustls::{ServerConnection, StreamOwned};
use world::net::{Listener, Stream};

use super::{
    Counters, FRAME_LEN_MAX, Heard, INCOMING_MAX, LOOK_EVERY, RETRY_FIRST, SILENCE_MAX,
    STRANGERS_MAX, Shared, credentials,
    frame::{self, Broken, Frames, Taken},
    greeting::{Answer, GREETING_LEN_MAX, Hello, Reason},
    patience::{Patience, Place},
};
use crate::machine::NodeId;

type Connection = StreamOwned<ServerConnection, Patience>;

pub(super) fn accept_loop(shared: &Arc<Shared>, listener: &dyn Listener) {
    let mut threads: Vec<(JoinHandle<()>, Arc<Place>)> = Vec::new();
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
        threads.retain(|(thread, _)| !thread.is_finished());
        let mut strangers = threads.iter().filter(|(_, place)| place.is_of_a_stranger());
        if let Some((_, oldest)) = strangers
            .clone()
            .nth(STRANGERS_MAX - 1)
            .and(strangers.next())
        {
            oldest.give_up();
        }
        if threads.len() >= INCOMING_MAX {
            // Dropped: whoever it is tries again.
            continue;
        }
        let (shared, place) = (Arc::clone(shared), Arc::<Place>::default());
        let taken = Arc::clone(&place);
        match world::spawn_spine("replica-hear", move || hear(&shared, socket, taken)) {
            Ok(thread) => threads.push((thread, place)),
            Err(error) => tracing::warn!(%error, "a connection of a node got no thread"),
        }
    }
    for (thread, _) in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the transport had panicked");
        }
    }
}

/// Whoever was turned away is noted before it is counted: a count that is seen has its cause on the list.
fn hear(shared: &Shared, socket: Box<dyn Stream>, place: Arc<Place>) {
    let address = socket.peer();
    let (broken, peer) = match greet(shared, socket, place) {
        Ok(greeted) => (
            listen(shared, greeted.connection, &greeted.line),
            Some(greeted.line.peer),
        ),
        Err(Turned::Away(reason, node)) => {
            shared.refuse(address, node, reason.told_here().to_owned());
            Counters::add(&shared.counters.refused, 1);
            return;
        }
        Err(Turned::Broken(broken)) => {
            // A stranger's TLS is refused before it can be answered.
            if broken.is_refused_by_tls() {
                shared.refuse(address, None, broken.to_string());
                Counters::add(&shared.counters.refused, 1);
            }
            (broken, None)
        }
    };
    if broken.is_garbage() {
        shared.refuse(address, peer, broken.to_string());
        Counters::add(&shared.counters.garbage, 1);
    } else {
        tracing::debug!(%address, cause = %broken, "a connection of a node ended");
    }
}

struct Greeted {
    connection: Connection,
    line: Line,
}

/// How a greeting failed.
enum Turned {
    /// It was understood, and answered. With who it was of.
    Away(Reason, Option<NodeId>),
    Broken(Broken),
}

impl From<Broken> for Turned {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// TLS, then the greeting, within the time that a peer may be silent.
fn greet(shared: &Shared, socket: Box<dyn Stream>, place: Arc<Place>) -> Result<Greeted, Turned> {
    socket.set_read_timeout(LOOK_EVERY).map_err(Broken::Io)?;
    socket.set_write_timeout(SILENCE_MAX).map_err(Broken::Io)?;
    let tls = ServerConnection::new(Arc::clone(&shared.server))
        .map_err(|error| Broken::Io(std::io::Error::other(error)))?;
    let mut connection = StreamOwned::new(tls, Patience::in_place(socket, &shared.clock, place));
    let mut frames = Frames::default();
    let payload = loop {
        if let Some(payload) = frames.next(&mut connection, GREETING_LEN_MAX, &mut false)? {
            break payload;
        }
        if shared.is_stopping() {
            return Err(Broken::Closed.into());
        }
    };
    let hello: Option<Hello> = postcard::from_bytes(&payload).ok();
    let checked = hello
        .ok_or(Reason::NotAGreeting)
        .and_then(|hello| check(shared, &connection, hello));
    // Before the answer: what a peer sends upon it is of a connection that has its number.
    let checked = checked.map(|(version, peer)| Line::new(shared, peer, version));
    let answer = match &checked {
        Ok(line) => Answer::Welcome(line.version),
        Err(reason) => Answer::Refused(*reason),
    };
    let answer = postcard::to_stdvec(&answer).expect("an answer can be written");
    connection
        .write_all(&frame::wrap(&answer))
        .and_then(|()| connection.flush())
        .map_err(Broken::Io)?;
    match checked {
        Ok(line) => {
            connection.sock.lift();
            Ok(Greeted { connection, line })
        }
        Err(reason) => Err(Turned::Away(reason, hello.map(|hello| hello.from))),
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
    if shared.removed().contains(&hello.from) {
        return Err(Reason::Removed);
    }
    if !shared.hears(hello.from) {
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
    peer: NodeId,
    version: u16,
    newest: Arc<Mutex<u64>>,
    /// In the order of greetings.
    number: u64,
}

impl Line {
    fn new(shared: &Shared, peer: NodeId, version: u16) -> Self {
        Self {
            peer,
            version,
            newest: Arc::clone(lock(&shared.newest).entry(peer).or_default()),
            number: shared.greeted.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Whether it was handed on: no newer connection has been heard, and none is until it is.
    fn hand_on(&self, shared: &Shared, heard: Heard) -> bool {
        let mut newest = lock(&self.newest);
        let is_newest = *newest <= self.number;
        if is_newest {
            *newest = self.number;
            (shared.inbox)(heard);
        }
        is_newest
    }
}

fn listen(shared: &Shared, mut connection: Connection, line: &Line) -> Broken {
    let peer = line.peer;
    let mut frames = Frames::default();
    let mut last = shared.clock.monotonic();
    loop {
        let mut heard = false;
        let taken = match frames.next_of_any(&mut connection, FRAME_LEN_MAX, &mut heard) {
            Ok(taken) => taken,
            Err(broken) => return broken,
        };
        let now = shared.clock.monotonic();
        if heard {
            last = now;
            shared.heard().insert(peer, now);
        }
        if shared.is_stopping() || !shared.hears(peer) {
            return Broken::Closed;
        }
        let Some(taken) = taken else {
            if now.saturating_sub(last) >= SILENCE_MAX {
                return Broken::Io(std::io::ErrorKind::TimedOut.into());
            }
            continue;
        };
        let heard = match taken {
            Taken::Message(payload) => {
                Counters::add(&shared.counters.received_bytes, payload.len());
                message(&payload, peer)
            }
            Taken::Note(note) => {
                Counters::add(&shared.counters.received_bytes, note.0.len());
                Ok(Heard::Note { peer, note })
            }
        };
        match heard.map(|heard| line.hand_on(shared, heard)) {
            Ok(true) => {}
            Ok(false) => return Broken::Closed,
            Err(broken) => return broken,
        }
    }
}

fn message(payload: &[u8], peer: NodeId) -> Result<Heard, Broken> {
    let message = frame::decode(payload)?;
    // A member may speak for itself only.
    match message.header.from == peer {
        true => Ok(Heard::Message(Box::new(message))),
        false => Err(Broken::Forged("a message named another node as its sender")),
    }
}
