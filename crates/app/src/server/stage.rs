//! What the port serves at present. It may change while connections stay: a node begins to write, or
//! writes no more.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use world::{Clock, RealClock};

use super::{Shared, route};
use crate::http::answer;

/// How often it is looked whether requests in flight have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How soon a client is to ask again while roles change: that takes a second or two.
const RETRY_AFTER_SECONDS: u64 = 1;

#[derive(Clone)]
struct Routes {
    /// Everything.
    all: Router,
    /// What is left where all places are taken.
    spare: Router,
}

/// Between two stages nothing is on it, and everybody is asked to come again.
#[derive(Clone)]
pub(super) struct Stage(Arc<Mutex<Option<On>>>);

struct On {
    routes: Routes,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

impl Stage {
    pub(super) fn empty() -> Self {
        Self(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, Option<On>> {
        // Nothing is left half done by a panic: each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(
        &self,
        shared: &Arc<Shared>,
        all: Router,
        stop: watch::Sender<bool>,
    ) -> Shown {
        let spare = route::around(shared, route::when_full(shared));
        let routes = Routes { all, spare };
        let own = stop.clone();
        *self.lock() = Some(On { routes, stop });
        Shown {
            stage: self.clone(),
            stop: own,
            shared: Arc::clone(shared),
        }
    }

    /// What is on it is to end; it is served until then.
    pub(super) fn hurry(&self) {
        if let Some(on) = &*self.lock() {
            on.stop.send_replace(true);
        }
    }

    /// Takes away what stops with `stop`, unless something else is there by now.
    fn clear(&self, stop: &watch::Sender<bool>) {
        stop.send_replace(true);
        self.lock().take_if(|on| on.stop.same_channel(stop));
    }

    /// What each connection is served with: each request finds what is on the stage when it comes.
    pub(super) fn door(&self) -> Router {
        self.passing(|routes| routes.all)
    }

    pub(super) fn spare_door(&self) -> Router {
        self.passing(|routes| routes.spare)
    }

    fn passing(&self, of: fn(Routes) -> Router) -> Router {
        let stage = self.clone();
        Router::new().fallback(move |request: Request| {
            let routes = stage.lock().as_ref().map(|on| on.routes.clone());
            pass(routes.map_or_else(between, of), request)
        })
    }
}

fn pass(routes: Router, request: Request) -> impl Future<Output = Response> + Send {
    let answer = hyper::service::Service::call(&TowerToHyperService::new(routes), request);
    async {
        match answer.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What is served while there is nothing on the stage.
fn between() -> Router {
    let told = || async {
        let detail = "this node changes its role; ask again in a moment";
        again(answer::problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "ROLE_CHANGING",
            detail,
        ))
    };
    let ready = || async {
        let body = serde_json::json!({"status": "not ready", "why": "the node changes its role"});
        let status = StatusCode::SERVICE_UNAVAILABLE;
        again(answer::response(
            status,
            "application/json",
            body.to_string(),
        ))
    };
    Router::new()
        .route("/health", get(|| route::health("changing")))
        .route("/ready", get(ready))
        .fallback(told)
}

/// For programs, and for a browser that was on its way to a page.
fn again(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    headers.insert(header::REFRESH, RETRY_AFTER_SECONDS.into());
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is on the stage. Dropped, it is no more, without waiting for requests in flight.
#[derive(Debug)]
pub(crate) struct Shown {
    stage: Stage,
    /// Of what it put there.
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
}

impl Shown {
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes it off the stage and waits until nobody uses it any more. False when somebody still did
    /// after `wait`: then the store is still open in there.
    pub(crate) fn end(self, wait: Duration) -> bool {
        self.stage.clear(&self.stop);
        let clock = RealClock::new();
        let end = clock.monotonic() + wait;
        // One of them is this one's own.
        while Arc::strong_count(&self.shared) > 1 && clock.monotonic() < end {
            clock.sleep(LOOK_EVERY);
        }
        self.shared.flush_denials(true);
        Arc::strong_count(&self.shared) == 1
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stage.clear(&self.stop);
    }
}
