//! The store of a running `up`, for the commands beside it: over a socket file in the data directory.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use store::{
    Store,
    socket::{Remote, Serving},
};
use world::{Clock, RealClock};

use crate::{
    exit::Refusal,
    http::sockets::{self, SocketFile},
    node,
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

/// How long a command waits for a node that changes its role: an `up` that writes no more ends within
/// ten seconds, and opens its store again.
const ROLE_CHANGE_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The store of the `up` that has `dir` open; `None` where none does. One that changes its role at the
/// moment is waited for.
pub(crate) fn reach(dir: &Path) -> Result<Option<Store>, Refusal> {
    let (path, node): (PathBuf, _) = (dir.join(SOCKET), dir.to_owned());
    let dial = Box::new(move || {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        loop {
            match sockets::connect(&path) {
                Err(error)
                    if is_absent(error.kind())
                        && clock.monotonic() - begun < ROLE_CHANGE_MAX
                        && node::is_running(&node) =>
                {
                    clock.sleep(LOOK_EVERY);
                }
                connected => return connected,
            }
        }
    });
    match Remote::open(SERVER, dial, Arc::new(RealClock::new())) {
        Ok(remote) => Ok(Some(Store::on(Arc::new(remote)))),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(unreachable(dir, &error)),
    }
}

/// No socket, one that a killed process left, or a process that is ending.
fn is_nobody(error: &store::Error) -> bool {
    let kind = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    kind.is_some_and(is_absent)
}

fn is_absent(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionRefused, ConnectionReset, NotADirectory, NotFound, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionRefused | ConnectionReset | NotADirectory | NotFound | UnexpectedEof
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
