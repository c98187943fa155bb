//! `/metrics`: Prometheus' text format.

use std::{
    fmt::{Display, Write},
    sync::atomic::Ordering,
};

use events::{Class, drain::ClassStatus};

use super::state::State;

const WRITES: &str = "writing to a string cannot fail";

/// Everything that is counted, as it stands.
pub(super) fn text(state: &State) -> String {
    let mut page = Page(String::new());
    events(&mut page, state);
    drains(&mut page, state);
    drained(&mut page, state);
    journal(&mut page, state);
    page.0
}

fn events(page: &mut Page, state: &State) {
    let counts = &state.counts;
    let name = "holdfast_events_total";
    page.head(name, "counter", "events by what became of them");
    for (class, stored) in Class::ALL.iter().zip(&counts.stored) {
        let labels = [("class", class.as_str()), ("outcome", "stored")];
        page.line(name, &labels, stored.load(Ordering::Relaxed));
    }
    for (outcome, counter) in [
        ("duplicate", &counts.duplicates),
        ("refused", &counts.refused),
        ("failed", &counts.failures),
    ] {
        page.line(
            name,
            &[("outcome", outcome)],
            counter.load(Ordering::Relaxed),
        );
    }
    let is_ready = u64::from(state.unready().is_none());
    let overloads = counts.overloads.load(Ordering::Relaxed);
    let open = counts.connections.open.load(Ordering::Relaxed);
    let turned_away = counts.connections.turned_away.load(Ordering::Relaxed);
    let log = &state.log;
    page.gauge("events_ready", "1 while events are taken", is_ready);
    page.gauge(
        "events_in_flight_bytes",
        "bytes of events in flight",
        log.in_flight_bytes(),
    );
    page.counter(
        "events_overloads_total",
        "refusals because too much was in flight",
        overloads,
    );
    page.gauge(
        "events_safe_point",
        "position of the last durable event",
        log.safe_point(),
    );
    page.gauge(
        "events_first_retained",
        "position of the oldest event kept",
        log.first_retained(),
    );
    page.gauge("http_connections", "open connections", open);
    page.counter(
        "http_connections_turned_away_total",
        "connections beyond the limit",
        turned_away,
    );
}

/// How far each drain is behind. Positions between hold events of all classes: what is behind is at
/// most this.
fn drains(page: &mut Page, state: &State) {
    let name = "holdfast_drain_behind";
    page.head(
        name,
        "gauge",
        "positions between the cursor of a drain and the last durable event",
    );
    let last = state.log.safe_point().get();
    for drain in state.cursors.drains() {
        for class in Class::ALL {
            // A cursor that the log refuses is the drain's to tell; it has no distance.
            if let Ok(Some(cursor)) = state.cursors.get(&drain, class) {
                let behind = last.saturating_sub(cursor.lsn.get());
                page.line(
                    name,
                    &[("drain", &drain), ("class", class.as_str())],
                    behind,
                );
            }
        }
    }
}

/// What the drains that run here have done since they were started.
fn drained(page: &mut Page, state: &State) {
    let statuses = state.drains.statuses();
    if statuses.is_empty() {
        return;
    }
    let mut tell = |name, kind, help, values: fn(&ClassStatus) -> Vec<(&'static str, u64)>| {
        page.head(name, kind, help);
        for status in &statuses {
            for class in &status.classes {
                for (outcome, value) in values(class) {
                    let of = [
                        ("drain", status.name.as_str()),
                        ("class", class.class.as_str()),
                    ];
                    match outcome {
                        "" => page.line(name, &of, value),
                        outcome => page.line(name, &[of[0], of[1], ("outcome", outcome)], value),
                    }
                }
            }
        }
    };
    tell(
        "holdfast_drain_events_total",
        "counter",
        "events of a drain by what became of them",
        |class| {
            vec![
                ("accepted", class.accepted),
                ("refused", class.refused),
                ("lost", class.lost),
            ]
        },
    );
    tell(
        "holdfast_drain_waiting",
        "gauge",
        "events of a drain that were not delivered",
        |class| vec![("", class.waiting)],
    );
    tell(
        "holdfast_drain_failures",
        "gauge",
        "failed attempts of a drain in a row; 0 when all is well",
        |class| vec![("", u64::from(class.failures))],
    );
}

fn journal(page: &mut Page, state: &State) {
    let counts = state.journal.counts();
    for (name, help, value) in [
        (
            "appends",
            "appends to the journal of events",
            counts.appends,
        ),
        ("records", "records appended", counts.records),
        ("groups", "commit groups written", counts.groups),
        ("syncs", "data syncs that appends waited for", counts.syncs),
        ("bytes", "bytes of batches written", counts.bytes),
        ("settles", "updates of the safe-point file", counts.settles),
        ("rolls", "segments begun", counts.rolls),
        (
            "recycled",
            "segments made of released ones",
            counts.recycled,
        ),
        (
            "space_waits",
            "waits for space that was not prepared",
            counts.space_waits,
        ),
        ("repairs", "torn tails cut by opening", counts.repairs),
        ("poisonings", "failed writes or syncs", counts.poisonings),
        (
            "refused",
            "appends refused for want of space",
            counts.refused,
        ),
        (
            "dropped_records",
            "records that retention removed",
            counts.dropped_records,
        ),
        (
            "dropped_bytes",
            "bytes that retention removed",
            counts.dropped_bytes,
        ),
    ] {
        page.counter(&format!("journal_{name}_total"), help, value);
    }
}

/// What is told so far.
struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        let name = format!("holdfast_{name}");
        self.head(&name, "counter", help);
        self.line(&name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        let name = format!("holdfast_{name}");
        self.head(&name, "gauge", help);
        self.line(&name, &[], value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect(WRITES);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            // A drain is named by its user; `escape_debug` escapes what the format wants escaped.
            write!(self.0, "{open}{label}=\"{}\"", text.escape_debug()).expect(WRITES);
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(self.0, "{close} {value}").expect(WRITES);
    }
}
