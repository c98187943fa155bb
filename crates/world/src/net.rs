//! Connections as a parameter.

use std::{fmt, io, net::SocketAddr, time::Duration};

mod real;

pub use real::RealNet;

/// A network.
pub trait Net: Send + Sync + fmt::Debug {
    /// Fails with `ConnectionRefused` when nobody listens, with `TimedOut` when nobody answers.
    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<Box<dyn Stream>>;
    /// Port 0 takes a free one; see [`Listener::address`].
    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>>;
}

/// An accepted or established connection.
pub trait Stream: io::Read + io::Write + Send + fmt::Debug {
    fn peer(&self) -> SocketAddr;
    /// After this long without a byte a read fails with `TimedOut` or `WouldBlock`.
    /// Zero is refused with `InvalidInput`.
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()>;
    /// After this long without room for a byte a write fails with `TimedOut` or `WouldBlock`.
    /// Zero is refused with `InvalidInput`.
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()>;
    /// Ends both directions; the peer reads the end of the stream.
    fn shut_down(&self) -> io::Result<()>;
}

/// A listening socket.
pub trait Listener: Send + Sync + fmt::Debug {
    /// Waits for the next connection.
    fn accept(&self) -> io::Result<Box<dyn Stream>>;
    fn address(&self) -> SocketAddr;
}
