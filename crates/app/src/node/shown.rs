//! How a node and its group stand, for people and programs.

use std::collections::BTreeMap;

use replica::{
    group::{Group, Transfer},
    machine::{Mode, Policy, ReplicaStatus, Role, SessionId},
};
use serde_json::{Value, json};
use wal::Journal as _;

use super::{
    Settings,
    clocks::{self, Clocks},
    coordinator::Leasing,
    explained::named,
    keys::Keys,
};
use crate::present::safe;

pub(super) fn document(
    group: &Group,
    keys: &Keys,
    clocks: &Clocks,
    settings: &Settings,
    leasing: Option<&Leasing>,
) -> Value {
    let status = group.status();
    let role = match group.role() {
        Role::Primary { .. } => "primary",
        Role::Replica { .. } => "replica",
    };
    let Some(status) = status else {
        return json!({ "node": settings.own_name(), "role": role });
    };
    let (epoch, _, _) = status.record.promised;
    let holder = status.record.granted.2;
    let transfers = group.transfers();
    let incoming = transfers.values().find(|transfer| transfer.is_incoming);
    let replicas = status.replicas.iter();
    let replicas: Vec<Value> = replicas
        .map(|replica| replica_document(replica, &transfers, settings))
        .collect();
    let config = &status.record.config;
    let members: Vec<String> = config
        .members
        .iter()
        .map(|node| settings.name_of(*node))
        .collect();
    let awaits = status.awaits.iter();
    let awaits: Vec<String> = awaits.map(|node| settings.name_of(*node)).collect();
    json!({
        "node": settings.own_name(),
        "role": role,
        "epoch": epoch.0,
        "holder": (status.record.granted.0.0 > 0).then(|| settings.name_of(holder)),
        "members": members,
        "mode": mode_text(config.mode),
        "policy": match config.policy {
            Policy::Wait => "wait",
            Policy::Refuse => "refuse",
        },
        "end": status.end.to_string(),
        "flushed": status.flushed.to_string(),
        "first_retained": status.first_retained.get(),
        "committed": status.committed.get(),
        "readable": group.safe_point().get(),
        "is_amnesiac": status.is_amnesiac,
        "base": incoming.map(transfer),
        "log_failed": status.log_failed,
        "fed_by": status.fed_by.map(|(node, _, _)| settings.name_of(node)),
        "silent_seconds": status.fed_by.map(|(_, _, silent)| silent.as_secs_f64()),
        "waiting_writes": status.waiting,
        "changing": status.is_changing.then(|| json!({ "awaits": awaits })),
        "reason": named(&status.record.reason, settings),
        "coordinator": leasing.map(|leasing| json!({
            "lease": leasing.holder.map(|node| settings.name_of(node)),
            "is_own": leasing.is_own,
            "revision": leasing.revision,
            "fault": leasing.fault,
        })),
        "replicas": replicas,
        "nodes": links(group, clocks, settings),
        "refused": refusals(group, settings),
        "keys_missing": keys.missing(|node| settings.name_of(node)),
    })
}

fn replica_document(
    replica: &ReplicaStatus,
    transfers: &BTreeMap<SessionId, Transfer>,
    settings: &Settings,
) -> Value {
    let session = replica.session.as_ref();
    let plan = session.and_then(|session| session.plan.as_ref());
    json!({
        "node": settings.name_of(replica.replica),
        "state": format!("{:?}", replica.state).to_lowercase(),
        "in_sync": replica.is_in_sync,
        "rebuild": replica.rebuild,
        "plan": plan.map(|plan| plan.way.to_string()),
        "source": plan.and_then(|plan| plan.source.as_ref()).map(ToString::to_string),
        "cause": session.and_then(|session| session.cause.clone()),
        "base": session.and_then(|session| transfers.get(&session.id)).map(transfer),
        "phase": session.map(|session| format!("{:?}", session.phase).to_lowercase()),
        "flushed": session.map(|session| session.flushed.lsn.get()),
        "applied": replica.applied.get(),
        "lag_records": replica.lag_records,
        "lag_bytes": replica.lag_bytes,
        "lag_seconds": replica.lag_time.as_secs_f64(),
    })
}

