//! Why it is as it is: the replicas' sessions and plans with what they rest on, and the last promotion rule by
//! rule with the evidence that was used.

use std::fmt::Write as _;

use replica::{
    group::{Group, Told},
    machine::{Line, NodeId, ReplicaStatus, Role, State, Status, validation},
};
use serde_json::{Value, json};
use world::Timestamp;

use super::{Settings, shown::mode_text};
use crate::present::safe;

/// Lines of the recovery log that are shown.
const LINES_SHOWN: usize = 40;

fn node_text(node: NodeId, settings: &Settings) -> String {
    settings.name_of(node)
}

/// Ids in texts of the machine become names.
pub(super) fn named(text: &str, settings: &Settings) -> String {
    let mut text = text.to_owned();
    for member in &settings.members {
        text = text.replace(&format!("{:032x}", member.node.0), &member.name);
    }
    text
}

fn line_document((at, line): &(Timestamp, Line), settings: &Settings) -> Value {
    json!({
        "time": crate::moment::rfc3339(*at),
        "event": line.name,
        "epoch": line.epoch.0,
        "node": line.replica.map(|node| node_text(node, settings)),
        "session": line.session.map(|session| format!("{:032x}", session.0)),
        "cause": named(&line.cause, settings),
    })
}

fn lines(told: &Told, settings: &Settings, is_asked: impl Fn(&Line) -> bool) -> Vec<Value> {
    let chosen = told.lines.iter().filter(|(_, line)| is_asked(line));
    let chosen: Vec<_> = chosen.collect();
    let last = chosen.len().saturating_sub(LINES_SHOWN);
    chosen[last..]
        .iter()
        .map(|line| line_document(line, settings))
        .collect()
}

/// Why a replica counts for no acknowledgement; `None`: it does.
fn obstacle(replica: &ReplicaStatus) -> Option<String> {
    if replica.is_in_sync {
        return None;
    }
    let session = replica.session.as_ref();
    let ended = session.and_then(|session| session.cause.as_deref());
    Some(match (replica.state, ended) {
        (State::Disconnected, Some(cause)) => format!("it is not connected: {cause}"),
        (State::Disconnected, None) => "it is not connected".to_owned(),
        (State::Connecting, _) => "it was found, and did not answer the handshake yet".to_owned(),
        (State::CatchingUp, _) if replica.lag_records == 0 => {
            "it has everything, and counts once every other member has answered since: remove one that is gone for good, with `holdfast group remove`".to_owned()
        }
        (State::CatchingUp, _) => format!(
            "{} records are on their way to it; it counts once it has what was here when the lanes met",
            replica.lag_records
        ),
        (State::NeedsRebuild | State::Rebuilding, _) => replica.rebuild.as_ref().map_or_else(
            || "it is being rebuilt".to_owned(),
            |why| format!("a log alone will not do: {why}"),
        ),
        (State::Degraded, cause) => {
            format!(
                "its session failed: {}",
                cause.unwrap_or("no cause was told")
            )
        }
        (State::InSync, _) => "its session ended a moment ago".to_owned(),
    })
}

fn replica_document(replica: &ReplicaStatus, settings: &Settings) -> Value {
    let session = replica.session.as_ref().map(|session| {
        let plan = session.plan.as_ref();
        json!({
            "id": format!("{:032x}", session.id.0),
            "kind": format!("{:?}", session.kind).to_lowercase(),
            "phase": format!("{:?}", session.phase).to_lowercase(),
            "address": session.endpoint,
            "ended": session.cause,
            "plan": plan.map(|plan| plan.way.name()),
            "proof": plan.map(|plan| plan.way.to_string()),
            "source": plan.and_then(|plan| plan.source.as_ref()).map(ToString::to_string),
            "sent": session.sent.to_string(),
            "durable": session.flushed.to_string(),
            "parts": session.parts,
        })
    });
    json!({
        "node": node_text(replica.replica, settings),
        "state": format!("{:?}", replica.state).to_lowercase(),
        "in_sync": replica.is_in_sync,
        "why_not": obstacle(replica),
        "session": session,
        "applied": replica.applied.get(),
        "lag_records": replica.lag_records,
        "lag_bytes": replica.lag_bytes,
        "lag_seconds": replica.lag_time.as_secs_f64(),
    })
}

