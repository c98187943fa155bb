//! The nodes' logs, side by side: one position of one epoch is one record everywhere, and whoever
//! acknowledged a write is the holder that its epoch was announced for.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    io,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use replica::machine::{self, announced};
use serde_json::Value;
use wal::Lsn;

use super::{
    super::crash::breach::{Breach, Fault},
    nodes::Cluster,
};

/// Of records that tell whose an epoch is.
const ANNOUNCEMENT: u64 = machine::ANNOUNCEMENT.0 as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    epoch: u64,
    digest: u64,
}

/// Compares the logs of nodes that were stopped, and the acknowledgements given as (position, node).
/// How many records were there twice at least.
pub(super) fn compare(cluster: &Cluster<'_>, acknowledged: &[(u64, usize)]) -> Result<u64, Fault> {
    let ids = ids(cluster)?;
    let mut holders: HashMap<u64, usize> = HashMap::new();
    let mut all: BTreeMap<u64, (usize, Record)> = BTreeMap::new();
    let mut compared = 0;
    for node in 0..cluster.nodes.len() {
        let journal = cluster.nodes[node].dir.join("journal");
        let journal = journal.to_str().unwrap_or_default().to_owned();
        let export = cluster.run(node, &["journal", "export", &journal])?;
        for line in export.stdout.split(|byte| *byte == b'\n') {
            let Some((lsn, record, announced)) = record(line)? else {
                continue;
            };
            if let Some(holder) = announced {
                let holder = ids.get(&holder).copied().unwrap_or(usize::MAX);
                holders.insert(record.epoch, holder);
            }
            match all.insert(lsn, (node, record)) {
                Some((other, found)) if found != record => {
                    return Err(Breach::new(
                        "one position is one record on every node",
                        format!("lsn {lsn} on node {other}: {found:?}"),
                        format!("on node {node}: {record:?}"),
                    )
                    .into());
                }
                Some(_) => compared += 1,
                None => {}
            }
        }
    }
    for (lsn, node) in acknowledged {
        let Some((_, record)) = all.get(lsn) else {
            continue;
        };
        // An epoch that was announced before what is retained has no holder here.
        let holder = holders.get(&record.epoch);
        if holder.is_some_and(|holder| holder != node) {
            return Err(Breach::new(
                "whoever acknowledges a write holds its epoch",
                format!("node {node} acknowledged lsn {lsn}"),
                format!("epoch {} is held by node {holder:?}", record.epoch),
            )
            .into());
        }
    }
    Ok(compared)
}

fn ids(cluster: &Cluster<'_>) -> Result<HashMap<u128, usize>, Fault> {
    let listed = cluster.run(0, &["node", "list", "--output", "json"])?;
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).map_err(io::Error::from)?;
    let mut ids = HashMap::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let found = listed.iter().find(|it| it["name"] == node.name);
        let id = found.and_then(|it| it["node"].as_str());
        let id = id.and_then(|id| u128::from_str_radix(id, 16).ok());
        let id = id.ok_or_else(|| io::Error::other("a node has no id"))?;
        ids.insert(id, index);
    }
    Ok(ids)
}

/// A record of an export, and the holder that it announces; `None` for the other lines.
fn record(line: &[u8]) -> io::Result<Option<(u64, Record, Option<u128>)>> {
    if line.is_empty() {
        return Ok(None);
    }
    let line: Value = serde_json::from_slice(line)?;
    let (Some(lsn), Some(epoch), Some(kind)) = (
        line["lsn"].as_u64(),
        line["epoch"].as_u64(),
        line["kind"].as_u64(),
    ) else {
        return Ok(None);
    };
    let bytes = match (line["utf8"].as_str(), line["base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, text) => BASE64_STANDARD
            .decode(text.unwrap_or_default())
            .map_err(io::Error::other)?,
    };
    let mut hasher = DefaultHasher::new();
    (kind, &bytes).hash(&mut hasher);
    let holder = (kind == ANNOUNCEMENT)
        .then(|| announced(Lsn::ZERO, &bytes))
        .flatten()
        .map(|(_, holder)| holder.0);
    let digest = hasher.finish();
    Ok(Some((lsn, Record { epoch, digest }, holder)))
}
