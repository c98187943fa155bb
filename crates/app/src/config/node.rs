//! The coordinator of a site on several machines.

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Origin, Setting, store, variable};
use crate::{exit::Refusal, named_file, node::Address};

const COORDINATOR: &str = "HOLDFAST_NODE_COORDINATOR";
const PASSWORD_FILE: &str = "HOLDFAST_NODE_COORDINATOR_PASSWORD_FILE";
const CA_FILE: &str = "HOLDFAST_NODE_COORDINATOR_CA_FILE";
/// A certificate or two.
const CA_LEN_MAX: u64 = 64 << 10;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileNode {
    coordinator: Option<String>,
    coordinator_password_file: Option<PathBuf>,
    coordinator_ca_file: Option<PathBuf>,
}

/// The settings of a node, each with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) coordinator: Setting<Option<Address>>,
    pub(crate) password_file: Setting<Option<PathBuf>>,
    pub(crate) ca_file: Setting<Option<PathBuf>>,
}

pub(super) fn node(values: &FileNode, file: Option<&Path>) -> Result<Node, Refusal> {
    let path = |name: &str, of_file: &Option<PathBuf>| match (env::var_os(name), of_file) {
        (Some(path), _) => set(Some(path.into()), Origin::Environment),
        (None, Some(path)) => set(Some(path.clone()), Origin::File),
        (None, None) => set(None, Origin::Default),
    };
    let (text, key, origin) = match (variable(COORDINATOR), &values.coordinator) {
        (Some(text), _) => (Some(text), COORDINATOR.to_owned(), Origin::Environment),
        (None, text) => {
            let origin = if text.is_some() {
                Origin::File
            } else {
                Origin::Default
            };
            let place = file.map(|file| format!(" in {}", file.display()));
            let key = format!("node.coordinator{}", place.unwrap_or_default());
            (text.clone(), key, origin)
        }
    };
    let coordinator = text.map(|text| address(&text, &key)).transpose()?;
    Ok(Node {
        coordinator: set(coordinator, origin),
        password_file: path(PASSWORD_FILE, &values.coordinator_password_file),
        ca_file: path(CA_FILE, &values.coordinator_ca_file),
    })
}

/// Does not repeat `text`: it may hold a password that does not belong there.
pub(crate) fn address(text: &str, key: &str) -> Result<Address, Refusal> {
    Address::parse(text).map_err(|what| {
        Refusal::new(format!("{key} names no coordinator: {what}"))
            .next("write etcd://HOST:PORT[,HOST:PORT][/PREFIX][?user=NAME&ttl=2s]")
    })
}

impl Node {
    /// The first line of the file.
    pub(crate) fn password(&self) -> Result<Option<Zeroizing<String>>, Refusal> {
        let path = self.password_file.value.as_deref();
        path.map(store::password).transpose()
    }

    /// PEM of whom the coordinator's certificate is by.
    pub(crate) fn authority(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(path) = &self.ca_file.value else {
            return Ok(None);
        };
        named_file::read(path, CA_LEN_MAX)
            .map(Some)
            .map_err(|error| {
                Refusal::new(format!("read {}: {error}", path.display()))
                    .next("name a PEM file in node.coordinator_ca_file")
            })
    }
}

const fn set<T>(value: T, origin: Origin) -> Setting<T> {
    Setting { value, origin }
}