pub(super) fn replication(group: &Group, settings: &Settings) -> Result<Value, String> {
    let status = group.status().ok_or("the node has just begun; try again")?;
    let told = group.told();
    let config = &status.record.config;
    let wanted = config.mode.copies(config.members.len());
    let in_sync = status.replicas.iter().filter(|it| it.is_in_sync).count();
    let is_primary = matches!(group.role(), Role::Primary { .. });
    let replicas: Vec<Value> = status
        .replicas
        .iter()
        .map(|replica| replica_document(replica, settings))
        .collect();
    Ok(json!({
        "node": settings.own_name(),
        "role": if is_primary { "primary" } else { "replica" },
        "epoch": status.record.granted.0.0,
        "mode": mode_text(config.mode),
        "copies_wanted": wanted,
        "copies_in_sync": is_primary.then_some(in_sync),
        "end": status.end.to_string(),
        "durable": status.flushed.to_string(),
        "committed": status.committed.get(),
        "first_retained": status.first_retained.get(),
        "epochs": epochs(&status),
        "fed_by": status.fed_by.map(|(node, _, _)| node_text(node, settings)),
        "unheard_seconds": status.unheard.map(|unheard| unheard.as_secs_f64()),
        "replicas": replicas,
        "log": lines(&told, settings, |line| !line.name.starts_with("promotion.")),
        "not_logged": told.dropped,
    }))
}

fn epochs(status: &Status) -> Vec<Value> {
    let starts = status.history.starts.iter();
    starts
        .map(|start| json!({ "epoch": start.epoch.0, "first": start.first.get() }))
        .collect()
}

