//! A connection to a host over SSH: one connection, one command, its input and output.
//!
//! Owns the order in which a host earns trust: its key is checked in the key exchange, then the secret
//! is resolved, then the host is told who we are, then the command starts. A host whose key is refused
//! has seen neither a user name nor a secret, and the secret was not decrypted.
//!
//! Blocking, on the thread of its caller. Every connection has a runtime of its own, of one thread:
//! dropping it ends everything that a silent host could hold up, and a host is read only while we wait
//! for it, so that a fast one is slowed down by TCP and not by our memory. A shared runtime would leave
//! the library's task behind, waiting for ever, whenever a host hangs in the middle of a write.
//!
//! No compression: nothing a scan sends is secret and guessable at once, but a few kilobytes from a
//! hostile host would become hundreds of kilobytes here, and loopback and office links gain nothing.
//! No agent, no forwarding, no subsystem, no terminal. What is said over the command is not known here.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{Disconnect, client};
use tokio::{net::TcpStream, runtime};
use zeroize::Zeroizing;

use crate::{
    credential::{Secret, Sudo},
    failure::{Failure, Reason},
    known_hosts::Known,
    policy::HostKeyPolicy,
};

mod algorithms;
mod authenticate;
mod handshake;
mod patience;
mod privilege;
mod session;

pub use patience::Patience;
pub use privilege::Privilege;
pub use russh::keys::PublicKey;
pub use session::Session;

use handshake::{Fault, Said, Watch};

/// Where a host listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without the brackets of IPv6.
    pub address: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.contains(':') {
            write!(f, "[{}]:{}", self.address, self.port)
        } else {
            write!(f, "{}:{}", self.address, self.port)
        }
    }
}

/// How long single steps may take. The scan's own deadline holds beside these.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first packet to a verified host key.
    pub connect: Duration,
    /// From the user's name to the host's yes or no. PAM stacks ask directories over the network.
    pub authenticate: Duration,
    /// From the start of the command to the first line of ours: sudo and its PAM stack are in it.
    pub start: Duration,
    /// For the farewell.
    pub close: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // What OpenSSH users take for ConnectTimeout; a host that needs longer is not well.
            connect: Duration::from_secs(10),
            // A third of the LoginGraceTime of OpenSSH servers, which is 120 s.
            authenticate: Duration::from_secs(40),
            start: Duration::from_secs(30),
            close: Duration::from_secs(2),
        }
    }
}

/// Records the first key of a host, under [`HostKeyPolicy::Tofu`] alone: after the host proved that
/// the key is its own, before it hears anything of us.
pub type FirstSight = dyn Fn(&PublicKey) -> Result<(), Failure> + Send + Sync;

/// How the host's key is judged.
#[derive(Clone)]
pub struct Trust {
    /// What is on record for this host.
    pub known: Known,
    pub policy: HostKeyPolicy,
    pub first_sight: Arc<FirstSight>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("known", &self.known)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// An authenticated connection.
pub struct Connection {
    wire: Wire,
    sudo: Sudo,
    /// Until the command has started, and no longer.
    sudo_password: Option<Zeroizing<String>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.wire.endpoint)
            .finish_non_exhaustive()
    }
}

/// Connects, checks the host's key, and only then calls `resolve` and authenticates with what it gives.
pub fn connect(
    endpoint: &Endpoint,
    trust: &Trust,
    resolve: impl FnOnce() -> Result<Secret, Failure>,
    limits: Limits,
    patience: &Patience,
) -> Result<Connection, Failure> {
    let mut wire = Wire::open(endpoint, Watch::judging(endpoint, trust), limits, patience)?;
    let secret = resolve()?;
    let (sudo, sudo_password) = wire.authenticate(secret)?;
    Ok(Connection {
        wire,
        sudo,
        sudo_password,
    })
}

/// The key that a host shows, proven by its signature, for people to compare. Nothing is authenticated.
pub fn fetch_host_key(
    endpoint: &Endpoint,
    limits: Limits,
    patience: &Patience,
) -> Result<PublicKey, Failure> {
    let watch = Watch::looking(endpoint);
    let said = Arc::clone(&watch.said);
    Wire::open(endpoint, watch, limits, patience)?.close();
    Said::host_key(&said).ok_or_else(|| {
        let detail = format!("{endpoint} finished a key exchange without a key");
        Failure::new(Reason::Internal, detail)
    })
}

impl Connection {
    /// Starts `command`, as root where that is possible. `nonce` marks our own lines among what the
    /// host's login shell prints; it must not repeat.
    ///
    /// `command` must be words that every login shell reads alike: no newline, no `!`.
    pub fn start(self, command: &str, nonce: u128) -> Result<(Session, Privilege), Failure> {
        privilege::start(self, command, nonce)
    }

