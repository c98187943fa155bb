//! Scans as events, in the log and, while events are taken, in the events plane.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use events::{Class, Log, NewEvent};
use scan::{
    executor::{self, Begun, Sink},
    failure::Failure,
    judge::Summary,
    ledger::{self, Change},
};
use serde_json::{Value, json};
use world::{Clock, RealClock};

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
    fn persisted(&self, scan: &ledger::Scan, change: &Change) {
        ledger::LogSink.persisted(scan, change);
        let body = json!({
            "event": "finding.persisted",
            "host": scan.host,
            "rule": change.rule,
            "scan_id": scan.id.to_string(),
            "change_kind": change.kind,
            "status": change.to,
            "prior_status": change.from,
            "severity": change.severity,
        });
        let id = format!("{}/finding/{}", scan.id, change.rule);
        self.append(Class::Decision, id, &body);
    }

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
        // A scan may be tried again, and each failed apply is told.
        let id = format!(
            "{}/apply.failed/{}",
            scan.id,
            RealClock::new().now().nanos()
        );
        self.append(Class::Error, id, &body);
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
