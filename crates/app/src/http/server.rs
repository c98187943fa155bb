//! The server: listeners, connections, and an orderly end.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    extract::State as Shared,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    answer::{problem, response},
    export, intake, lines, metrics, origin, query,
    sockets::{self, SocketFile},
    state::{READERS_MAX, Served, State},
    stream::Stream,
};
use crate::{drains, exit::Refusal};

/// Connections over TCP. Below the 1,024 files that a process may usually have open.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// Connections of each socket file. A connection of lines holds up to one line, about 1 MiB.
const SOCKET_CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, and how long a connection may be idle between requests.
/// SDKs send every one to five seconds.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of a request's head, and of a body read at a time.
const READ_BUFFER_LEN_MAX: usize = 64 << 10;
/// Threads that append. More than connections usually are, so that appends share a sync.
const APPENDERS_MAX: usize = 32;
/// Threads that serve connections: they only move bytes.
const SERVING_THREADS: usize = 2;
/// How long requests in flight may take once the server stops: within the ten seconds of a stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);
/// What a failed accept (out of files, for example) is given to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug)]
pub(crate) struct Listen {
    /// None: on the socket files only.
    pub(crate) tcp: Option<std::net::TcpListener>,
    /// HTTP for commands on this machine.
    pub(crate) api: PathBuf,
    /// JSON lines.
    pub(crate) lines: PathBuf,
}

/// A running server. Dropping it stops it without waiting for requests in flight.
#[derive(Debug)]
pub(crate) struct Server {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    places: Vec<(Arc<Semaphore>, usize)>,
    address: Option<SocketAddr>,
    /// Removed when the server is.
    _files: [SocketFile; 2],
}

impl Server {
    /// Listens and serves from here on. Fails before it serves anything.
    pub(crate) fn start(listen: Listen, served: &Served) -> Result<Self, Refusal> {
        let (api, api_file) = sockets::unix(&listen.api)?;
        let (line_socket, lines_file) = sockets::unix(&listen.lines)?;
        let refuse = |error| Refusal::new("the server cannot be started").source(error);
        let runtime = Builder::new_multi_thread()
            .worker_threads(SERVING_THREADS)
            .max_blocking_threads(APPENDERS_MAX + READERS_MAX)
            .thread_name("http")
            .enable_io()
            .enable_time()
            .build()
            .map_err(refuse)?;
        let (stop, stopped) = watch::channel(false);
        let state = Arc::new(State::new(served, stopped));
        let entered = runtime.enter();
        let mut places = Vec::new();
        let mut places_of = |count| {
            let semaphore = Arc::new(Semaphore::new(count));
            places.push((Arc::clone(&semaphore), count));
            semaphore
        };
        let mut address = None;
        if let Some(tcp) = listen.tcp {
            address = tcp.local_addr().ok();
            let listener = TcpListener::from_std(tcp).map_err(refuse)?;
            let door = Door::new(&state, places_of(CONNECTIONS_MAX));
            runtime.spawn(door.serve_tcp(listener));
        }
        let listener = UnixListener::from_std(api).map_err(refuse)?;
        let door = Door::new(&state, places_of(SOCKET_CONNECTIONS_MAX));
        runtime.spawn(door.serve_api(listener));
        let listener = UnixListener::from_std(line_socket).map_err(refuse)?;
        let door = Door::new(&state, places_of(SOCKET_CONNECTIONS_MAX));
        runtime.spawn(door.serve_lines(listener));
        drop(entered);
        Ok(Self {
            runtime,
            stop,
            places,
            address,
            _files: [api_file, lines_file],
        })
    }

    /// Where it listens, the port that the system chose included.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes no more connections, finishes requests in flight, and ends. False when some were still
    /// in flight after [`STOP_TIME_MAX`]; none of those was acknowledged.
    pub(crate) fn stop(self) -> bool {
        self.stop.send_replace(true);
        let finished = self.runtime.block_on(async {
            let all = async {
                for (places, count) in &self.places {
                    let count = u32::try_from(*count).expect("limits are small");
                    // Only closed semaphores fail, and nobody closes these.
                    drop(places.acquire_many(count).await);
                }
            };
            timeout(STOP_TIME_MAX, all).await.is_ok()
        });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        finished
    }
}

