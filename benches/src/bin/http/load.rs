//! A generator of requests that costs little: one thread, one request under way on each connection, two system calls
//! a request.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll};

/// Not counted: connecting, and what a server makes at the first request.
const WARM: Duration = Duration::from_millis(300);
/// A server that answers nothing for so long has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What one turn gave.
pub struct Figures {
    pub per_second: f64,
    /// Of each request, microseconds.
    pub took: Vec<f64>,
    /// Of one answer, its head included.
    pub answer_len: usize,
    /// Answers altogether, those before anything counts too.
    pub all: usize,
}

struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    /// Bytes of the answer that are still to come; none before its head is whole.
    rest: Option<usize>,
    sent: Instant,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("an option that exists");
        stream.set_nonblocking(true).expect("an option that exists");
        Self { stream, head: Vec::new(), rest: None, sent: Instant::now() }
    }

    fn send(&mut self, request: &[u8]) {
        self.head.clear();
        self.rest = None;
        self.sent = Instant::now();
        let written = self.stream.write(request).expect("an idle connection takes a request");
        assert_eq!(written, request.len(), "requests are shorter than a socket's buffer");
    }

    /// Takes what has come; the length of the answer once it is whole.
    fn take(&mut self, buffer: &mut [u8], status: &str) -> Option<usize> {
        let read = match self.stream.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) => panic!("read an answer: {error}"),
        };
        assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.head));
        let rest = match self.rest {
            Some(rest) => rest - read,
            None => {
                self.head.extend_from_slice(&buffer[..read]);
                let end = self.head.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
                let body = body_len(&self.head[..end], status);
                let rest = end + body - self.head.len();
                self.head.truncate(end);
                rest
            }
        };
        self.rest = Some(rest);
        (rest == 0).then(|| self.head.len() + body_len(&self.head, status))
    }
}

fn body_len(head: &[u8], status: &str) -> usize {
    let head = std::str::from_utf8(head).expect("heads are ASCII");
    assert!(head[9..].starts_with(status), "{head}");
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let len = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    len.map_or(0, |(_, len)| len.parse().expect("a number"))
}

/// Sends requests over `connections` for `millis`, taking turns among `requests`; each must be answered by `status`.
pub fn run(address: SocketAddr, requests: &[Vec<u8>], connections: usize, millis: u64, status: &str) -> Figures {
    let epoll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    let mut all: Vec<Connection> = (0..connections).map(|_| Connection::open(address)).collect();
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        &requests[turn % requests.len()]
    };
    for (index, connection) in all.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, &connection.stream, data, epoll::EventFlags::IN).expect("a socket");
        connection.send(next());
    }
    let begin = Instant::now() + WARM;
    let end = begin + Duration::from_millis(millis);
    let mut events = Vec::with_capacity(connections);
    let mut buffer = vec![0; 256 << 10];
    let mut figures = Figures { per_second: 0.0, took: Vec::new(), answer_len: 0, all: 0 };
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&PATIENCE)).expect("events");
        assert!(!events.is_empty(), "nothing was answered for {} s", PATIENCE.tv_sec);
        for event in &events {
            let connection = &mut all[event.data.u64() as usize];
            let Some(len) = connection.take(&mut buffer, status) else {
                continue;
            };
            let now = Instant::now();
            figures.all += 1;
            if now >= end {
                figures.per_second = figures.took.len() as f64 * 1000.0 / millis as f64;
                return figures;
            }
            if now >= begin {
                figures.took.push(now.duration_since(connection.sent).as_secs_f64() * 1e6);
                figures.answer_len = len;
            }
            connection.send(next());
        }
    }
}
