//! Evidence as an operator reads it.

use crate::machine::{Config, Mode, NodeId, Position};

pub(super) fn node(node: NodeId) -> String {
    format!("{:032x}", node.0)
}

pub(super) fn nodes<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    let names: Vec<String> = nodes.into_iter().map(|id| node(*id)).collect();
    if names.is_empty() {
        return "nobody".to_owned();
    }
    names.join(", ")
}

pub(super) fn answer(end: &Position) -> String {
    format!("epoch {} record {}", end.epoch.0, end.lsn)
}

pub(super) fn config(config: &Config) -> String {
    let version = config.version;
    let replacing = config
        .previous
        .as_ref()
        .map_or("", |_| ", replacing another");
    format!(
        "configuration {} of epoch {}{replacing}",
        version.number, version.epoch.0
    )
}

pub(super) fn members(config: &Config) -> String {
    let own = format!(
        "{} ({})",
        nodes(&config.members),
        mode(config.mode, config.members.len())
    );
    match &config.previous {
        None => own,
        Some(previous) => format!(
            "{own}; replaced: {} ({})",
            nodes(&previous.members),
            mode(previous.mode, previous.members.len())
        ),
    }
}

fn mode(mode: Mode, members: usize) -> String {
    match mode {
        Mode::Async => "async".to_owned(),
        Mode::Sync(copies) => format!("sync({copies})"),
        Mode::All => format!("all, {} copies", mode.copies(members)),
    }
}