fn links(group: &Group, clocks: &Clocks, settings: &Settings) -> Vec<Value> {
    group
        .links()
        .into_iter()
        .map(|link| {
            json!({
                "node": settings.name_of(link.peer),
                "address": link.address.to_string(),
                "is_connected": link.speaks.is_some(),
                "version": link.speaks,
                "cause": link.cause,
                "clock_ahead_seconds": clocks.off(link.peer),
            })
        })
        .collect()
}

fn refusals(group: &Group, settings: &Settings) -> Vec<Value> {
    group
        .refusals()
        .into_iter()
        .map(|refused| {
            json!({
                "address": refused.address.to_string(),
                "node": refused.node.map(|node| settings.name_of(node)),
                "cause": refused.cause,
                "count": refused.count,
                "seconds_ago": refused.ago.as_secs(),
            })
        })
        .collect()
}

fn transfer(transfer: &Transfer) -> Value {
    json!({
        "changed_since": transfer.since.map(wal::Lsn::get),
        "parts": transfer.parts,
        "parts_done": transfer.parts_done,
        "bytes": transfer.bytes,
        "bytes_done": transfer.bytes_done,
    })
}

fn is_under_way(base: &Value) -> bool {
    base["parts_done"].as_u64() < base["parts"].as_u64()
}

/// How far a rebuild is.
fn transfer_text(base: &Value) -> String {
    let bytes = match base["bytes"].as_u64() {
        Some(bytes) => format!("{} of {bytes} bytes", base["bytes_done"]),
        None => format!("{} bytes", base["bytes_done"]),
    };
    let what = match base["changed_since"].as_u64() {
        Some(since) => format!("what changed since lsn {since}"),
        None => "a base".to_owned(),
    };
    format!(
        "{what}: {} of {} parts, {bytes}",
        base["parts_done"], base["parts"]
    )
}

pub(crate) fn mode_text(mode: Mode) -> String {
    match mode {
        Mode::Async => "async".to_owned(),
        Mode::Sync(copies) => format!("sync:{copies}"),
        Mode::All => "all".to_owned(),
    }
}

pub(crate) fn status_document(document: &Value) -> String {
    format!("{document:#}")
}

fn coordinator_text(coordinator: &Value) -> String {
    if !coordinator.is_object() {
        return String::new();
    }
    let holder = coordinator["lease"].as_str().unwrap_or("nobody");
    let own = match coordinator["is_own"].as_bool() {
        Some(true) => " (this node)",
        _ => "",
    };
    match coordinator["fault"].as_str() {
        Some(fault) => format!("coordinator: {fault}; the lease was of {holder}{own}\n"),
        None => format!("coordinator: the lease is of {holder}{own}\n"),
    }
}

/// A change of members or mode that is not done.
fn changing_text(changing: &Value) -> String {
    let Some(awaits) = changing["awaits"].as_array() else {
        return String::new();
    };
    let names: Vec<&str> = awaits.iter().filter_map(Value::as_str).collect();
    match names.is_empty() {
        true => "the change of members or mode is done once copies have what was there before it\n"
            .to_owned(),
        false => format!(
            "the change of members or mode is not in force: it waits for {}; where that was stopped for good, `holdfast group mode MODE --fenced STATEMENT` says so\n",
            names.join(", ")
        ),
    }
}

