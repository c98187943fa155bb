//! `holdfast alert`: what is wrong, who sees to it, who is told.

use scan::alert::{
    Alert, Alerts, Delivery, Ended, Error, Event, Kind, Notice, Outbox, ReceiverRow, Severity,
    State, Tried, Wanted, What,
};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;
use world::{RealRandom, Timestamp};

use crate::{
    alerts::{self, Configured},
    cli::{
        Output,
        alert::{Action, List, Step},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, safe, table},
    screen::Screen,
    site::Site,
};

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::List(asked) => list(asked, config, screen),
        Action::Show { id, at } => show(*id, at.as_deref(), config, screen),
        Action::Acknowledge(step) => {
            each(step, config, screen, "acknowledged", |alerts, id, by| {
                alerts.acknowledge(id, &step.reason, super::now(), by)
            })
        }
        Action::Silence { step, until } => {
            let until = later(until)?;
            let done = format!("silent until {}", moment::local(until));
            each(step, config, screen, &done, |alerts, id, by| {
                alerts.silence(id, until, &step.reason, super::now(), by)
            })
        }
        Action::Resolve(step) => each(step, config, screen, "resolved", |alerts, id, by| {
            alerts.resolve(id, &step.reason, super::now(), by)
        }),
        Action::Receivers => receivers(config, screen),
        Action::Test { receiver } => test(receiver, config, screen),
    }
}

/// A span is from now on, since a silence that ended before is none.
fn later(text: &str) -> Result<Timestamp, Refusal> {
    match moment::parse_span(text) {
        Some(span) => Ok(super::now().plus(span)),
        None => super::moment(text),
    }
}

/// In the order given; the first that is refused ends it, and those before it are done.
fn each(
    step: &Step,
    config: &Config,
    screen: Screen,
    done: &str,
    change: impl Fn(&Alerts, u64, &str) -> Result<Alert, Error>,
) -> Result<Exit, Refusal> {
    // Not for the asker to choose: the audit log names whoever the token, or the user, is.
    let by = super::actor();
    let site = Site::open_existing(config, screen)?;
    let alerts = Alerts::new(site.store().clone()).map_err(alerts::refused)?;
    let changed = step.ids.iter().try_for_each(|id| {
        change(&alerts, *id, &by).map(|_| screen.remark(format_args!("alert {id} is {done}")))
    });
    site.close(screen);
    changed.map_err(alerts::refused)?;
    Ok(Exit::Clean)
}

fn wanted(asked: &List) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted {
        host: asked.host.clone(),
        ..Wanted::default()
    };
    if !asked.all {
        wanted.states = State::ALL
            .into_iter()
            .filter(|state| *state != State::Resolved)
            .collect();
    }
    if let Some(text) = &asked.kind {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        let names = Kind::ALL.map(Kind::name).join(", ");
        wanted.kinds.insert(kind.ok_or_else(|| {
            Refusal::new(format!("`{text}` is no kind of alert"))
                .next(format!("write one of {names}"))
        })?);
    }
    if let Some(text) = &asked.minimum {
        let severity = Severity::ALL.into_iter().find(|it| it.name() == text);
        wanted.minimum = Some(severity.ok_or_else(|| {
            Refusal::new(format!("`{text}` is no severity of alerts"))
                .next("write info, medium, high or critical")
        })?);
    }
    Ok(wanted)
}

fn list(asked: &List, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let wanted = wanted(asked)?;
    let at = asked.at.as_deref().map(super::moment).transpose()?;
    let site = Site::open_existing(config, screen)?;
    if let (Some(at), Some(text)) = (at, &asked.at) {
        super::must_be_past(at, text, &site)?;
    }
    let found = Alerts::new(site.store().clone()).and_then(|alerts| alerts.list(&wanted, at));
    site.close(screen);
    let found = found.map_err(alerts::refused)?;
    let text = match config.output.value {
        Output::Table => table::rows(
            [
                "ID", "SEVERITY", "STATE", "KIND", "HOST", "LAST", "COUNT", "WHAT",
            ],
            found.iter().map(|alert| cells(alert, moment::local)),
        ),
        Output::Csv => csv::lines(
            [
                "id", "severity", "state", "kind", "host", "last", "count", "what",
            ],
            found.iter().map(|alert| cells(alert, moment::rfc3339)),
        ),
        Output::Json => super::json(&found.iter().map(document).collect::<Vec<Value>>())?,
    };
    screen.result(&text)?;
    if found.is_empty() && config.output.value == Output::Table {
        screen.remark("no alerts; `holdfast up` looks for them while it runs");
    }
    // What is open is for somebody to look at, as findings are.
    let is_open = |alert: &Alert| alert.state == State::Open;
    Ok(if found.iter().any(is_open) {
        Exit::Findings
    } else {
        Exit::Clean
    })
}

