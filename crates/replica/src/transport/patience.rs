//! A socket that gives a stranger so much time and no more.

use std::{
    fmt,
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use world::{Clock, net::Stream};

use super::{SILENCE_MAX, frame};

/// Fails once the handshake and the greeting took too long, however many bytes keep coming.
pub(super) struct Patience {
    socket: Box<dyn Stream>,
    clock: Arc<dyn Clock>,
    deadline: Option<Duration>,
}

impl Patience {
    pub(super) fn new(socket: Box<dyn Stream>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            socket,
            deadline: Some(clock.monotonic() + SILENCE_MAX),
            clock: Arc::clone(clock),
        }
    }

    /// The other side is known.
    pub(super) fn lift(&mut self) {
        self.deadline = None;
    }

    fn check(&self) -> io::Result<()> {
        match self.deadline {
            Some(deadline) if self.clock.monotonic() >= deadline => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the greeting took too long",
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
