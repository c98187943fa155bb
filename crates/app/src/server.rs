//! The server of `holdfast up`: the HTTP interface under /api/v1 and the console, behind tokens.
//!
//! One table of operations ([`operation`]) says what there is, who may do it and what it takes: the
//! router, the check of roles, the OpenAPI document and the tests are all made from it. Store work runs
//! on threads that may wait, never on those that serve connections, and a bounded number at a time.

mod api;
mod attempts;
pub(crate) mod auth;
mod call;
mod carry;
mod export;
mod kept;
mod listen;
mod metrics;
mod openapi;
mod operation;
mod role;
mod route;
mod share;
mod stage;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use auth::Principal;
pub(crate) use listen::{ADMIN_TOKEN, Listening, STOP_TIME_MAX, Server, first_token, listen};
pub(crate) use openapi::document as openapi_document;
pub(crate) use operation::Reach;
pub(crate) use route::unknown;
pub(crate) use share::{Place, Places};
pub(crate) use stage::Shown;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::Router;
use scan::{
    audit::{Audit, Denials},
    credential::{self, Vault},
    inventory,
    token::{Print, Tokens},
};
use store::Store;
use tokio::sync::{Semaphore, watch};
use world::{Clock, RealClock, RealDisk, RealRandom, Timestamp};

use listen::Lasting;

use crate::{
    config::Config,
    console::Sessions,
    exit::Refusal,
    node::{Role, Stand},
    ruleset::Ruleset,
    view,
};

/// Requests that work on the store at a time, each on a thread of its own. Beyond it they wait in
/// line: there are no more of them than connections.
pub(crate) const RUNNING_MAX: usize = 32;

/// What requests share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) rules: Ruleset,
    pub(crate) config: Config,
    /// The data directory.
    pub(crate) dir: PathBuf,
    pub(crate) clock: RealClock,
    pub(crate) tokens: Tokens,
    /// Who is signed in to the console.
    pub(crate) sessions: Arc<Sessions>,
    /// Tokens that were looked up, and answers that were made, since the newest commit.
    known: auth::Known,
    kept: kept::Kept,
    overviews: view::Overviews,
    /// When each token was last noted as used.
    used: Mutex<HashMap<Print, Timestamp>>,
    attempts: Arc<attempts::Attempts>,
    denials: Denials,
    counts: Arc<metrics::Counts>,
    running: Arc<Semaphore>,
    followers: Places,
    newest: stream::Newest,
    exports: Places,
    carried: Places,
    coming: Places,
    /// Of the commands that come in, those with large files.
    large: Places,
    /// True once the server stops.
    stop: watch::Receiver<bool>,
    /// Of the events plane, where it runs.
    events: Option<Events>,
    standing: Option<Asked>,
    /// The store may commit: this is not what a node serves that stands by.
    pub(crate) is_writer: bool,
}

/// Tells how the node that serves stands among the others of its site.
pub(crate) type Asked = Arc<dyn Fn() -> Stand + Send + Sync>;

/// The events plane as this server shows it.
pub(crate) struct Events {
    pub(crate) routes: Router,
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(crate) readiness: Box<dyn Fn() -> Option<&'static str> + Send + Sync>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(
        listening: Listening<'_>,
        lasting: &Lasting,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Refusal> {
        let Listening {
            store,
            rules,
            config,
            dir,
            events,
            standing,
            is_writer,
        } = listening;
        let audit = Audit::of(&store).map_err(crate::site::Site::store_refused)?;
        Ok(Self {
            tokens: Tokens::new(store.clone()).map_err(crate::site::fleet_refused)?,
            sessions: Arc::clone(&lasting.sessions),
            store,
            rules,
            config: config.clone(),
            dir: dir.to_owned(),
            clock: RealClock::new(),
            known: auth::Known::default(),
            kept: kept::Kept::default(),
            overviews: view::Overviews::default(),
            used: Mutex::default(),
            attempts: Arc::clone(&lasting.attempts),
            denials: match is_writer {
                true => Denials::new(audit),
                false => Denials::told_only(audit),
            },
            counts: Arc::clone(&lasting.counts),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            followers: Places::new(stream::FOLLOWERS_MAX),
            newest: stream::Newest::default(),
            exports: Places::new(export::EXPORTS_MAX),
            carried: Places::new(carry::CARRIED_MAX),
            coming: Places::new(carry::COMING_MAX),
            large: Places::new(carry::LARGE_MAX),
            stop,
            events,
            standing,
            is_writer,
        })
    }

    /// How this node stands, where the site has several.
    pub(crate) fn stand(&self) -> Option<Stand> {
        self.standing.as_ref().map(|asked| asked())
    }

    /// The same where another node writes, or none, or this one does not write yet.
    pub(crate) fn standing_by(&self) -> Option<Stand> {
        let is_for_reading = |stand: &Stand| stand.role == Role::Standby || !self.is_writer;
        self.stand().filter(is_for_reading)
    }

    /// What is served ends, and whoever works for it is waited for.
    pub(crate) fn is_ending(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tells what was denied in periods that are over, and at the end all of it. Blocks.
    fn flush_denials(&self, all: bool) {
        if let Err(error) = self.denials.flush(&self.store, self.now(), all) {
            tracing::error!(%error, "denials were not recorded");
        }
    }

    /// What `principal` may see.
    pub(crate) fn reader<'a>(&'a self, principal: &'a Principal) -> view::Reader<'a> {
        view::Reader {
            store: &self.store,
            rules: &self.rules,
            dir: &self.dir,
            now: self.now(),
            scope: &principal.scope,
            overviews: &self.overviews,
        }
    }

    pub(crate) fn vault(&self) -> Result<Vault, inventory::Error> {
        Vault::new(
            self.store.clone(),
            Arc::new(RealDisk),
            Arc::new(RealRandom),
            self.dir.join(credential::KEYS_DIR),
        )
    }
}
