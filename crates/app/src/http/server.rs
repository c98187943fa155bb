//! The server: listeners, connections, and an orderly end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State as Shared,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get, post},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{
    answer::{problem, response},
    door::{Door, Place, serve_connection, turn_away},
    export, intake, lines, metrics, origin, query,
    sockets::{self, SocketFile},
    state::{READERS_MAX, Served, State},
};
use crate::{drains, exit::Refusal};

/// Connections over TCP. Below the 1,024 files that a process may usually have open.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// Connections of each socket file. A connection of lines holds up to one line, about 1 MiB.
const SOCKET_CONNECTIONS_MAX: usize = 64;
/// Threads that append. More than connections usually are, so that appends share a sync.
const APPENDERS_MAX: usize = 32;
/// Threads that serve connections: they only move bytes.
const SERVING_THREADS: usize = 2;
/// How long requests in flight may take once the server stops: within the ten seconds of a stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

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
    state: Arc<State>,
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
        let served = Arc::clone(&state);
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
            let entrance = Entrance::new(&state, places_of(CONNECTIONS_MAX));
            runtime.spawn(entrance.serve_tcp(listener));
        }
        let listener = UnixListener::from_std(api).map_err(refuse)?;
        let entrance = Entrance::new(&state, places_of(SOCKET_CONNECTIONS_MAX));
        runtime.spawn(entrance.serve_api(listener));
        let listener = UnixListener::from_std(line_socket).map_err(refuse)?;
        let entrance = Entrance::new(&state, places_of(SOCKET_CONNECTIONS_MAX));
        runtime.spawn(entrance.serve_lines(listener));
        drop(entered);
        Ok(Self {
            state: served,
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

    /// What it serves of events, for another listener to serve beside its own.
    pub(crate) fn event_routes(&self) -> Router {
        event_routes(&self.state)
    }

    /// What `/metrics` tells of events.
    pub(crate) fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let state = Arc::clone(&self.state);
        move || metrics::text(&state)
    }

    /// Why no event would be taken, if none would.
    pub(crate) fn readiness(&self) -> impl Fn() -> Option<&'static str> + Send + Sync + 'static {
        let state = Arc::clone(&self.state);
        move || state.unready()
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

/// One listener of this server.
struct Entrance {
    state: Arc<State>,
    door: Door,
}

impl Entrance {
    fn new(state: &Arc<State>, places: Arc<Semaphore>) -> Self {
        Self {
            state: Arc::clone(state),
            door: Door::new(&state.counts.connections, places, &state.stop),
        }
    }

    async fn serve_tcp(mut self, listener: TcpListener) {
        let routes = routes(&self.state).layer(middleware::from_fn(origin::check));
        while let Some((stream, _)) = self.door.next(|| listener.accept()).await {
            let Some(place) = self.door.place() else {
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
        while let Some((stream, _)) = self.door.next(|| listener.accept()).await {
            if let Some(place) = self.door.place() {
                self.spawn(stream, routes.clone(), place);
            }
        }
    }

    async fn serve_lines(mut self, listener: UnixListener) {
        while let Some((stream, _)) = self.door.next(|| listener.accept()).await {
            if let Some(place) = self.door.place() {
                tokio::spawn(serve_lines(Arc::clone(&self.state), stream, place));
            }
        }
    }

    fn spawn<S>(&self, stream: S, routes: Router, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = self.door.stop.clone();
        tokio::spawn(async move {
            serve_connection(stream, routes, None, stop).await;
            drop(place);
        });
    }
}

async fn serve_lines(state: Arc<State>, stream: UnixStream, place: Place) {
    if let Err(error) = lines::serve(Arc::clone(&state), stream).await {
        tracing::debug!(%error, "a producer of lines is gone");
    }
    drop(place);
}

fn event_routes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/api/v1/events", get(query::list).post(intake::post))
        .route("/api/v1/events/{id}", get(query::one))
        .route("/api/v1/drains", get(tell_drains))
        .with_state(Arc::clone(state))
}

fn routes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/v1/logs", post(export::logs))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(tell_metrics))
        .with_state(Arc::clone(state))
        .merge(event_routes(state))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
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
