//! `holdfast events serve`, and the same server inside of `holdfast up`.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::events::Log;
use world::{Clock, RealClock};

use crate::{
    cli::events::Serve,
    config::{Config, Origin},
    drains::Drains,
    events::{API_SOCKET, Events, LINES_SOCKET},
    exit::{Exit, Refusal},
    http::{self, Listen, Served, Server},
    screen::Screen,
    site,
};

/// How soon a stop request is noticed.
const STOP_POLL: Duration = Duration::from_millis(100);

/// The opened log and the server in front of it.
pub(crate) struct Intake {
    events: Events,
    drains: Arc<Drains>,
    server: Server,
}

impl Intake {
    /// Opens the log and serves it on `tcp` and on the socket files.
    fn start(config: &Config, tcp: Option<TcpListener>, screen: Screen) -> Result<Self, Refusal> {
        let events = Events::open(config, screen)?;
        let listen = Listen {
            tcp,
            api: events.dir().join(API_SOCKET),
            lines: events.dir().join(LINES_SOCKET),
        };
        let drains = Arc::new(Drains::start(&config.events_drains, &events)?);
        let served = Served {
            log: Arc::clone(&events.log),
            journal: Arc::clone(&events.journal),
            cursors: Arc::clone(&events.cursors),
            drains: Arc::clone(&drains),
        };
        let server = Server::start(listen, &served)?;
        Ok(Self {
            events,
            drains,
            server,
        })
    }

    /// For `holdfast up`, which goes on without the port when another program has the one that nobody
    /// asked for, such as a Collector.
    pub(crate) fn beside(config: &Config, screen: Screen) -> Result<Option<Self>, Refusal> {
        if !config.events_enabled.value {
            return Ok(None);
        }
        let listen = &config.events_listen;
        let tcp = if listen.origin == Origin::Default {
            http::tcp_unless_taken(listen.value)?
        } else {
            Some(http::tcp(listen.value)?)
        };
        if tcp.is_none() {
            screen.remark(format_args!(
                "events are taken on the socket files only: another program listens on {}; \
                 events.listen names another port",
                listen.value
            ));
        }
        let intake = Self::start(config, tcp, screen)?;
        intake.tell(screen);
        Ok(Some(intake))
    }

    fn tell(&self, screen: Screen) {
        let dir = self.events.dir().display();
        match self.server.address() {
            Some(address) => screen.remark(format_args!(
                "events are taken at http://{address} (OTLP at /v1/logs) and at {dir}/{LINES_SOCKET}"
            )),
            None => screen.remark(format_args!("events are taken at {dir}/{LINES_SOCKET}")),
        }
    }

    /// What another listener serves of events beside its own.
    pub(crate) fn beside_server(&self) -> crate::server::Events {
        crate::server::Events {
            routes: self.server.event_routes(),
            metrics: Box::new(self.server.metrics()),
            readiness: Box::new(self.server.readiness()),
        }
    }

    /// The log that events are taken into.
    pub(crate) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.events.log)
    }

    /// Finishes what is in flight and closes the log.
    pub(crate) fn stop(self, screen: Screen) {
        if !self.server.stop() {
            screen.remark(
                "requests that did not end in time were cut off; none of them was acknowledged",
            );
        }
        self.drains.stop();
        self.events.close(screen);
    }
}

pub(crate) fn run(serve: &Serve, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let address = serve.listen.unwrap_or(config.events_listen.value);
    let intake = Intake::start(config, Some(http::tcp(address)?), screen)?;
    intake.tell(screen);
    wait(&stop);
    intake.stop(screen);
    screen.remark("stopped; everything acknowledged is safe");
    Ok(Exit::Clean)
}

fn wait(stop: &AtomicBool) {
    let clock = RealClock::new();
    while !stop.load(Ordering::Relaxed) {
        clock.sleep(STOP_POLL);
    }
}