fn cells(alert: &Alert, time: fn(Timestamp) -> String) -> [String; 8] {
    [
        alert.id.to_string(),
        alert.severity.to_string(),
        alert.state.to_string(),
        alert.key.kind.to_string(),
        alert.key.host.clone().unwrap_or_default(),
        time(Timestamp::from_nanos(alert.last)),
        alert.count.to_string(),
        alert.detail.clone(),
    ]
}

/// As docs/schema/alerts.json says.
fn document(alert: &Alert) -> Value {
    let time = |nanos: u64| moment::rfc3339(Timestamp::from_nanos(nanos));
    let step = |step: &scan::alert::Step| json!({ "at": time(step.at), "by": step.by, "reason": step.why });
    json!({
        "id": alert.id,
        "kind": alert.key.kind,
        "host": alert.key.host,
        "subject": alert.key.subject,
        "severity": alert.severity,
        "state": alert.state,
        "detail": alert.detail,
        "first": time(alert.first),
        "last": time(alert.last),
        "count": alert.count,
        "reopened": alert.reopened,
        "acknowledged": alert.acknowledged.as_ref().map(step),
        "silenced": alert.silenced.as_ref().map(|silence| json!({
            "until": time(silence.until),
            "at": time(silence.step.at),
            "by": silence.step.by,
            "reason": silence.step.why,
            "waiver": silence.waiver,
        })),
        "resolved": alert.resolved.as_ref().map(step),
    })
}

fn show(id: u64, at: Option<&str>, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let at = at.map(super::moment).transpose()?;
    let site = Site::open_existing(config, screen)?;
    let found = Alerts::new(site.store().clone()).and_then(|alerts| alerts.get(id, at));
    site.close(screen);
    let alert = found.map_err(alerts::refused)?.ok_or_else(|| {
        Refusal::new(format!("no alert {id}"))
            .next("`holdfast alert list --all` names those there are")
    })?;
    let text = match config.output.value {
        Output::Json => super::json(&document(&alert))?,
        Output::Csv => csv::lines(["field", "value"], fields(&alert, moment::rfc3339)),
        Output::Table => table::rows(["FIELD", "VALUE"], fields(&alert, moment::local)),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn fields(alert: &Alert, time: fn(Timestamp) -> String) -> Vec<[String; 2]> {
    let time = |nanos: u64| time(Timestamp::from_nanos(nanos));
    let step = |step: &scan::alert::Step| {
        let why = if step.why.is_empty() {
            String::new()
        } else {
            format!(": {}", step.why)
        };
        format!("{} by {}{why}", time(step.at), step.by)
    };
    let field = |name: &str, value: String| [name.to_owned(), value];
    let mut fields = vec![
        field("alert", alert.id.to_string()),
        field("kind", alert.key.kind.to_string()),
        field("host", alert.key.host.clone().unwrap_or_default()),
        field("subject", alert.key.subject.clone().unwrap_or_default()),
        field("severity", alert.severity.to_string()),
        field("state", alert.state.to_string()),
        field("what", alert.detail.clone()),
        field("first", time(alert.first)),
        field("last", time(alert.last)),
        field(
            "count",
            format!("{}, reopened {}", alert.count, alert.reopened),
        ),
    ];
    if let Some(acknowledged) = &alert.acknowledged {
        fields.push(field("acknowledged", step(acknowledged)));
    }
    if let Some(silence) = &alert.silenced {
        let until = time(silence.until);
        fields.push(field(
            "silenced",
            format!("until {until}, {}", step(&silence.step)),
        ));
    }
    if let Some(resolved) = &alert.resolved {
        fields.push(field("resolved", step(resolved)));
    }
    fields
}

/// A receiver, its queue, and what waits and ended there.
type Standing<'c> = (&'c Configured, ReceiverRow, (Vec<Delivery>, Vec<Delivery>));

fn receivers(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if config.alert_receivers.is_empty() {
        return Err(Refusal::new(
            "nobody is told of alerts: the configuration has no [[alerts.receiver]]",
        )
        .next("`holdfast config show --default` prints examples"));
    }
    let site = Site::open_existing(config, screen)?;
    let standing = standing(config, &site);
    site.close(screen);
    let standing = standing.map_err(alerts::refused)?;
    let text = match config.output.value {
        Output::Json => super::json(&standing.iter().map(receiver_document).collect::<Vec<_>>())?,
        Output::Csv => csv::lines(
            [
                "name",
                "kind",
                "where",
                "minimum",
                "waiting",
                "left_out",
                "sent",
                "dead",
                "last_sent",
                "error",
            ],
            standing
                .iter()
                .map(|it| receiver_cells(it, moment::rfc3339)),
        ),
        Output::Table => table::rows(
            [
                "NAME",
                "KIND",
                "WHERE",
                "MINIMUM",
                "WAITING",
                "LEFT OUT",
                "SENT",
                "DEAD",
                "LAST SENT",
                "ERROR",
            ],
            standing.iter().map(|it| receiver_cells(it, moment::local)),
        ),
    };
    screen.result(&text)?;
    let is_failing = standing.iter().any(|(_, row, _)| row.failures > 0);
    Ok(if is_failing {
        Exit::Findings
    } else {
        Exit::Clean
    })
}

fn standing<'c>(config: &'c Config, site: &Site) -> Result<Vec<Standing<'c>>, Error> {
    let outbox = Outbox::new(site.store().clone(), Arc::new(RealRandom))?;
    let of = |receiver: &'c Configured| {
        let name = &receiver.filter.name;
        Ok((receiver, outbox.receiver(name)?, outbox.deliveries(name)?))
    };
    config.alert_receivers.iter().map(of).collect()
}