pub(super) fn promotion(group: &Group, settings: &Settings) -> Result<Value, String> {
    let status = group.status().ok_or("the node has just begun; try again")?;
    let told = group.told();
    let record = &status.record;
    let judged = told.judgement.as_ref().map(|judgement| {
        let rules: Vec<Value> = judgement
            .findings
            .iter()
            .map(|finding| {
                let (gave, why) = match &finding.gave {
                    validation::Gave::Holds => ("holds", None),
                    validation::Gave::Fails(refusal) => ("fails", Some(refusal)),
                    validation::Gave::Waived(refusal) => ("waived by force", Some(refusal)),
                };
                json!({
                    "rule": format!("{:?}", finding.rule),
                    "gave": gave,
                    "clause": why.map(validation::clause),
                    "why": why.map(|refusal| named(&refusal.to_string(), settings)),
                    "evidence": named(&finding.evidence, settings),
                })
            })
            .collect();
        let (verdict, loss) = match &judgement.verdict {
            validation::Verdict::Approved(proof) => ("approved", proof.loss.as_ref()),
            validation::Verdict::Denied(_) => ("denied", None),
        };
        json!({
            "verdict": verdict,
            "rules": rules,
            "loss": loss.map(|loss| json!({
                "own": loss.own.to_string(),
                "highest": loss.highest.to_string(),
                "committed": loss.committed.get(),
            })),
        })
    });
    Ok(json!({
        "node": settings.own_name(),
        "state": format!("{:?}", status.promotion).to_lowercase(),
        "holder": (record.granted.0.0 > 0).then(|| node_text(record.granted.2, settings)),
        "epoch": record.granted.0.0,
        "promised_epoch": record.promised.0.0,
        "promised_to": (record.promised.0.0 > 0).then(|| node_text(record.promised.2, settings)),
        "previous_end": record.previous_end.to_string(),
        "reason": named(&record.reason, settings),
        "last": judged,
        "log": lines(&told, settings, |line| line.name.starts_with("promotion.")),
        "not_logged": told.dropped,
    }))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text).to_string(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

fn log_text(text: &mut String, document: &Value) {
    let lines = document["log"].as_array().cloned().unwrap_or_default();
    if lines.is_empty() {
        return;
    }
    put(text, "\nwhat happened since this node was started:");
    for line in &lines {
        let node = line["node"].as_str().unwrap_or_default();
        let line = format!(
            "  {} {} {}: {}",
            word(&line["time"]),
            word(&line["event"]),
            safe(node),
            word(&line["cause"])
        );
        put(text, &line);
    }
}

fn replica_text(text: &mut String, replica: &Value) {
    let standing = match replica["why_not"].as_str() {
        None => "in sync".to_owned(),
        Some(why) => format!("not in sync: {}", safe(why)),
    };
    put(text, &format!("\n{}: {standing}", word(&replica["node"])));
    let session = &replica["session"];
    if session.is_object() {
        put(
            text,
            &format!(
                "  session {} ({}), {}",
                word(&session["id"]),
                word(&session["kind"]),
                word(&session["phase"])
            ),
        );
        put(
            text,
            &format!(
                "  plan: {}, because: {}",
                word(&session["plan"]),
                word(&session["proof"])
            ),
        );
        if let Some(source) = session["source"].as_str() {
            put(text, &format!("  from {}", safe(source)));
        }
        put(
            text,
            &format!(
                "  sent to {}, durable there to {}, applied there to lsn {}",
                word(&session["sent"]),
                word(&session["durable"]),
                word(&replica["applied"])
            ),
        );
    }
    put(
        text,
        &format!(
            "  {} records, {} bytes, {:.1} s behind",
            replica["lag_records"],
            replica["lag_bytes"],
            replica["lag_seconds"].as_f64().unwrap_or_default()
        ),
    );
}

pub(crate) fn replication_text(document: &Value) -> String {
    let of = |key: &str| word(&document[key]);
    let mut text = format!(
        "{} is {} in epoch {}, mode {}: an acknowledgement needs {} copies besides its own{}\nlog from lsn {} to {}, durable to {}, committed to lsn {}\n",
        of("node"),
        of("role"),
        of("epoch"),
        of("mode"),
        of("copies_wanted"),
        document["copies_in_sync"]
            .as_u64()
            .map(|count| format!(", {count} are in sync"))
            .unwrap_or_default(),
        of("first_retained"),
        of("end"),
        of("durable"),
        of("committed"),
    );
    for epoch in document["epochs"].as_array().into_iter().flatten() {
        put(
            &mut text,
            &format!("  epoch {} from lsn {}", epoch["epoch"], epoch["first"]),
        );
    }
    if let Some(from) = document["fed_by"].as_str() {
        put(&mut text, &format!("fed by {}", safe(from)));
    }
    for replica in document["replicas"].as_array().into_iter().flatten() {
        replica_text(&mut text, replica);
    }
    log_text(&mut text, document);
    text.trim_end().to_owned()
}

pub(crate) fn promotion_text(document: &Value) -> String {
    let of = |key: &str| word(&document[key]);
    let mut text = format!(
        "on record: {} holds epoch {}; promised: epoch {} to {}; the epoch before ended at {}\nreason: {}\n",
        of("holder"),
        of("epoch"),
        of("promised_epoch"),
        of("promised_to"),
        of("previous_end"),
        of("reason"),
    );
    let last = &document["last"];
    if last.is_object() {
        put(
            &mut text,
            &format!(
                "\nthe last promotion of {} was {}:",
                of("node"),
                word(&last["verdict"])
            ),
        );
        if last["loss"].is_object() {
            let of = |key: &str| word(&last["loss"][key]);
            put(
                &mut text,
                &format!(
                    "  it had the log to {}; the highest end that was answered is {}, and lsn {} was told to be committed",
                    of("own"),
                    of("highest"),
                    of("committed"),
                ),
            );
        }
        for rule in last["rules"].as_array().into_iter().flatten() {
            put(
                &mut text,
                &format!("  {}: {}", word(&rule["rule"]), word(&rule["gave"])),
            );
            put(
                &mut text,
                &format!("    evidence: {}", word(&rule["evidence"])),
            );
            if let Some(why) = rule["why"].as_str() {
                put(
                    &mut text,
                    &format!("    {} ({})", safe(why), word(&rule["clause"])),
                );
            }
        }
    } else {
        put(
            &mut text,
            &format!(
                "\n{} was not asked to be promoted since it was started",
                of("node")
            ),
        );
    }
    log_text(&mut text, document);
    text.trim_end().to_owned()
}
