//! `/metrics` of the server: requests, and how the fleet stands.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;

use super::call::{Call, Problem};
use crate::{http::door::Connections, view};

const WRITES: &str = "writing to a string cannot fail";

/// Upper bounds of the histogram, in milliseconds: from an answer in memory to one that is given up.
const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 500, 2_000, 10_000];

/// Since the server was started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: Arc<Connections>,
    /// By operation and status: as many as the table of operations has of each.
    operations: Mutex<BTreeMap<(&'static str, u16), u64>>,
    buckets: [AtomicU64; BOUNDS_MS.len()],
    total: AtomicU64,
    micros: AtomicU64,
    errors: AtomicU64,
}

impl Counts {
    pub(super) fn operated(&self, id: &'static str, status: StatusCode) {
        let mut operations = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *operations.entry((id, status.as_u16())).or_insert(0) += 1;
    }

    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let place = BOUNDS_MS
            .iter()
            .position(|bound| took <= Duration::from_millis(*bound));
        if let Some(place) = place {
            self.buckets[place].fetch_add(1, Ordering::Relaxed);
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if status.is_server_error() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Everything that is counted, as it stands.
pub(super) fn text(call: &Call) -> Result<String, Problem> {
    let mut page = String::new();
    fleet(&mut page, call)?;
    requests(&mut page, call);
    page.push_str(&crate::node::figures());
    if let Some(events) = &call.shared.events {
        page.push_str(&(events.metrics)());
    }
    Ok(page)
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect(WRITES);
}

fn gauge(page: &mut String, name: &str, help: &str, value: u64) {
    head(page, name, "gauge", help);
    writeln!(page, "{name} {value}").expect(WRITES);
}

fn fleet(page: &mut String, call: &Call) -> Result<(), Problem> {
    let reader = call.reader();
    let fleet = view::fleet(&reader, None)?;
    let name = "holdfast_hosts";
    head(page, name, "gauge", "hosts by compliance state");
    for (state, count) in &fleet.states {
        writeln!(page, "{name}{{state=\"{state}\"}} {count}").expect(WRITES);
    }
    let name = "holdfast_findings";
    head(page, name, "gauge", "failures by severity");
    let failing = fleet.failing;
    for (severity, count) in [
        ("critical", failing.critical),
        ("high", failing.high),
        ("medium", failing.medium),
        ("low", failing.low),
    ] {
        writeln!(page, "{name}{{severity=\"{severity}\"}} {count}").expect(WRITES);
    }
    let name = "holdfast_verdicts";
    head(page, name, "gauge", "verdicts by kind");
    let counts = &fleet.counts;
    for (verdict, count) in [
        ("pass", counts.pass),
        ("fail", counts.fail),
        ("not_applicable", counts.not_applicable),
        ("not_assessed", counts.not_assessed),
        ("error", counts.error),
    ] {
        writeln!(page, "{name}{{verdict=\"{verdict}\"}} {count}").expect(WRITES);
    }
    queue(page, &reader)
}

fn queue(page: &mut String, reader: &view::Reader<'_>) -> Result<(), Problem> {
    let rows = view::schedule(reader)?;
    let failed = rows.iter().filter(|row| row.last_attempt_failed.is_some());
    let help = "hosts whose last attempt failed";
    gauge(
        page,
        "holdfast_hosts_not_reached",
        help,
        failed.count() as u64,
    );
    let jobs = view::jobs(reader)?;
    let leased = jobs.iter().filter(|job| job.worker.is_some()).count();
    gauge(
        page,
        "holdfast_jobs_running",
        "scans that a worker has a lease of",
        leased as u64,
    );
    let waiting = jobs.len() - leased;
    gauge(
        page,
        "holdfast_jobs_waiting",
        "scans that wait for a worker",
        waiting as u64,
    );
    let counters = view::counters(reader)?;
    for (name, help, value) in [
        (
            "holdfast_schedule_ticks_total",
            "looks at the schedule",
            counters.ticks,
        ),
        (
            "holdfast_schedule_dispatched_total",
            "jobs that were queued",
            counters.dispatched,
        ),
        (
            "holdfast_schedule_refused_total",
            "jobs that were refused",
            counters.refused,
        ),
        (
            "holdfast_schedule_leases_ended_total",
            "leases that ended before their job",
            counters.reaped,
        ),
    ] {
        head(page, name, "counter", help);
        writeln!(page, "{name} {value}").expect(WRITES);
    }
    Ok(())
}

fn requests(page: &mut String, call: &Call) {
    let counts = &call.shared.counts;
    let name = "holdfast_http_requests_total";
    head(page, name, "counter", "requests by operation and status");
    let operations = counts
        .operations
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for ((operation, status), count) in &*operations {
        writeln!(
            page,
            "{name}{{operation=\"{operation}\",status=\"{status}\"}} {count}"
        )
        .expect(WRITES);
    }
    drop(operations);
    let name = "holdfast_http_request_seconds";
    head(page, name, "histogram", "time until an answer began");
    let mut below = 0;
    for (bound, bucket) in BOUNDS_MS.iter().zip(&counts.buckets) {
        below += bucket.load(Ordering::Relaxed);
        let (seconds, millis) = (bound / 1000, bound % 1000);
        writeln!(
            page,
            "{name}_bucket{{le=\"{seconds}.{millis:03}\"}} {below}"
        )
        .expect(WRITES);
    }
    let total = counts.total.load(Ordering::Relaxed);
    let micros = counts.micros.load(Ordering::Relaxed);
    writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {total}").expect(WRITES);
    writeln!(
        page,
        "{name}_sum {}.{:06}",
        micros / 1_000_000,
        micros % 1_000_000
    )
    .expect(WRITES);
    writeln!(page, "{name}_count {total}").expect(WRITES);
    let open = counts.connections.open.load(Ordering::Relaxed);
    gauge(
        page,
        "holdfast_server_connections",
        "open connections",
        open,
    );
    let name = "holdfast_server_connections_turned_away_total";
    head(page, name, "counter", "connections beyond the limits");
    let turned_away = counts.connections.turned_away.load(Ordering::Relaxed);
    writeln!(page, "{name} {turned_away}").expect(WRITES);
}
