//! Scans as events, in the log and, while events are taken, in the events plane.
//!
//! What becomes of scans is told as it happens. Change rows are told from the record, and the cursor of
//! the ledger moves after the events are on disk; the log of events drops what it has already (LED-6).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use events::{Class, Log, NewEvent};
use scan::{
    executor::{self, Begun, Sink},
    failure::Failure,
    judge::Summary,
    ledger::{self, Announced, Change, Ledger, Untold},
};
use serde_json::{Value, json};
use world::{Clock, RealClock, Timestamp};

use crate::exit::Refusal;

/// Who says so, in the events plane.
const SOURCE: &str = "holdfast";

/// Events that wait for the disk. The first scan of a host makes one for each rule, some hundreds; who
/// has more to tell waits.
const WAITING_MAX: usize = 4096;

/// Events of one append: each append is a sync of the disk.
const BATCH_MAX: usize = 256;

/// Tells the log and the events plane. The events plane is told what happened and is not the record:
/// where it cannot take an event, a scan goes on, and the log says so.
pub(crate) struct Told {
    events: Mutex<Option<SyncSender<NewEvent>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Told {
    pub(crate) fn start(log: Option<Arc<Log>>) -> Result<Self, Refusal> {
        let (mut events, mut writer) = (None, None);
        if let Some(log) = log {
            let (sender, waiting) = mpsc::sync_channel(WAITING_MAX);
            let thread = thread::Builder::new()
                .name("told".to_owned())
                .spawn(move || write(&log, &waiting))
                .map_err(|error| Refusal::new("a thread cannot be started").source(error))?;
            (events, writer) = (Some(sender), Some(thread));
        }
        Ok(Self {
            events: Mutex::new(events),
            writer: Mutex::new(writer),
        })
    }

    /// Everything told is in the events plane when this returns.
    pub(crate) fn stop(&self) {
        drop(lock(&self.events).take());
        if let Some(writer) = lock(&self.writer).take() {
            // A panic of its own was told on standard error.
            drop(writer.join());
        }
    }

    fn append(&self, class: Class, id: String, body: &Value) {
        let Some(events) = lock(&self.events).clone() else {
            return;
        };
        let event = NewEvent {
            producer_id: Some(id),
            time: RealClock::new().now(),
            source: SOURCE.to_owned(),
            class,
            trace: None,
            span: None,
            body: body.to_string(),
        };
        // The writer ends after this does.
        events.send(event).ok();
    }

    fn of_scan(&self, class: Class, name: &str, begun: &Begun, more: Value) {
        let mut body = json!({
            "event": name,
            "host": begun.host,
            "scan_id": begun.scan.to_string(),
            "policy_version": begun.policy_version,
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        self.append(class, format!("{}/{name}", begun.scan), &body);
    }
}

impl Sink for Told {
    fn started(&self, begun: &Begun) {
        executor::LogSink.started(begun);
        self.of_scan(Class::Lifecycle, "scan.started", begun, json!({}));
    }

    fn completed(&self, begun: &Begun, counts: &Summary) {
        executor::LogSink.completed(begun, counts);
        let counts = json!({ "counts": counts });
        self.of_scan(Class::Lifecycle, "scan.completed", begun, counts);
    }

    fn failed(&self, begun: &Begun, failure: &Failure) {
        executor::LogSink.failed(begun, failure);
        let why = json!({ "reason": failure.reason, "detail": failure.detail });
        self.of_scan(Class::Error, "scan.failed", begun, why);
    }
}

impl ledger::Sink for Told {
    fn failed(&self, scan: &ledger::Scan, error: &ledger::Error) {
        ledger::LogSink.failed(scan, error);
        let body = json!({
            "event": "apply.failed",
            "host": scan.host,
            "scan_id": scan.id.to_string(),
            "class": error.class().code(),
            "rule_count_attempted": scan.findings.len(),
            "offending_rule": error.rule(),
        });
        let id = format!("{}/apply.failed", scan.id);
        self.append(Class::Error, id, &body);
    }
}

/// How often the ledger is asked for changes that nobody was told of.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// A thread that tells of changes in the ledger, and once more at its end.
pub(crate) struct Announcer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Announcer {
    /// `node` is whoever tells, where several machines share a store.
    pub(crate) fn start(
        ledger: Ledger,
        log: Option<Arc<Log>>,
        node: String,
    ) -> Result<Self, Refusal> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("announcer".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(ANNOUNCE_EVERY) == Err(RecvTimeoutError::Timeout) {
                    announce_all(&ledger, log.as_deref(), &node);
                }
                announce_all(&ledger, log.as_deref(), &node);
            })
            .map_err(|error| Refusal::new("a thread cannot be started").source(error))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Tells what there is, and ends.
impl Drop for Announcer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own was told on standard error.
            drop(thread.join());
        }
    }
}

fn announce_all(ledger: &Ledger, log: Option<&Log>, node: &str) {
    loop {
        let now = RealClock::new().now();
        match ledger.announce(node, now, &mut |untold| announce(log, untold)) {
            Ok(Announced { is_more: true, .. }) => {}
            Ok(_) => return,
            Err(error) => {
                // They stay behind the cursor, and are told at the next look.
                tracing::warn!(%error, "changes of the ledger were not told");
                return;
            }
        }
    }
}

fn announce(log: Option<&Log>, untold: &[Untold]) -> Result<(), String> {
    if let Some(log) = log {
        let mut events = Vec::new();
        for scan in untold {
            let of_scan = scan
                .changes
                .iter()
                .map(|change| persisted(&scan.host, change));
            events.extend(of_scan);
        }
        for batch in events.chunks(BATCH_MAX) {
            log.append(batch.to_vec())
                .map_err(|error| error.to_string())?;
        }
    }
    for scan in untold {
        for change in &scan.changes {
            tracing::info!(
                event = "finding.persisted",
                host = scan.host,
                rule = change.rule,
                scan_id = change.scan_id,
                change_kind = ?change.kind,
                status = ?change.to,
                prior_status = ?change.from,
            );
        }
    }
    Ok(())
}

/// The same event however often it is made: a second one is known by its id.
fn persisted(host: &str, change: &Change) -> NewEvent {
    let body = json!({
        "event": "finding.persisted",
        "host": host,
        "rule": change.rule,
        "scan_id": change.scan_id,
        "change_kind": change.kind,
        "status": change.to,
        "prior_status": change.from,
        "severity": change.severity,
    });
    NewEvent {
        producer_id: Some(format!("{}/finding/{}", change.scan_id, change.rule)),
        time: Timestamp::from_nanos(change.occurred),
        source: SOURCE.to_owned(),
        class: Class::Decision,
        trace: None,
        span: None,
        body: body.to_string(),
    }
}

fn write(log: &Log, waiting: &Receiver<NewEvent>) {
    while let Ok(first) = waiting.recv() {
        let more = waiting.try_iter().take(BATCH_MAX - 1);
        let batch: Vec<NewEvent> = std::iter::once(first).chain(more).collect();
        let count = batch.len();
        if let Err(error) = log.append(batch) {
            tracing::warn!(%error, count, "events of ours were not kept");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
