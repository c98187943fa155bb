//! `/metrics` of a node: its role, its copies, and what happened since it was started.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use replica::{
    group::{Group, Told},
    machine::{Role, Status},
};

use super::Settings;

/// A process is one node at most, and its role changes while it is asked.
static NODE: Mutex<Option<(Weak<Group>, PathBuf)>> = Mutex::new(None);

fn node() -> MutexGuard<'static, Option<(Weak<Group>, PathBuf)>> {
    NODE.lock()
        .expect("never poisoned: holds no code that panics")
}

/// From here on the figures are this group's, until it is gone.
pub(super) fn show(group: &Arc<Group>, data: &Path) {
    *node() = Some((Arc::downgrade(group), data.to_owned()));
}

/// Nothing where the site is one machine's.
pub(crate) fn of_this_node() -> String {
    let shown = node().clone();
    let group = shown.and_then(|(group, data)| Some((group.upgrade()?, data)));
    let Some((group, data)) = group else {
        return String::new();
    };
    match Settings::load(&data) {
        Ok(Some(settings)) => text(&group, &settings),
        _ => String::new(),
    }
}

const WRITES: &str = "writing to a string cannot fail";

/// How a session of a replica ends.
const ENDINGS: [&str; 5] = [
    "completed",
    "session_superseded",
    "session_invalidated",
    "session_failed",
    "escalated",
];
/// What a rebuild begins from.
const SOURCES: [(&str, &str); 3] = [
    ("delta", "source_delta"),
    ("snapshot_tail", "source_snapshot_tail"),
    ("full_base", "source_full_base"),
];

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect(WRITES);
}

fn one(page: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    head(page, name, kind, help);
    writeln!(page, "{name} {value}").expect(WRITES);
}

/// Everything that is counted, as it stands. Copies only: nothing waits for it.
fn text(group: &Group, settings: &Settings) -> String {
    let mut page = String::new();
    let told = group.told();
    let is_primary = matches!(group.role(), Role::Primary { .. });
    one(
        &mut page,
        "holdfast_replication_current_primary",
        "gauge",
        "1 on the node that writes",
        is_primary.into(),
    );
    if let Some(status) = group.status() {
        standing(&mut page, &status, settings);
    }
    counted(&mut page, &told);
    page
}

fn standing(page: &mut String, status: &Status, settings: &Settings) {
    let in_progress = status.promotion != replica::machine::states::State::Steady;
    let epoch = status.record.granted.0.0;
    let in_sync = status.replicas.iter().filter(|it| it.is_in_sync).count() as u64;
    for (name, help, value) in [
        (
            "holdfast_replication_epoch",
            "the authority that was granted last",
            epoch,
        ),
        (
            "holdfast_replication_promotion_in_progress",
            "a promotion of this node is under way",
            in_progress.into(),
        ),
        (
            "holdfast_replication_copies_in_sync",
            "replicas that count, on the node that writes",
            in_sync,
        ),
        (
            "holdfast_replication_waiting_writes",
            "writes without an answer",
            status.waiting as u64,
        ),
        (
            "holdfast_replication_end_lsn",
            "the last record here",
            status.end.lsn.get(),
        ),
        (
            "holdfast_replication_durable_lsn",
            "the last record on this disk",
            status.flushed.lsn.get(),
        ),
        (
            "holdfast_replication_committed_lsn",
            "the last record that is committed",
            status.committed.get(),
        ),
    ] {
        one(page, name, "gauge", help, value);
    }
    let lags = [
        (
            "holdfast_replication_lag_records",
            "records that a replica does not have",
        ),
        (
            "holdfast_replication_lag_bytes",
            "bytes that a replica does not have",
        ),
        (
            "holdfast_replication_lag_seconds",
            "how long the oldest of them waits",
        ),
    ];
    for (number, (name, help)) in lags.into_iter().enumerate() {
        head(page, name, "gauge", help);
        for replica in &status.replicas {
            let value = match number {
                0 => replica.lag_records.to_string(),
                1 => replica.lag_bytes.to_string(),
                _ => replica.lag_time.as_secs_f64().to_string(),
            };
            // Names of nodes are letters, digits, - _ and . only.
            let node = settings.name_of(replica.replica);
            writeln!(page, "{name}{{replica=\"{node}\"}} {value}").expect(WRITES);
        }
    }
}

fn counted(page: &mut String, told: &Told) {
    let count = |name: &str| told.counts.get(name).copied().unwrap_or_default();
    let name = "holdfast_replication_promotion_steps_total";
    head(page, name, "counter", "steps of promotions of this node");
    for (.., step) in replica::machine::states::MOVES {
        let label = step.trim_start_matches("promotion.");
        writeln!(page, "{name}{{step=\"{label}\"}} {}", count(step)).expect(WRITES);
    }
    let aborted = count(replica::machine::states::ABORTED_ON_CRASH);
    writeln!(page, "{name}{{step=\"aborted_on_crash\"}} {aborted}").expect(WRITES);
    let name = "holdfast_replication_sessions_ended_total";
    head(
        page,
        name,
        "counter",
        "phases of sessions with replicas, by how they ended",
    );
    for ending in ENDINGS {
        let label = ending.trim_start_matches("session_");
        writeln!(page, "{name}{{ending=\"{label}\"}} {}", count(ending)).expect(WRITES);
    }
    let name = "holdfast_replication_rebuilds_total";
    head(
        page,
        name,
        "counter",
        "rebuilds of replicas, by what they began from",
    );
    for (kind, line) in SOURCES {
        writeln!(page, "{name}{{kind=\"{kind}\"}} {}", count(line)).expect(WRITES);
    }
    one(
        page,
        "holdfast_replication_events_dropped_total",
        "counter",
        "events that the log of the process did not take in time",
        told.dropped,
    );
}