/// What a listener's loop needs.
struct Door {
    state: Arc<State>,
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Door {
    fn new(state: &Arc<State>, places: Arc<Semaphore>) -> Self {
        Self {
            state: Arc::clone(state),
            places,
            stop: state.stop.clone(),
        }
    }

    /// The next connection; none when the server stops.
    async fn next<S, F: Future<Output = io::Result<S>>>(
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

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            let counts = &self.state.counts;
            counts
                .connections_turned_away
                .fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    async fn serve_tcp(mut self, listener: TcpListener) {
        let routes = routes(&self.state).layer(middleware::from_fn(origin::check));
        while let Some((stream, _)) = self.next(|| listener.accept()).await {
            let Some(place) = self.place() else {
                turn_away(&stream);
                continue;
            };
            // An answer is one small write; waiting for more of it would wait for nothing.
            drop(stream.set_nodelay(true));
            self.spawn(stream, routes.clone(), place);
        }
    }

    async fn serve_api(mut self, listener: UnixListener) {
        let routes = routes(&self.state);
        while let Some((stream, _)) = self.next(|| listener.accept()).await {
            if let Some(place) = self.place() {
                self.spawn(stream, routes.clone(), place);
            }
        }
    }

    async fn serve_lines(mut self, listener: UnixListener) {
        while let Some((stream, _)) = self.next(|| listener.accept()).await {
            if let Some(place) = self.place() {
                tokio::spawn(serve_lines(Arc::clone(&self.state), stream, place));
            }
        }
    }

    fn spawn<S>(&self, stream: S, routes: Router, place: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            state.counts.connections.fetch_add(1, Ordering::Relaxed);
            serve_connection(stream, routes, state.stop.clone()).await;
            state.counts.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

async fn serve_lines(state: Arc<State>, stream: UnixStream, place: OwnedSemaphorePermit) {
    state.counts.connections.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = lines::serve(Arc::clone(&state), stream).await {
        tracing::debug!(%error, "a producer of lines is gone");
    }
    state.counts.connections.fetch_sub(1, Ordering::Relaxed);
    drop(place);
}

/// Serves one connection until its client goes or the server stops.
pub(super) async fn serve_connection<S>(stream: S, routes: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(READ_BUFFER_LEN_MAX)
        .serve_connection(
            TokioIo::new(Stream::new(stream)),
            TowerToHyperService::new(routes),
        );
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
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stopped| *stopped).await);
}

/// Best effort, and without waiting: whoever comes in thousands is not worth more.
fn turn_away(stream: &TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    drop(stream.try_write(ANSWER));
}

fn routes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/v1/logs", post(export::logs))
        .route("/api/v1/events", get(query::list).post(intake::post))
        .route("/api/v1/events/{id}", get(query::one))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(tell_metrics))
        .route("/api/v1/drains", get(tell_drains))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(Arc::clone(state))
}

/// The process answers; whether it takes events is asked of /ready.
async fn health() -> Response {
    response(
        StatusCode::OK,
        "application/json",
        json!({"status": "ok"}).to_string(),
    )
}

async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let (status, body) = match state.unready() {
        None => (StatusCode::OK, json!({"status": "ready"})),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "not ready", "why": why}),
        ),
    };
    response(status, "application/json", body.to_string())
}

async fn tell_metrics(Shared(state): Shared<Arc<State>>) -> Response {
    response(
        StatusCode::OK,
        "text/plain; version=0.0.4",
        metrics::text(&state),
    )
}

async fn tell_drains(Shared(state): Shared<Arc<State>>) -> Response {
    let statuses = state.drains.statuses();
    let drains: Vec<_> = statuses.iter().map(drains::document).collect();
    let body = json!({"drains": drains}).to_string();
    response(StatusCode::OK, "application/json", body)
}

async fn unknown() -> Response {
    let detail = "nothing is here; OTLP logs go to /v1/logs, JSON lines to /api/v1/events";
    problem(StatusCode::NOT_FOUND, "UNKNOWN", detail)
}

async fn not_allowed() -> Response {
    let detail = "this address takes another method";
    problem(StatusCode::METHOD_NOT_ALLOWED, "METHOD", detail)
}
