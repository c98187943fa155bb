//! `holdfast up`: scan, show, and keep watching until stopped.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use world::{Clock, Disk, RealClock, RealDisk};

use super::{
    events::serve::Intake,
    scan::{self, Source},
};
use crate::{
    cli::{Output, Up},
    config::{self, Config},
    exit::{Exit, Refusal},
    moment,
    ruleset::Ruleset,
    screen::{Screen, complain},
    site::{self, Site},
};

/// How soon a stop request is noticed while nothing is done.
const STOP_POLL: Duration = Duration::from_millis(200);

/// Makes a second `up` on one directory an error. `scan` and `status` may run beside the first.
const UP_LOCK: &str = "up.lock";

pub(crate) fn run(up: &Up, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    interval(up, config)?;
    let stop = site::stop_flag()?;
    let rules = Ruleset::load(config, up.scope.rules_dir.as_deref())?;
    Site::open(config, screen)?.close(screen);
    let _running = hold(config)?;
    super::fix::tell_unfinished(config, screen)?;
    let intake = Intake::beside(config, screen)?;
    let watched = watch(up, &rules, config, screen, &stop);
    // Also when watching failed: what is in flight is finished either way.
    if let Some(intake) = intake {
        intake.stop(screen);
    }
    watched
}

/// Scans, shows, and goes on scanning until stopped.
fn watch(
    up: &Up,
    rules: &Ruleset,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Exit, Refusal> {
    let interval = interval(up, config)?;
    let source = scan::this_machine(&up.scope, config);
    let Some(first) = scan::scan_once(source, rules, config, screen, stop, None)? else {
        return Ok(stopped(screen));
    };
    scan::print(&first, rules, config.output.value, screen)?;
    screen.remark(format_args!(
        "\nRecorded in {}. Watching: a scan every {}; Ctrl-C stops, the next start goes on from here.",
        config.data_dir()?.display(),
        span_words(interval)
    ));
    while wait(interval, stop) {
        match watch_once(source, rules, config, screen, stop) {
            Ok(true) => {}
            Ok(false) => break,
            // A disk that is full now may not be at the next scan: whoever watches goes on, and says
            // each time why there is no result.
            Err(refusal) => complain(&refusal),
        }
    }
    Ok(stopped(screen))
}

fn interval(up: &Up, config: &Config) -> Result<Duration, Refusal> {
    let Some(text) = &up.interval else {
        return Ok(config.scan_interval.value);
    };
    config::checked_interval(text).ok_or_else(|| {
        Refusal::new(format!("`{text}` is no interval")).next("write a span from 5m to 48h")
    })
}

fn hold(config: &Config) -> Result<Box<dyn world::disk::Lock>, Refusal> {
    let dir = config.data_dir()?;
    let path = dir.join(UP_LOCK);
    RealDisk.lock(&path, &site::holder()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            Refusal::new(format!("{} is already watched by {error}", dir.display()))
                .next("look with `holdfast status`, or stop the other one first")
        } else {
            Refusal::new(format!("lock {}", path.display()))
                .source(error)
                .next("run `holdfast doctor` to check disk and permissions")
        }
    })
}

/// Later scans say only what changed; whoever wants everything asks `status`. False when stopped.
fn watch_once(
    source: Source<'_>,
    rules: &Ruleset,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<bool, Refusal> {
    let Some(done) = scan::scan_once(source, rules, config, screen, stop, None)? else {
        return Ok(false);
    };
    if config.output.value != Output::Table {
        scan::print(&done, rules, config.output.value, screen)?;
        return Ok(true);
    }
    let at = moment::local(done.recorded.finished);
    let changed = scan::changed_rules(&done.applied);
    if changed.is_empty() {
        screen.remark(format_args!("{at}  nothing changed"));
    }
    for change in changed {
        screen.result(&format!("{at}  {change}"))?;
    }
    Ok(true)
}

/// False when stopped.
fn wait(interval: Duration, stop: &AtomicBool) -> bool {
    let clock = RealClock::new();
    let end = clock.monotonic() + interval;
    loop {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return false;
        }
        let left = end.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return true;
        }
        clock.sleep(left.min(STOP_POLL));
    }
}

/// Being stopped is how this command ends well, whatever the machine looks like.
fn stopped(screen: Screen) -> Exit {
    screen.remark("stopped; everything recorded is safe");
    Exit::Clean
}

fn span_words(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
