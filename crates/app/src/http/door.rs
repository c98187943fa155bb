//! A listener's loop and its connections, for every server of this program: places are bounded, heads
//! and idleness have times, and the end is orderly.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};

use super::stream::Stream;

/// How long a request's head may take, and how long a connection may be idle between requests.
/// SDKs send every one to five seconds.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of a request's head, and of a body read at a time.
const READ_BUFFER_LEN_MAX: usize = 64 << 10;
/// What a failed accept (out of files, for example) is given to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections since the server was started.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) open: AtomicU64,
    pub(crate) turned_away: AtomicU64,
}

/// What a listener's loop needs.
pub(crate) struct Door {
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Door {
    pub(crate) fn new(
        connections: &Arc<Connections>,
        places: Arc<Semaphore>,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        Self {
            connections: Arc::clone(connections),
            places,
            stop: stop.clone(),
        }
    }

    /// The next connection; none when the server stops.
    pub(crate) async fn next<S, F: Future<Output = io::Result<S>>>(
        &mut self,
        accept: impl Fn() -> F,
    ) -> Option<S> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return None,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.turned_away();
            return None;
        };
        self.connections.open.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            connections: Arc::clone(&self.connections),
            _permit: permit,
        })
    }

    pub(crate) fn turned_away(&self) {
        self.connections.turned_away.fetch_add(1, Ordering::Relaxed);
    }
}

/// The right to be connected, given back when it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, counted until this is dropped.
pub(crate) struct Counted(Sources, IpAddr);

impl Sources {
    /// None where the address has `max` already. The map holds those that are connected, which places
    /// bound.
    pub(crate) fn count(&self, source: IpAddr, max: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), source))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Routes, with the address that a connection is from beside each request.
struct WithPeer {
    routes: TowerToHyperService<Router>,
    peer: Option<SocketAddr>,
}

impl Service<Request<Incoming>> for WithPeer {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        self.routes.call(request)
    }
}

/// Serves one connection until its client goes or the server stops.
pub(crate) async fn serve_connection<S>(
    stream: S,
    routes: Router,
    peer: Option<SocketAddr>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(READ_BUFFER_LEN_MAX)
        .serve_connection(TokioIo::new(Stream::new(stream)), WithPeer { routes, peer });
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Returns when the server stops, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stopped| *stopped).await);
}

/// Best effort, and without waiting: whoever comes in thousands is not worth more.
pub(crate) fn turn_away(stream: &TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    drop(stream.try_write(ANSWER));
}
