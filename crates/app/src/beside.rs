//! The store of a running `up`, for the commands beside it: over a socket file in the data directory.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use store::{
    Store,
    socket::{Remote, Serving},
};
use world::RealClock;

use crate::{
    exit::Refusal,
    http::sockets::{self, SocketFile},
};

/// In the data directory, for its owner alone. One that a killed `up` left is replaced by the next.
const SOCKET: &str = "store.socket";

/// Who serves, in messages.
pub(crate) const SERVER: &str = "the running `holdfast up`";

/// The served store. Stopped, commands beside do not get in any more.
#[derive(Debug)]
pub(crate) struct Served {
    // In this order: no more clients, then no file.
    serving: Serving,
    file: SocketFile,
}

impl Served {
    pub(crate) fn start(dir: &Path, store: Store) -> Result<Self, Refusal> {
        let (listener, file) = sockets::unix(&dir.join(SOCKET))?;
        let serving = Serving::start(store, listener, Arc::new(RealClock::new()))
            .map_err(|error| Refusal::new(error.to_string()).next("run `holdfast doctor`"))?;
        Ok(Self { serving, file })
    }

    /// Gives up what clients hold; requests under way are finished.
    pub(crate) fn stop(self) {
        self.serving.stop();
        drop(self.file);
    }
}

/// The store of the `up` that has `dir` open; `None` where none does.
pub(crate) fn reach(dir: &Path) -> Result<Option<Store>, Refusal> {
    let path: PathBuf = dir.join(SOCKET);
    let dial = Box::new(move || sockets::connect(&path));
    match Remote::open(SERVER, dial, Arc::new(RealClock::new())) {
        Ok(remote) => Ok(Some(Store::on(Arc::new(remote)))),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(unreachable(dir, &error)),
    }
}

/// No socket, one that a killed process left, or a process that is ending.
fn is_nobody(error: &store::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionRefused, ConnectionReset, NotADirectory, NotFound, UnexpectedEof,
    };
    let kind = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    matches!(
        kind,
        Some(
            BrokenPipe
                | ConnectionRefused
                | ConnectionReset
                | NotADirectory
                | NotFound
                | UnexpectedEof
        )
    )
}

fn unreachable(dir: &Path, error: &store::Error) -> Refusal {
    let refusal = Refusal::new(format!("data directory {}: {error}", dir.display()));
    refusal.next(match error.kind() {
        store::Kind::Version => {
            "`holdfast up` runs in another version than this command: start it again with this one"
        }
        _ => {
            "run as the user who runs `holdfast up`; if it does not answer at all, stop it and start it again"
        }
    })
}
