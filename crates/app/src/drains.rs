//! The drains of the configuration, which run for as long as the events are served.
//!
//! A drain that cannot begin holds up neither the others nor the intake: it is shown with its error,
//! and the events it has not sent are kept for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use events::{
    Class, Kind,
    drain::{self, DeadLetters, Handle, Mode, Receivers, Status},
    lines::rfc3339,
};
use serde::Deserialize;
use serde_json::{Value, json};
use world::{RealClock, RealRandom};

use crate::{
    events::Events,
    exit::Refusal,
    receiver::{drain_refused, receivers},
};

/// One `[[events.drain]]` as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDrain {
    to: String,
    name: Option<String>,
    #[serde(default)]
    classes: Vec<String>,
    /// By name, each `env:VARIABLE` or `file:PATH`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// A drain that can be begun.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    name: String,
    classes: Vec<Class>,
    receivers: Receivers,
}

/// Checks every drain of a configuration before any is begun.
pub(crate) fn configured(
    drains: &[FileDrain],
    file: Option<&Path>,
) -> Result<Vec<Configured>, Refusal> {
    let place = file.map_or_else(String::new, |file| format!(" in {}", file.display()));
    let mut names = BTreeSet::new();
    let mut configured = Vec::with_capacity(drains.len());
    for drain in drains {
        let headers: Vec<String> = drain
            .headers
            .iter()
            .map(|(name, source)| format!("{name}={source}"))
            .collect();
        let receivers = receivers(&drain.to, &headers)?;
        let name = drain.name.clone();
        let name = name.unwrap_or_else(|| receivers.target.drain_name());
        if !names.insert(name.clone()) {
            return Err(
                Refusal::new(format!("two [[events.drain]]{place} are named {name}"))
                    .next("give one of them another `name`: it keeps how far the drain is"),
            );
        }
        configured.push(Configured {
            name,
            classes: classes(&drain.classes, &place)?,
            receivers,
        });
    }
    Ok(configured)
}

fn classes(named: &[String], place: &str) -> Result<Vec<Class>, Refusal> {
    if named.is_empty() {
        return Ok(Class::ALL.to_vec());
    }
    let read = |text: &String| {
        Class::parse(text).ok_or_else(|| {
            Refusal::new(format!("`{text}` is no class of [[events.drain]]{place}"))
                .next("write error, decision, action, lifecycle or other")
        })
    };
    named.iter().map(read).collect()
}

/// The running drains.
#[derive(Debug)]
pub(crate) struct Drains {
    running: Mutex<Vec<Handle>>,
    /// Those that could not begin.
    refused: Vec<Status>,
}

impl Drains {
    pub(crate) fn start(configured: &[Configured], events: &Events) -> Result<Self, Refusal> {
        let mut running = Vec::new();
        let mut refused = Vec::new();
        if configured.is_empty() {
            return Ok(Self {
                running: Mutex::new(running),
                refused,
            });
        }
        let letters = Arc::new(DeadLetters::new(events.dead_letter()?));
        for drain in configured {
            let started = Handle::start(drain::Options {
                name: drain.name.clone(),
                classes: drain.classes.clone(),
                receivers: drain.receivers.clone(),
                journal: Arc::clone(events.log.journal()),
                cursors: Arc::clone(&events.cursors),
                dead_letters: Arc::clone(&letters),
                clock: Arc::new(RealClock::new()),
                random: Arc::new(RealRandom),
                mode: Mode::Follow,
            });
            match started {
                Ok(handle) => running.push(handle),
                Err(error) if error.kind() == Kind::Invalid => return Err(drain_refused(&error)),
                Err(error) => {
                    tracing::error!(drain = drain.name, %error, "drain does not begin");
                    refused.push(Status {
                        name: drain.name.clone(),
                        to: drain.receivers.target.to_string(),
                        classes: Vec::new(),
                        error: Some(error.to_string()),
                        has_ended: true,
                    });
                }
            }
        }
        Ok(Self {
            running: Mutex::new(running),
            refused,
        })
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        let running = self.running();
        let running = running.iter().map(Handle::status);
        running.chain(self.refused.iter().cloned()).collect()
    }

    /// Ends all of them, each within a second or so; what they were sending is sent again.
    pub(crate) fn stop(&self) {
        let running = std::mem::take(&mut *self.running());
        running.iter().for_each(Handle::stop);
        for handle in running {
            handle.join();
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.running
            .lock()
            .expect("no thread panics while it holds this lock")
    }
}

/// A drain as JSON.
pub(crate) fn document(status: &Status) -> Value {
    let classes: Vec<Value> = status
        .classes
        .iter()
        .map(|class| {
            json!({
                "class": class.class.as_str(),
                "cursor": class.cursor.get(),
                "waiting": class.waiting,
                "accepted": class.accepted,
                "refused": class.refused,
                "lost": class.lost,
                "sending": class.is_sending,
                "failures": class.failures,
                "failing_since": class.failing_since.map(rfc3339),
                "last_error": class.last_error,
            })
        })
        .collect();
    json!({
        "name": status.name,
        "to": status.to,
        "ended": status.has_ended,
        "error": status.error,
        "classes": classes,
    })
}
