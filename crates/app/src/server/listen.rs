//! Listening: the port, TLS in front of it, and an orderly end. What is served is on a [`Stage`].

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use rustls::ServerConfig;
use scan::token::{Print, Request, Role, Scope, Tokens};
use store::{Store, Transaction};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    time::{interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use world::{Clock, Disk, RealClock, RealDisk, RealRandom};

use super::{
    Asked, Events, RUNNING_MAX, Shared,
    attempts::Attempts,
    metrics::Counts,
    route,
    stage::{Shown, Stage},
    tls,
};
use crate::{
    config::Config,
    console::{self, Sessions},
    exit::Refusal,
    http::door::{Door, Sources, serve_connection, stopped, turn_away},
    ruleset::Ruleset,
    site,
};

/// Connections. Below the 1,024 files that a process may usually have open, beside those of events.
pub(crate) const CONNECTIONS_MAX: usize = 400;
/// Connections of one address: nobody alone takes all.
pub(super) const SOURCE_CONNECTIONS_MAX: usize = 256;
/// Connections beyond those, for questions whether this lives; see [`route::when_full`].
const SPARE_MAX: usize = 8;
/// How long one of those may take in all, so that they are free again soon.
const SPARE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a client may take to agree on a key.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How often certificate and key are looked at for change.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(30);
/// How often it is looked whether denials that were counted are to be told.
const DENIALS_STEP: Duration = Duration::from_secs(20);
/// Threads that serve connections: they only move bytes.
const SERVING_THREADS: usize = 2;
/// How long requests in flight may take once the server stops: within the ten seconds of a stop.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(7);

/// The token of whoever installed this, below the keys.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
const ADMIN: &str = "admin";

/// Takes the port; none where another program has it. Whether it may be taken off this machine was
/// looked at when the configuration was read.
pub(crate) fn listen(address: SocketAddr) -> Result<Option<StdListener>, Refusal> {
    let listener = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match listener {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(Refusal::new(format!("listen on {address}"))
            .source(error)
            .next("name an address of this machine with server.listen")),
    }
}

/// What is put on the stage of a server.
pub(crate) struct Listening<'a> {
    pub(crate) store: Store,
    pub(crate) rules: Ruleset,
    pub(crate) config: &'a Config,
    pub(crate) dir: &'a Path,
    pub(crate) events: Option<Events>,
    /// Of a node of several.
    pub(crate) standing: Option<Asked>,
    /// The store may commit: this is not what a node serves that stands by.
    pub(crate) is_writer: bool,
}

/// What outlives what is on the stage.
#[derive(Clone, Debug)]
pub(super) struct Lasting {
    pub(super) sessions: Arc<Sessions>,
    pub(super) counts: Arc<Counts>,
    pub(super) attempts: Arc<Attempts>,
}

/// A running server. Dropping it stops it without waiting for requests in flight.
#[derive(Debug)]
pub(crate) struct Server {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    places: Arc<Semaphore>,
    address: SocketAddr,
    is_encrypted: bool,
    stage: Stage,
    lasting: Lasting,
}

