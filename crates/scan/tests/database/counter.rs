//! A way to a server that counts what is asked of it: each `Sync` and each simple query of PostgreSQL's
//! protocol, after which a client has something to wait for.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tempfile::TempDir;

const SOCKET: &str = ".s.PGSQL.5432";
const SYNC: u8 = b'S';
const QUERY: u8 = b'Q';

pub(crate) struct Counter {
    directory: TempDir,
    asked: Arc<AtomicU64>,
}

impl Counter {
    pub(crate) fn to(server: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let asked = Arc::<AtomicU64>::default();
        let (server, counted) = (server.join(SOCKET), Arc::clone(&asked));
        // Ends with the process: it waits for connections.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                relay(&client, &UnixStream::connect(&server).unwrap(), &counted);
            }
        });
        Self { directory, asked }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display();
        format!("postgres://holdfast@/{database}?host={directory}")
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn relay(client: &UnixStream, server: &UnixStream, counted: &Arc<AtomicU64>) {
    let pair = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let ((mut from, mut to), counted) = (pair(), Arc::clone(counted));
    thread::spawn(move || {
        // Whoever goes away in the middle of a message has asked nothing.
        drop(hand_on(&mut from, &mut to, &counted));
    });
    let (mut to, mut from) = pair();
    thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
}

/// The greeting has no kind; every message after it is a kind, a length that counts itself, and a body.
fn hand_on(from: &mut UnixStream, to: &mut UnixStream, counted: &AtomicU64) -> std::io::Result<()> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    rest(from, &mut message, 0)?;
    to.write_all(&message)?;
    loop {
        message.clear();
        message.resize(5, 0);
        from.read_exact(&mut message)?;
        if matches!(message[0], SYNC | QUERY) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        rest(from, &mut message, 1)?;
        to.write_all(&message)?;
    }
}

/// Reads a message whose length is at `at`.
fn rest(from: &mut UnixStream, message: &mut Vec<u8>, at: usize) -> std::io::Result<()> {
    let len = u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
    let head = message.len();
    message.resize(at + usize::try_from(len).unwrap(), 0);
    from.read_exact(&mut message[head..])
}
