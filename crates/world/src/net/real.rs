//! TCP.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::{Listener, Net, Stream};

#[derive(Clone, Copy, Debug, Default)]
pub struct RealNet;

#[derive(Debug)]
struct RealStream {
    socket: TcpStream,
    peer: SocketAddr,
}

#[derive(Debug)]
struct RealListener {
    socket: TcpListener,
    address: SocketAddr,
}

fn stream(socket: TcpStream, peer: SocketAddr) -> io::Result<Box<dyn Stream>> {
    // Messages are written whole; holding back the last segment for more only delays answers.
    socket.set_nodelay(true)?;
    Ok(Box::new(RealStream { socket, peer }))
}

impl Net for RealNet {
    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<Box<dyn Stream>> {
        stream(TcpStream::connect_timeout(&to, timeout)?, to)
    }

    fn listen(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = TcpListener::bind(at)?;
        let address = socket.local_addr()?;
        Ok(Box::new(RealListener { socket, address }))
    }
}

impl Listener for RealListener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        let (socket, peer) = self.socket.accept()?;
        stream(socket, peer)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Read for RealStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for RealStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Stream for RealStream {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_write_timeout(Some(timeout))
    }

    fn shut_down(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Both)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn a_connection_carries_bytes_both_ways_until_it_is_shut_down() {
        let listener = RealNet
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let mut caller = RealNet.connect(listener.address(), TIMEOUT).unwrap();
        let mut answerer = listener.accept().unwrap();
        assert_eq!(caller.peer(), listener.address());
        caller.write_all(b"there").unwrap();
        answerer.write_all(b"back").unwrap();
        let mut bytes = [0; 5];
        answerer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"there");
        caller.read_exact(&mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"back");
        caller.shut_down().unwrap();
        assert_eq!(answerer.read(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn a_silent_peer_ends_a_read_by_its_timeout() {
        let listener = RealNet
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let mut caller = RealNet.connect(listener.address(), TIMEOUT).unwrap();
        caller.set_read_timeout(Duration::from_millis(1)).unwrap();
        let error = caller.read(&mut [0; 1]).unwrap_err();
        let expected = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        assert!(expected.contains(&error.kind()), "{error}");
        caller.set_write_timeout(Duration::ZERO).unwrap_err();
    }

    #[test]
    fn connecting_is_refused_where_nobody_listens() {
        let listener = RealNet
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.address();
        drop(listener);
        let error = RealNet.connect(address, TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
