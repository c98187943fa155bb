//! `holdfast events bridge`: from a sender to a receiver, keeping nothing in between.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use events::drain::{Forward, SEND_TIMEOUT};
use world::{Clock, RealClock};

use crate::{
    cli::drain::Bridge as Flags,
    exit::{Exit, Refusal},
    http::Bridge,
    receiver::{drain_refused, headers},
    screen::Screen,
    site,
};

/// How soon a stop request is noticed.
const STOP_POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(flags: &Flags, screen: Screen) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let headers = headers(&flags.header)?;
    let forward = Forward::new(
        &flags.forward_url,
        &headers,
        SEND_TIMEOUT,
        Arc::new(RealClock::new()),
    );
    let forward = forward.map_err(|error| drain_refused(&error))?;
    let bridge = Bridge::start(flags.listen, forward)?;
    screen.remark(format_args!(
        "OTLP from http://{} goes to {}; Ctrl-C stops",
        bridge.address(),
        flags.forward_url
    ));
    let clock = RealClock::new();
    while !stop.load(Ordering::Relaxed) {
        clock.sleep(STOP_POLL);
    }
    if !bridge.stop() {
        screen.remark("requests that did not end in time have no answer; their senders send again");
    }
    Ok(Exit::Clean)
}