impl Server {
    /// Listens from here on; nothing is on its stage yet.
    pub(crate) fn start(config: &Config, dir: &Path, tcp: StdListener) -> Result<Self, Refusal> {
        let refuse = |error: io::Error| Refusal::new("the server cannot be started").source(error);
        let address = tcp.local_addr().map_err(refuse)?;
        let (stop, stopped) = watch::channel(false);
        let is_encrypted = config.server.is_encrypted();
        let certificate = match is_encrypted {
            true => Some(Certificate::load(config, dir)?),
            false => None,
        };
        let lasting = Lasting {
            sessions: Arc::new(Sessions::new(is_encrypted)),
            counts: Arc::default(),
            attempts: Arc::default(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(SERVING_THREADS)
            .max_blocking_threads(2 * RUNNING_MAX)
            .thread_name("server")
            .enable_io()
            .enable_time()
            .build()
            .map_err(refuse)?;
        let entered = runtime.enter();
        let listener = TcpListener::from_std(tcp).map_err(refuse)?;
        drop(entered);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let door = Door::new(&lasting.counts.connections, Arc::clone(&places), &stopped);
        if let Some(certificate) = &certificate {
            runtime.spawn(certificate.clone().keep_fresh(stopped));
        }
        let stage = Stage::empty();
        let spare = Spare {
            places: Arc::new(Semaphore::new(SPARE_MAX)),
            routes: stage.spare_door(),
        };
        runtime.spawn(serve(door, listener, stage.door(), certificate, spare));
        Ok(Self {
            runtime,
            stop,
            places,
            address,
            is_encrypted,
            stage,
            lasting,
        })
    }

    /// Serves this, until the answer is ended or dropped. Fails before it serves anything.
    pub(crate) fn show(&self, listening: Listening<'_>) -> Result<Shown, Refusal> {
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(listening, &self.lasting, stopped)?);
        let routes = route::router(&shared).merge(console::router(Arc::clone(&shared)));
        let routes = route::around(&shared, routes);
        self.runtime.spawn(tell_denials(Arc::clone(&shared)));
        Ok(self.stage.show(&shared, routes, stop))
    }

    /// Where a browser finds it, the port that the system chose included.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, finishes requests in flight, and ends. False when some were still
    /// in flight after [`STOP_TIME_MAX`]; none of those was acknowledged.
    pub(crate) fn stop(self, shown: Option<Shown>) -> bool {
        self.stop.send_replace(true);
        self.stage.hurry();
        let all = u32::try_from(CONNECTIONS_MAX).expect("limits are small");
        let finished = self.runtime.block_on(async {
            timeout(STOP_TIME_MAX, self.places.acquire_many(all))
                .await
                .is_ok()
        });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        if let Some(shown) = shown {
            // Work of those that were cut off may go on; it was waited for already.
            shown.end(Duration::ZERO);
        }
        finished
    }
}

/// Denials that were counted are told while nobody is denied more, too.
async fn tell_denials(shared: Arc<Shared>) {
    let mut stop = shared.stop.clone();
    let mut steps = interval(DENIALS_STEP);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            _ = steps.tick() => {}
        }
        let own = Arc::clone(&shared);
        // A panic was told by the panic hook.
        drop(tokio::task::spawn_blocking(move || own.flush_denials(false)).await);
    }
}

/// The certificate in use, replaced when its files change.
#[derive(Clone, Debug)]
struct Certificate {
    files: Arc<Mutex<tls::Files>>,
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl Certificate {
    fn load(config: &Config, dir: &Path) -> Result<Self, Refusal> {
        let mut files = tls::Files::of(&config.server, &dir.join(scan::credential::KEYS_DIR))?;
        let read = files.read()?.expect("nothing was read before");
        Ok(Self {
            files: Arc::new(Mutex::new(files)),
            config: Arc::new(Mutex::new(read)),
        })
    }

    fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }

    /// A certificate that cannot be used is told once a look, and the one before stays.
    async fn keep_fresh(self, mut stop: watch::Receiver<bool>) {
        let mut looks = interval(CERTIFICATE_LOOK);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                _ = looks.tick() => {}
            }
            let own = self.clone();
            let looked = tokio::task::spawn_blocking(move || own.look());
            // A panic was told by the panic hook; the certificate stays.
            drop(looked.await);
        }
    }

    fn look(&self) {
        let read = self
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read();
        match read {
            Ok(None) => {}
            Ok(Some(config)) => {
                *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!("the certificate was read again");
            }
            Err(refusal) => tracing::error!(%refusal, "the certificate stays as it was"),
        }
    }
}

/// What is left where all places are taken.
struct Spare {
    places: Arc<Semaphore>,
    routes: Router,
}

