//! Listening: on this machine's own addresses, and on socket files.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use crate::exit::Refusal;

/// Longest path that fits into an address of a socket; Linux has 108 bytes with the final zero.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Listens on `address`, which must be this machine's own and nobody else's.
pub(crate) fn tcp(address: SocketAddr) -> Result<TcpListener, Refusal> {
    let taken = || {
        Refusal::new(format!("listen on {address}"))
            .source(io::Error::from(io::ErrorKind::AddrInUse))
            .next("another program listens there, perhaps a Collector: stop it, or name another port with --listen or events.listen")
    };
    tcp_unless_taken(address)?.ok_or_else(taken)
}

/// The same, and none where another program listens already. To ask first and listen then would
/// leave a moment for somebody else to come in between.
pub(crate) fn tcp_unless_taken(address: SocketAddr) -> Result<Option<TcpListener>, Refusal> {
    if !address.ip().is_loopback() {
        return Err(Refusal::new(format!(
            "listening on {address} would take events from other machines without TLS and tokens, which are not built yet"
        ))
        .next("listen on 127.0.0.1 or [::1], and let a Collector beside it take what comes from outside"));
    }
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let error = match listener {
        Ok(listener) => return Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        Err(error) => error,
    };
    let next = match error.kind() {
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: name another",
        _ => "name an address of this machine",
    };
    Err(Refusal::new(format!("listen on {address}"))
        .source(error)
        .next(next))
}

/// A socket file that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Left behind it is found dead by the next server, and replaced.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Listens on the socket file `path`, for this user alone. A file that a dead server left is
/// replaced; a live server's, or what is no socket, is refused.
pub(crate) fn unix(path: &Path) -> Result<(UnixListener, SocketFile), Refusal> {
    let refuse = |error: io::Error| {
        Refusal::new(format!("listen on {}", path.display()))
            .source(error)
            .next("run `holdfast doctor` to check disk and permissions")
    };
    clear(path)?;
    let listener = bind(path).map_err(refuse)?;
    // The directory is this user's alone, so nobody came in between.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    Ok((listener, SocketFile(path.to_owned())))
}

fn clear(path: &Path) -> Result<(), Refusal> {
    let refuse = |what: &str| Refusal::new(format!("{} {what}", path.display()));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse("cannot be looked at").source(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(refuse("is in the way: it is no socket").next("move it away"));
        }
        Ok(_) => {}
    }
    match connect(path) {
        Ok(_) => Err(refuse("belongs to a server that is running").next("stop that one first")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| {
                refuse("was left by a dead server and cannot be removed").source(error)
            })
        }
        Err(error) => Err(refuse("cannot be asked whether its server lives").source(error)),
    }
}

/// Connects to whoever listens on the socket file `path`.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    short(path, |short| UnixStream::connect(short))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    short(path, |short| UnixListener::bind(short))
}

/// Calls `with` with a path to the same file that fits into a socket's address.
fn short<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
        return with(path);
    }
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let dir = rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let through = format!("/proc/self/fd/{}", dir.as_raw_fd());
    with(&Path::new(&through).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `up` asked whether its port was free and listened afterwards; another `up` came in between, and
    /// the first ended with an error instead of going on without the port.
    #[test]
    fn a_port_is_taken_in_the_same_step_that_finds_it_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let held = tcp_unless_taken(any).unwrap().unwrap();
        let address = held.local_addr().unwrap();
        assert!(tcp_unless_taken(address).unwrap().is_none());
        assert!(tcp(address).is_err());
    }
}
