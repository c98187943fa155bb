//! `holdfast events drain`: in the foreground, until everything is delivered or someone stops it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use events::{
    Class, Event,
    drain::{self, DeadLetters, Handle, Mode, Status, Summary},
};
use indicatif::{ProgressBar, ProgressStyle};
use world::{Clock, RealClock, RealRandom};

use crate::{
    cli::{Output, drain::Drain},
    command::json,
    config::Config,
    drains,
    events::{Access, Events},
    exit::{Exit, Refusal},
    present::{csv, table},
    receiver::{drain_refused, receivers},
    screen::Screen,
    site,
};

/// How soon an end or a request to stop is noticed, and the progress redrawn.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn run(drain: &Drain, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if let Some(name) = &drain.forget {
        return forget(name, config, screen);
    }
    let to = drain.to.as_deref().unwrap_or_default();
    let receivers = receivers(to, &drain.header)?;
    let stop = site::stop_flag()?;
    let events = opened(config, screen)?;
    let name = drain
        .name
        .clone()
        .unwrap_or_else(|| receivers.target.drain_name());
    let options = drain::Options {
        name,
        classes: match &drain.classes[..] {
            [] => Class::ALL.to_vec(),
            chosen => chosen.to_vec(),
        },
        receivers,
        journal: Arc::clone(events.log.journal()),
        cursors: Arc::clone(&events.cursors),
        dead_letters: Arc::new(DeadLetters::new(events.dead_letter()?)),
        clock: Arc::new(RealClock::new()),
        random: Arc::new(RealRandom),
        mode: if drain.once { Mode::Once } else { Mode::Follow },
    };
    let handle = Handle::start(options).map_err(|error| drain_refused(&error))?;
    if !drain.once {
        screen.remark(format_args!(
            "draining to {to}; Ctrl-C stops, the next start goes on"
        ));
    }
    let summary = watch(handle, &stop, screen);
    events.close(screen);
    print(&summary, config.output.value, screen)?;
    Ok(match (summary.is_complete, summary.status.refused()) {
        (false, _) if drain.once => Exit::Incomplete,
        (true, 1..) if drain.once => Exit::Findings,
        _ => Exit::Clean,
    })
}

/// The opened log. A server has its own drains: two of one name would send everything twice.
pub(super) fn opened(config: &Config, screen: Screen) -> Result<Box<Events>, Refusal> {
    match Events::reach_existing(config, screen)? {
        Access::Open(events) => Ok(events),
        Access::Served(_) => Err(Refusal::new(
            "the events are open in a running server, and drains run where the events are open",
        )
        .next("add [[events.drain]] to its configuration, or stop it first")),
    }
}

fn forget(name: &str, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let events = opened(config, screen)?;
    if !events.cursors.drains().iter().any(|known| known == name) {
        let known = events.cursors.drains().join(", ");
        return Err(
            Refusal::new(format!("no drain is named {name}")).next(match known.as_str() {
                "" => "no drain has begun yet".to_owned(),
                known => format!("there are: {known}"),
            }),
        );
    }
    let forgotten = events.cursors.forget(name);
    forgotten.map_err(|error| drain_refused(&error))?;
    events.close(screen);
    screen.remark(format_args!(
        "drain {name} begins anew, and may send again what it sent before"
    ));
    Ok(Exit::Clean)
}

fn watch(handle: Handle, stop: &AtomicBool, screen: Screen) -> Summary {
    let bar = if screen.shows_progress() {
        ProgressBar::new(0).with_style(style())
    } else {
        ProgressBar::hidden()
    };
    let clock = RealClock::new();
    let mut was_well = true;
    while !handle.has_ended() {
        if stop.load(Ordering::Relaxed) {
            handle.stop();
        }
        let status = handle.status();
        bar.set_length(status.accepted() + status.refused() + status.waiting());
        bar.set_position(status.accepted() + status.refused());
        bar.set_message(trouble(&status).unwrap_or_default());
        if bar.is_hidden() && was_well != status.is_well() {
            match trouble(&status) {
                Some(trouble) => screen.remark(trouble),
                None => screen.remark("the drain goes on"),
            }
        }
        was_well = status.is_well();
        clock.sleep(POLL);
    }
    bar.finish_and_clear();
    handle.join()
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("draining  {bar:20} {pos}/{len} {wide_msg}")
        .expect("the template is valid")
        .progress_chars("█▉▊▋▌▍▎▏░")
}

/// What keeps events from being delivered.
fn trouble(status: &Status) -> Option<String> {
    if let Some(error) = &status.error {
        return Some(error.clone());
    }
    let failing = status.classes.iter().find(|class| class.failures > 0)?;
    Some(format!(
        "{}, attempt {}: {}",
        failing.class,
        failing.failures,
        failing.last_error.as_deref().unwrap_or("no answer")
    ))
}

fn print(summary: &Summary, output: Output, screen: Screen) -> Result<(), Refusal> {
    let status = &summary.status;
    let cells = status.classes.iter().map(|class| {
        [
            class.class.to_string(),
            class.accepted.to_string(),
            class.refused.to_string(),
            class.waiting.to_string(),
            class.cursor.to_string(),
            match class.failures {
                0 => String::new(),
                _ => class.last_error.clone().unwrap_or_default(),
            },
        ]
    });
    let header = ["class", "accepted", "refused", "waiting", "cursor", "error"];
    let text = match output {
        Output::Json => {
            let mut document = drains::document(status);
            document["complete"] = summary.is_complete.into();
            json(&document)?
        }
        Output::Csv => csv::lines(header, cells),
        Output::Table => table::rows(
            header
                .map(|name| name.to_uppercase())
                .each_ref()
                .map(String::as_str),
            cells,
        ),
    };
    screen.result(&text)?;
    if let Some(error) = &status.error {
        screen.remark(error);
    }
    if status.refused() > 0 {
        screen.remark("what was refused is kept: `holdfast events dead-letter list`");
    }
    Ok(())
}

/// The line of an event, without its line break.
pub(super) fn line(event: &Event) -> String {
    let mut text = String::new();
    events::lines::push(&mut text, event);
    text.truncate(text.trim_end().len());
    text
}