    /// Says farewell; bounded by [`Limits::close`].
    pub fn close(self) {
        self.wire.close();
    }
}

/// The library's connection and the runtime in which it lives.
struct Wire {
    endpoint: Endpoint,
    limits: Limits,
    patience: Patience,
    said: Arc<Mutex<Said>>,
    handle: Option<client::Handle<Watch>>,
    /// None only in `drop`.
    runtime: Option<runtime::Runtime>,
}

impl Wire {
    fn open(
        endpoint: &Endpoint,
        watch: Watch,
        limits: Limits,
        patience: &Patience,
    ) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| {
                let detail = format!("starting a connection to {endpoint}: {error}");
                Failure::new(Reason::Internal, detail)
            })?;
        let mut wire = Self {
            endpoint: endpoint.clone(),
            limits,
            patience: patience.clone(),
            said: Arc::clone(&watch.said),
            handle: None,
            runtime: Some(runtime),
        };
        let begun = patience.now();
        let what = format!("connecting to {endpoint}");
        let stream = wire.within(limits.connect, &what, reach(endpoint.clone()));
        // A host that does not even answer the first packet is not there; one that answers and then
        // says nothing is slow.
        let stream = match stream {
            Ok(stream) => stream?,
            Err(failure) if failure.reason == Reason::Timeout && !patience.is_over() => {
                return Err(Failure::new(Reason::HostUnreachable, failure.detail));
            }
            Err(failure) => return Err(failure),
        };
        let config = Arc::new(algorithms::config(&watch.known_types()));
        let left = (begun + limits.connect).saturating_sub(patience.now());
        let what = format!("key exchange with {endpoint}");
        let handle = wire.within(left, &what, client::connect_stream(config, stream, watch))?;
        wire.handle = Some(handle.map_err(|fault| fault.into_failure(&what))?);
        Ok(wire)
    }

    fn runtime(&self) -> &runtime::Runtime {
        self.runtime.as_ref().expect("it is taken only in drop")
    }

    /// The result of `work`, unless it takes longer than `limit`, the scan's deadline passes or the scan
    /// is cancelled.
    fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        self.runtime()
            .block_on(self.patience.within(Some(limit), what, work))
    }

    fn authenticate(
        &mut self,
        secret: Secret,
    ) -> Result<(Sudo, Option<Zeroizing<String>>), Failure> {
        let mut handle = self.handle.take().expect("an open connection has one");
        let what = format!("authenticating as {} at {}", secret.user, self.endpoint);
        let attempt = authenticate::authenticate(&mut handle, secret, &what, &self.said);
        let result = self.within(self.limits.authenticate, &what, attempt);
        self.handle = Some(handle);
        result?
    }

    /// Why the connection ended, as far as the host or the library said it.
    fn lost(&self, what: &str) -> Failure {
        match Said::end(&self.said) {
            Some(why) => Failure::new(
                Reason::HostUnreachable,
                format!("{what}: the connection ended: {why}"),
            ),
            None => Failure::new(
                Reason::HostUnreachable,
                format!("{what}: the connection ended"),
            ),
        }
    }

    fn close(mut self) {
        self.disconnect();
    }

    fn disconnect(&mut self) {
        let Some(handle) = self.handle.take() else {
            return;
        };
        if handle.is_closed() {
            return;
        }
        let farewell = async {
            let said = handle
                .disconnect(Disconnect::ByApplication, "done", "en")
                .await;
            // The library's task ends after it wrote this; only then is it on its way.
            if said.is_ok() {
                drop(handle.await);
            }
        };
        // Not `within`: a cancelled scan says farewell too, because that is what stops the remote side.
        drop(
            self.runtime()
                .block_on(async { tokio::time::timeout(self.limits.close, farewell).await }),
        );
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.disconnect();
        // Not the runtime's own drop: that waits for a name look-up, however long it takes.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn reach(endpoint: Endpoint) -> Result<TcpStream, Failure> {
    let unreachable = |error: io::Error| {
        let detail = format!("connecting to {endpoint}: {error}");
        Failure::new(Reason::HostUnreachable, detail)
    };
    let stream = TcpStream::connect((endpoint.address.as_str(), endpoint.port))
        .await
        .map_err(unreachable)?;
    // Questions are small and wait for their answer: Nagle's algorithm would cost a round trip each.
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

impl Fault {
    fn into_failure(self, what: &str) -> Failure {
        match self {
            Self::Ours(failure) => failure,
            Self::Library(error) => {
                Failure::new(Reason::HostUnreachable, format!("{what}: {error}"))
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
