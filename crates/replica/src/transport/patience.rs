//! A socket that gives a stranger so much time and no more.

use std::{
    fmt,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use world::{Clock, net::Stream};

use super::{SILENCE_MAX, frame};

/// Fails once the handshake and the greeting took too long, however many bytes keep coming.
pub(super) struct Patience {
    socket: Box<dyn Stream>,
    clock: Arc<dyn Clock>,
    deadline: Option<Duration>,
    place: Arc<Place>,
}

/// What is known of a connection where it was accepted.
#[derive(Debug, Default)]
pub(super) struct Place {
    is_known: AtomicBool,
    is_wanted: AtomicBool,
}

impl Place {
    /// Nobody has said who is there, and nobody else was given its place.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        !self.is_known.load(Ordering::Acquire) && !self.is_wanted.load(Ordering::Acquire)
    }

    /// Its place is another one's, unless it is known by now.
    pub(super) fn give_up(&self) {
        self.is_wanted.store(true, Ordering::Release);
    }
}

impl Patience {
    pub(super) fn new(socket: Box<dyn Stream>, clock: &Arc<dyn Clock>) -> Self {
        Self::in_place(socket, clock, Arc::default())
    }

    pub(super) fn in_place(
        socket: Box<dyn Stream>,
        clock: &Arc<dyn Clock>,
        place: Arc<Place>,
    ) -> Self {
        Self {
            socket,
            deadline: Some(clock.monotonic() + SILENCE_MAX),
            clock: Arc::clone(clock),
            place,
        }
    }

    /// The other side is known.
    pub(super) fn lift(&mut self) {
        self.deadline = None;
        self.place.is_known.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        match self.deadline {
            Some(deadline) if self.clock.monotonic() >= deadline => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the greeting took too long",
            )),
            Some(_) if self.place.is_wanted.load(Ordering::Acquire) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "others waited for its place",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("socket", &self.socket)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Read for Patience {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.socket.read(buffer)
    }
}

impl Write for Patience {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Repeats what only paused. Ends, because the deadline is an error.
pub(super) fn until_done(mut act: impl FnMut() -> io::Result<()>) -> Result<(), frame::Broken> {
    loop {
        match act() {
            Err(error) if frame::is_pause(&error) => {}
            done => return done.map_err(frame::Broken::Io),
        }
    }
}