async fn serve(
    mut door: Door,
    listener: TcpListener,
    routes: Router,
    certificate: Option<Certificate>,
    spare: Spare,
) {
    let sources = Sources::default();
    while let Some((stream, peer)) = door.next(|| listener.accept()).await {
        // An answer is one small write; waiting for more of it would wait for nothing.
        drop(stream.set_nodelay(true));
        let stop = door.stop.clone();
        let acceptor = certificate.as_ref().map(Certificate::acceptor);
        let counted = sources.count(peer.ip(), SOURCE_CONNECTIONS_MAX);
        let place = match &counted {
            Some(_) => door.place(),
            None => {
                door.turned_away();
                None
            }
        };
        let Some(place) = place else {
            drop(counted);
            let Ok(place) = Arc::clone(&spare.places).try_acquire_owned() else {
                turn_away(&stream);
                continue;
            };
            let routes = spare.routes.clone();
            tokio::spawn(async move {
                let served = connected(stream, acceptor, routes, peer, stop);
                // One that takes longer is cut off: others ask too.
                drop(timeout(SPARE_TIME_MAX, served).await);
                drop(place);
            });
            continue;
        };
        let routes = routes.clone();
        tokio::spawn(async move {
            connected(stream, acceptor, routes, peer, stop).await;
            drop((place, counted));
        });
    }
}

async fn connected(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) {
    match acceptor {
        None => serve_connection(stream, routes, Some(peer), stop).await,
        Some(acceptor) => encrypted(stream, &acceptor, routes, peer, stop).await,
    }
}

async fn encrypted<S>(
    stream: S,
    acceptor: &TlsAcceptor,
    routes: Router,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let agreed = tokio::select! {
        () = stopped(&mut stop) => return,
        agreed = timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)) => agreed,
    };
    match agreed {
        Ok(Ok(stream)) => serve_connection(stream, routes, Some(peer), stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on a key"),
        Err(_) => tracing::debug!("a client took too long to agree on a key"),
    }
}

/// Makes the first token where there is none, and says where it is. The file before the commit: a token that
/// is in the store and nowhere else would lock everybody out. Of several first starts on one store one makes
/// it; the others' files would open nothing, and go.
pub(crate) fn first_token(
    store: &Store,
    keys: &Path,
) -> Result<Option<std::path::PathBuf>, Refusal> {
    let tokens = Tokens::new(store.clone()).map_err(site::fleet_refused)?;
    let path = keys.join(ADMIN_TOKEN);
    let mut print = None;
    let made =
        store.transact(|transaction| first_token_in(transaction, &tokens, &path, &mut print));
    let Some(print) = print else {
        return made.map(|_| None);
    };
    // Asked of the store: a commit whose answer was lost may stand.
    match tokens.find(print) {
        Ok(Some(_)) => Ok(Some(path)),
        Ok(None) => {
            RealDisk
                .remove_file(&path)
                .map_err(|error| refused(&path, error))?;
            made.map(|_| None)
        }
        Err(error) => made.and(Err(site::fleet_refused(error))),
    }
}

/// Tells by `print` what it wrote to the file, the last time that it did.
fn first_token_in(
    transaction: &mut Transaction,
    tokens: &Tokens,
    path: &Path,
    print: &mut Option<Print>,
) -> Result<(), Refusal> {
    if tokens.is_any_in(transaction).map_err(site::fleet_refused)? {
        return Ok(());
    }
    let request = Request {
        name: ADMIN.to_owned(),
        role: Role::Admin,
        scope: Scope::default(),
        expires: None,
    };
    let now = RealClock::new().now();
    let made = tokens.add_in(transaction, &request, &RealRandom, now, "holdfast up");
    let (_, text) = made.map_err(site::fleet_refused)?;
    let line = zeroize::Zeroizing::new(format!("{}\n", *text));
    let keys = path.parent().expect("the file lies below the keys");
    RealDisk
        .create_dir_all_synced(keys)
        .and_then(|()| RealDisk.replace(path, line.as_bytes()))
        .map_err(|error| refused(path, error))?;
    *print = Print::of(&text);
    Ok(())
}

fn refused(path: &Path, error: io::Error) -> Refusal {
    Refusal::new(format!("the first token, {}", path.display()))
        .source(error)
        .next("run `holdfast doctor` to check disk and permissions")
}
