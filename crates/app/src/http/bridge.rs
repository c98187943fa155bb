//! A server that keeps nothing: what it takes is handed on at once, and the answer is the receiver's.
//!
//! Always holds: a sender hears yes only after the receiver said it. Bounded as the intake is: bytes
//! before they are read, time for a body, requests in flight.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::post,
};
use events::{
    drain::{Forward, Forwarded},
    otlp::{self, Code, Encoding},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{
    answer::response,
    body::{BODY_LEN_MAX, BODY_TIME_MAX},
    door::{serve_connection, stopped},
    origin, sockets,
};
use crate::exit::Refusal;

/// Bytes of bodies in memory, in units of 1 KiB: four of the longest.
const BODIES_KIB_MAX: u32 = 64 << 10;
/// Connections. Each costs little until it sends a body.
const CONNECTIONS_MAX: usize = 128;
/// Requests handed on at a time. Each has a thread that waits for the receiver.
const IN_FLIGHT_MAX: usize = 32;
/// Seconds that a sender waits when there is no room.
const RETRY_AFTER_SECS: u64 = 1;
/// How long requests in flight may take once the bridge stops: as long as a send may.
const STOP_TIME_MAX: Duration = events::drain::SEND_TIMEOUT;

/// A running bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    places: Arc<Semaphore>,
    address: SocketAddr,
}

#[derive(Debug)]
struct State {
    forward: Forward,
    kib: Arc<Semaphore>,
}

impl Bridge {
    pub(crate) fn start(listen: SocketAddr, forward: Forward) -> Result<Self, Refusal> {
        let tcp = sockets::tcp(listen)?;
        let refuse = |error| Refusal::new("the bridge cannot be started").source(error);
        let address = tcp.local_addr().map_err(refuse)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(IN_FLIGHT_MAX)
            .thread_name("bridge")
            .enable_io()
            .enable_time()
            .build()
            .map_err(refuse)?;
        let (stop, stopping) = watch::channel(false);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let state = Arc::new(State {
            forward,
            kib: Arc::new(Semaphore::new(
                usize::try_from(BODIES_KIB_MAX).expect("64 thousand"),
            )),
        });
        let routes = Router::new()
            .route("/v1/logs", post(logs))
            .layer(middleware::from_fn(origin::check))
            .with_state(state);
        let entered = runtime.enter();
        let listener = TcpListener::from_std(tcp).map_err(refuse)?;
        runtime.spawn(serve(listener, routes, Arc::clone(&places), stopping));
        drop(entered);
        Ok(Self {
            runtime,
            stop,
            places,
            address,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes requests in flight. False when some did not end in time; their senders have no
    /// answer, and send again.
    pub(crate) fn stop(self) -> bool {
        self.stop.send_replace(true);
        let all = u32::try_from(CONNECTIONS_MAX).expect("a small limit");
        let finished = self.runtime.block_on(async {
            timeout(STOP_TIME_MAX, self.places.acquire_many(all))
                .await
                .is_ok()
        });
        self.runtime.shutdown_timeout(Duration::from_millis(100));
        finished
    }
}

async fn serve(
    listener: TcpListener,
    routes: Router,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        // Waits for a place first: who comes beyond the limit waits in the system's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        tokio::spawn(async move {
            serve_connection(stream, routes, None, stop).await;
            drop(place);
        });
    }
}

async fn logs(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = encoding(&parts.headers);
    let Some(kib) = room(&parts.headers) else {
        let why = format!("a body of more than {BODY_LEN_MAX} bytes");
        return failed(encoding, StatusCode::PAYLOAD_TOO_LARGE, None, &why);
    };
    let Ok(room) = Arc::clone(&state.kib).try_acquire_many_owned(kib) else {
        let why = "too much is in flight";
        return failed(
            encoding,
            StatusCode::TOO_MANY_REQUESTS,
            Some(RETRY_AFTER_SECS),
            why,
        );
    };
    let body = match read(body).await {
        Ok(body) => body,
        Err(why) => return failed(encoding, StatusCode::BAD_REQUEST, None, &why),
    };
    let text = |name| {
        let value = parts.headers.get(name);
        value.and_then(|value: &HeaderValue| value.to_str().ok().map(str::to_owned))
    };
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let folding = text(header::CONTENT_ENCODING);
    let job = move || {
        let forwarded = state.forward.send(&content_type, folding.as_deref(), &body);
        drop(room);
        forwarded
    };
    match tokio::task::spawn_blocking(job).await {
        Ok(forwarded) => passed_on(encoding, forwarded),
        Err(_) => failed(
            encoding,
            StatusCode::SERVICE_UNAVAILABLE,
            Some(RETRY_AFTER_SECS),
            "the work was lost",
        ),
    }
}

/// KiB that a body takes: as many as it says, or as many as one may have. None: too many.
fn room(headers: &HeaderMap) -> Option<u32> {
    let len = match headers.get(header::CONTENT_LENGTH) {
        Some(told) => told.to_str().ok()?.parse().ok()?,
        None => BODY_LEN_MAX,
    };
    let kib = u32::try_from(len.div_ceil(1024)).ok()?;
    (len <= BODY_LEN_MAX).then_some(kib)
}

async fn read(body: Body) -> Result<Vec<u8>, String> {
    match timeout(BODY_TIME_MAX, to_bytes(body, BODY_LEN_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err(format!("the body broke off or is too long: {error}")),
        Err(_) => Err("the body did not come in time".to_owned()),
    }
}

/// How a failure of our own is written; what the receiver says passes as it is.
fn encoding(headers: &HeaderMap) -> Encoding {
    let value = headers.get(header::CONTENT_TYPE);
    let is_json = value
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(Encoding::Json.media_type()));
    if is_json {
        Encoding::Json
    } else {
        Encoding::Protobuf
    }
}

fn passed_on(encoding: Encoding, forwarded: Forwarded) -> Response {
    match forwarded {
        Forwarded::Answered {
            status,
            content_type,
            retry_after,
            body,
        } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut answer = response(status, encoding.media_type(), body);
            let given = content_type.and_then(|text| HeaderValue::try_from(text).ok());
            if let Some(given) = given {
                answer.headers_mut().insert(header::CONTENT_TYPE, given);
            }
            wait(&mut answer, retry_after.map(|wait| wait.as_secs()));
            answer
        }
        Forwarded::Unavailable { retry_after, why } => {
            let seconds = Some(retry_after.as_secs().max(RETRY_AFTER_SECS));
            failed(encoding, StatusCode::SERVICE_UNAVAILABLE, seconds, &why)
        }
    }
}

fn failed(encoding: Encoding, status: StatusCode, seconds: Option<u64>, why: &str) -> Response {
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        _ => Code::ResourceExhausted,
    };
    let body = otlp::failure(encoding, code, why);
    let mut answer = response(status, encoding.media_type(), body);
    wait(&mut answer, seconds);
    answer
}

fn wait(answer: &mut Response, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}