/// One line for the node, one for each replica.
pub(crate) fn status_text(document: &Value) -> String {
    let text = |key: &str| match &document[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut shown = format!(
        "{} is {} in epoch {}; holder {}; mode {}; members {}\nlog to {}, durable to {}, committed to lsn {}\n",
        text("node"),
        text("role"),
        text("epoch"),
        text("holder"),
        text("mode"),
        document["members"]
            .as_array()
            .map(|members| {
                let names = members.iter().filter_map(Value::as_str);
                names.collect::<Vec<_>>().join(", ")
            })
            .unwrap_or_default(),
        text("end"),
        text("flushed"),
        text("committed"),
    );
    if let Some(from) = document["fed_by"].as_str() {
        let silent = document["silent_seconds"].as_f64().unwrap_or_default();
        shown.push_str(&format!("fed by {from}, heard of it {silent:.1} s ago\n"));
    }
    shown.push_str(&changing_text(&document["changing"]));
    shown.push_str(&coordinator_text(&document["coordinator"]));
    for (key, what) in [
        (
            "is_amnesiac",
            "its disk has less than it may have promised: it counts for nothing until the node that writes has given it a copy",
        ),
        (
            "log_failed",
            "its log failed: start it again when its disk is well",
        ),
    ] {
        if document[key].as_bool().unwrap_or(document[key].is_string()) {
            shown.push_str(what);
            shown.push('\n');
        }
    }
    if is_under_way(&document["base"]) {
        let base = transfer_text(&document["base"]);
        shown.push_str(&format!("it is made anew from {base}\n"));
    }
    for replica in document["replicas"].as_array().into_iter().flatten() {
        shown.push_str(&replica_text(replica));
    }
    shown.push_str(&connections_text(document));
    shown.trim_end().to_owned()
}

fn replica_text(replica: &Value) -> String {
    let told = |key: &str, what: &str| {
        let told = replica[key].as_str().map(safe);
        told.map(|told| format!("; {what}{told}"))
            .unwrap_or_default()
    };
    format!(
        "  {}: {}{}; {} records, {} bytes, {:.1} s behind{}{}{}\n",
        replica["node"].as_str().unwrap_or_default(),
        replica["state"].as_str().unwrap_or_default(),
        match replica["in_sync"].as_bool() {
            Some(true) => ", in sync",
            _ => "",
        },
        replica["lag_records"],
        replica["lag_bytes"],
        replica["lag_seconds"].as_f64().unwrap_or_default(),
        told("rebuild", "needs a rebuild: "),
        match is_under_way(&replica["base"]) {
            true => format!("; gets {}", transfer_text(&replica["base"])),
            false => String::new(),
        },
        told("cause", ""),
    )
}

/// Refusals that a person reads; all that are known are in the document.
const REFUSED_SHOWN: usize = 4;

/// As a node says it that refuses one that it does not know.
const NOT_KNOWN: &str = "does not know this node";
const MEET: &str = "  run `holdfast node list --output json` here, and `holdfast node meet FILE` with that there\n";

/// Nodes that are not reached, and callers that were refused. Strangers have a hand in the causes.
fn connections_text(document: &Value) -> String {
    let all = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let mut shown = String::new();
    for missing in all("keys_missing").iter().filter_map(Value::as_str) {
        shown.push_str(&format!("it could not write, without force: {missing}\n"));
    }
    for link in all("nodes") {
        let name = link["node"].as_str().unwrap_or_default();
        let cause = link["cause"].as_str().unwrap_or_default();
        if let Some(ahead) = link["clock_ahead_seconds"].as_i64() {
            shown.push_str(&clocks::text(name, ahead));
            shown.push('\n');
        }
        if link["is_connected"] == false && !cause.is_empty() {
            let address = link["address"].as_str().unwrap_or_default();
            let cause = safe(cause);
            shown.push_str(&format!("no connection to {name} at {address}: {cause}\n"));
            if cause.contains(NOT_KNOWN) {
                shown.push_str(MEET);
            }
        }
    }
    let refused = all("refused");
    for refused in refused.iter().take(REFUSED_SHOWN) {
        let node = refused["node"].as_str();
        shown.push_str(&format!(
            "refused {} at {}, {} times, {} s ago: {}\n",
            node.map_or_else(|| "a stranger".to_owned(), safe),
            refused["address"].as_str().unwrap_or_default(),
            refused["count"],
            refused["seconds_ago"],
            safe(refused["cause"].as_str().unwrap_or_default()),
        ));
    }
    if refused.len() > REFUSED_SHOWN {
        let more = refused.len() - REFUSED_SHOWN;
        shown.push_str(&format!("and {more} more: `--output json` has them\n"));
    }
    shown
}
