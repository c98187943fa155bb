//! A way to a server that can be cut at a chosen moment: a Unix socket whose bytes are handed on.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use tempfile::TempDir;

/// What happens to the next bytes. Only to those: whoever comes later passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Next {
    #[default]
    Passes,
    /// The server gets the request, its answer is lost.
    LosesAnswer,
    /// The server gets the request, and its answer is kept back while the way stays open.
    KeepsAnswer,
    /// The server never gets the request.
    LosesRequest,
    /// The server gets the request when [`Relay::release`] is called; the client is cut off at once.
    HoldsRequest,
}

pub(crate) struct Relay {
    directory: TempDir,
    next: Arc<Mutex<Next>>,
    held: mpsc::Receiver<(UnixStream, Vec<u8>)>,
}

const SOCKET: &str = ".s.PGSQL.5432";

impl Relay {
    pub(crate) fn to(server: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let next = Arc::<Mutex<Next>>::default();
        let (hold, held) = mpsc::channel();
        let (server, of_thread) = (server.join(SOCKET), Arc::clone(&next));
        // Ends with the process: it waits for connections.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                relay(client, &server, &of_thread, &hold);
            }
        });
        Self {
            directory,
            next,
            held,
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display();
        format!("postgres://holdfast@/{database}?host={directory}")
    }

    pub(crate) fn set(&self, next: Next) {
        *self.next.lock().unwrap() = next;
    }

    pub(crate) fn is_done(&self) -> bool {
        *self.next.lock().unwrap() == Next::Passes
    }

    /// Hands on what was held, and returns once the server has answered it.
    pub(crate) fn release(&self) {
        let (mut server, bytes) = self.held.recv().unwrap();
        server.write_all(&bytes).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        // It answers what it was asked before it takes notice of the end, and closes then.
        let mut answer = [0; 1 << 10];
        while server.read(&mut answer).is_ok_and(|len| len > 0) {}
    }
}

fn relay(
    client: UnixStream,
    server: &PathBuf,
    next: &Arc<Mutex<Next>>,
    hold: &mpsc::Sender<(UnixStream, Vec<u8>)>,
) {
    let server = UnixStream::connect(server).unwrap();
    let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (next_there, next_back, hold) = (Arc::clone(next), Arc::clone(next), hold.clone());
    thread::spawn(move || {
        let there = |bytes: &[u8]| {
            let mut next = next_there.lock().unwrap();
            match *next {
                Next::Passes | Next::LosesAnswer | Next::KeepsAnswer => return true,
                Next::LosesRequest => {}
                Next::HoldsRequest => {
                    let held = (to_server.try_clone().unwrap(), bytes.to_vec());
                    hold.send(held).unwrap();
                }
            }
            let is_held = *next == Next::HoldsRequest;
            *next = Next::Passes;
            client.shutdown(Shutdown::Both).unwrap();
            if !is_held {
                to_server.shutdown(Shutdown::Both).unwrap();
            }
            false
        };
        copy(&client, &to_server, there);
    });
    thread::spawn(move || {
        let back = |_: &[u8]| {
            let mut next = next_back.lock().unwrap();
            let is_lost = match *next {
                Next::LosesAnswer => true,
                Next::KeepsAnswer => false,
                _ => return true,
            };
            *next = Next::Passes;
            if !is_lost {
                return false;
            }
            to_client.shutdown(Shutdown::Both).unwrap();
            server.shutdown(Shutdown::Both).unwrap();
            false
        };
        copy(&server, &to_client, back);
    });
}

/// Until either side ends, or `passes` says so.
fn copy(mut from: &UnixStream, mut to: &UnixStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 || !passes(&buffer[..len]) || to.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}
