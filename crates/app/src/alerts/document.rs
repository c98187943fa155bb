//! A notice as JSON, for receivers that are programs: docs/schema/alert-notice.json.

use scan::alert::{Event, Notice};
use serde_json::{Value, json};
use world::Timestamp;

use crate::moment::rfc3339;

/// Named in every document; another number where a reader of this one would read it wrongly.
const SCHEMA: &str = "holdfast.alert-notice/1";

pub(crate) fn notice(notice: &Notice) -> Value {
    json!({
        "schema": SCHEMA,
        "notice": notice.id,
        "at": time(notice.at),
        "severity": notice.severity(),
        "host": notice.host.as_ref().map(|host| json!({
            "name": host.name,
            "site": host.site,
            "groups": host.groups,
        })),
        "total": notice.total,
        "by_severity": notice.by_severity,
        "events": notice.events.iter().map(event).collect::<Vec<_>>(),
        "left_out": notice.left_out.as_ref().map(|left_out| json!({
            "events": left_out.events,
            "by_severity": left_out.by_severity,
            "first": time(left_out.first),
            "last": time(left_out.last),
        })),
    })
}

fn event(event: &Event) -> Value {
    json!({
        "event": event.event,
        "alert": event.alert,
        "kind": event.kind,
        "severity": event.severity,
        "state": event.state,
        "subject": event.subject,
        "detail": event.detail,
        "first": time(event.first),
        "last": time(event.last),
        "count": event.count,
    })
}

fn time(nanos: u64) -> String {
    rfc3339(Timestamp::from_nanos(nanos))
}