fn receiver_cells(of: &Standing<'_>, time: fn(Timestamp) -> String) -> [String; 10] {
    let (configured, row, _) = of;
    let (kind, place) = configured.place();
    [
        configured.filter.name.clone(),
        kind.to_owned(),
        place,
        configured.filter.minimum.to_string(),
        row.waiting.to_string(),
        row.left_out
            .as_ref()
            .map_or(0, |left_out| left_out.events)
            .to_string(),
        row.sent.to_string(),
        row.dead.to_string(),
        row.last_sent
            .map_or_else(String::new, |at| time(Timestamp::from_nanos(at))),
        safe(row.last_error.as_deref().unwrap_or_default()).to_string(),
    ]
}

fn receiver_document(of: &Standing<'_>) -> Value {
    let (configured, row, (waiting, finished)) = of;
    let (kind, place) = configured.place();
    let time = |nanos: u64| moment::rfc3339(Timestamp::from_nanos(nanos));
    let delivery = |delivery: &Delivery| {
        let (state, reason) = match &delivery.ended {
            Some(Ended::Sent { .. }) => ("sent", None),
            Some(Ended::Dead { reason, .. }) => ("dead", Some(reason.clone())),
            None => ("waiting", delivery.last_error.clone()),
        };
        json!({
            "notice": delivery.notice.id,
            "at": time(delivery.notice.at),
            "host": delivery.notice.host.as_ref().map(|host| &host.name),
            "events": delivery.notice.total,
            "attempts": delivery.attempts,
            "state": state,
            "reason": reason,
        })
    };
    json!({
        "name": configured.filter.name,
        "kind": kind,
        "where": place,
        "minimum_severity": configured.filter.minimum,
        "waiting": row.waiting,
        "left_out": row.left_out.as_ref().map_or(0, |left_out| left_out.events),
        "sent": row.sent,
        "dead": row.dead,
        "failures": row.failures,
        "last_sent": row.last_sent.map(time),
        "last_failed": row.last_failed.map(time),
        "last_error": row.last_error,
        "deliveries": waiting.iter().chain(finished).map(delivery).collect::<Vec<_>>(),
    })
}

/// Needs no data directory: what is tried is the way to the receiver.
fn test(name: &str, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let found = config
        .alert_receivers
        .iter()
        .find(|it| it.filter.name == name);
    let receiver = found.ok_or_else(|| {
        let names: Vec<&str> = config
            .alert_receivers
            .iter()
            .map(|it| it.filter.name.as_str())
            .collect();
        let next = if names.is_empty() {
            "`holdfast config show --default` prints examples".to_owned()
        } else {
            format!("the configuration has {}", names.join(", "))
        };
        Refusal::new(format!("no alert receiver `{}`", safe(name))).next(next)
    })?;
    let now = super::now().nanos();
    let event = Event {
        event: What::Test,
        alert: 0,
        kind: Kind::ReceiverFailing,
        severity: Severity::Info,
        state: State::Resolved,
        subject: Some(name.to_owned()),
        detail: format!("this is a test of receiver {name}; nothing is wrong"),
        first: now,
        last: now,
        count: 1,
    };
    let notice = Notice::new(Uuid::new_v4().to_string(), now, None, vec![event]);
    match receiver.transport()?.send(&notice) {
        Tried::Taken => {
            screen.remark(format_args!("{name} took notice {}", notice.id));
            Ok(Exit::Clean)
        }
        Tried::Again { reason, .. } | Tried::Refused { reason } => Err(Refusal::new(format!(
            "receiver {name} did not take the test: {}",
            safe(&reason)
        ))
        .next("correct its table in the configuration, or the receiver; `holdfast alert receivers` shows its queue")),
    }
}
