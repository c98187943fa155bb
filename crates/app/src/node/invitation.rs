//! What an invited node is given: who it is, its certificate and key, where the others are, and the
//! keys of the site. One file, for the machine that is invited and nobody else.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use replica::transport::Credentials;
use serde::{Deserialize, Serialize};
use world::{Disk, RealClock, RealDisk, RealRandom};
use zeroize::Zeroizing;

use super::{Settings, cannot, make_record, settings::Written, write, write_credentials};
use crate::{exit::Refusal, site};

/// Keys of a site: what a promoted node seals and signs with.
const SITE_KEYS: &[&str] = &["data.key", "ledger.key", "policy.key"];
const KEY_LEN_MAX: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    node: Written,
    cluster_certificate: String,
    certificate: String,
    key: Secret,
    /// Of the site, base64, by file name.
    keys: BTreeMap<String, Secret>,
}

/// Text that is wiped, written as it is.
struct Secret(Zeroizing<String>);

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Invitation {
    pub(crate) fn new(
        data: &Path,
        invited: &Settings,
        credentials: Credentials,
    ) -> Result<Self, Refusal> {
        let dir = data.join(scan::credential::KEYS_DIR);
        let mut keys = BTreeMap::new();
        for name in SITE_KEYS {
            let path = dir.join(name);
            let found = RealDisk
                .stat(&path)
                .map_err(|error| cannot("look for", &path, &error))?;
            if found.is_some() {
                let bytes = RealDisk
                    .read(&path, KEY_LEN_MAX)
                    .map(Zeroizing::new)
                    .map_err(|error| cannot("read", &path, &error))?;
                let text = Secret(Zeroizing::new(STANDARD.encode(&bytes[..])));
                keys.insert((*name).to_owned(), text);
            }
        }
        if keys.is_empty() {
            return Err(
                Refusal::new("this site has no keys yet, which every node must have")
                    .next("run `holdfast up` here once, stop it, and invite again"),
            );
        }
        Ok(Self {
            node: invited.written(),
            cluster_certificate: credentials.authority,
            certificate: credentials.certificate,
            key: Secret(credentials.key),
            keys,
        })
    }

    pub(crate) fn text(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        serde_json::to_vec_pretty(self)
            .map(Zeroizing::new)
            .map_err(|error| Refusal::new("the invitation cannot be written").source(error))
    }
}

/// Makes an empty data directory the node that was invited.
pub(crate) fn join(data: &Path, text: &[u8], mode: wal::Mode) -> Result<Settings, Refusal> {
    let unreadable = |what: String| {
        Refusal::new(format!("the invitation cannot be read: {what}"))
            .next("have `holdfast node invite` write another one")
    };
    let invitation: Invitation =
        serde_json::from_slice(text).map_err(|error| unreadable(error.to_string()))?;
    let settings = Settings::of(invitation.node).map_err(unreadable)?;
    let credentials = Credentials {
        authority: invitation.cluster_certificate,
        certificate: invitation.certificate,
        key: invitation.key.0,
    };
    let keys = data.join(scan::credential::KEYS_DIR);
    RealDisk
        .create_dir_all_synced(&keys)
        .map_err(|error| cannot("make", &keys, &error))?;
    for (name, text) in &invitation.keys {
        if !SITE_KEYS.contains(&name.as_str()) {
            return Err(unreadable(format!("`{name}` is no key of a site")));
        }
        let bytes = STANDARD
            .decode(text.0.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| unreadable(format!("the key `{name}` is not base64")))?;
        write(&keys.join(name), &bytes)?;
    }
    write_credentials(data, &credentials)?;
    let log = begin_log(data, &settings, mode)?;
    make_record(data, &settings, &log)?;
    // Last: where it is, all of it is.
    settings.save(data)?;
    Ok(settings)
}

/// An empty log of the cluster's journal.
fn begin_log(data: &Path, settings: &Settings, mode: wal::Mode) -> Result<wal::Local, Refusal> {
    let mut options = wal::Options::on_this_machine(data.join(site::JOURNAL_DIR));
    options.mode = mode;
    options.random = std::sync::Arc::new(RealRandom);
    options.clock = std::sync::Arc::new(RealClock::new());
    let base = wal::Base {
        identity: settings.journal,
        lsn: wal::Lsn::ZERO,
        epoch: wal::Epoch(0),
        history: &[],
        old: wal::Old::MoveAside,
    };
    wal::begin_after(&options, &base)
        .map(|(log, _)| log)
        .map_err(|error| site::cannot_open_journal(data, &error))
}
