//! What an invited node is given: who it is, its certificate and key, where the others are, and the
//! keys of the site. One file, for the machine that is invited and nobody else, sealed under a [`Code`]
//! that goes another way.
//!
//! It has an end, by the clock of the machine that joins: against files that lie about, not against
//! somebody who has file and code and sets the clock back. What ends it for certain is `node remove`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use replica::transport::Credentials;
use serde::{Deserialize, Serialize};
use world::{Disk, Random, RealClock, RealDisk, RealRandom, Timestamp};
use zeroize::Zeroizing;

use super::{
    Code, Settings, cannot,
    keys::{KEY_LEN_MAX, SITE_KEYS},
    make_record,
    settings::Written,
    write, write_credentials,
};
use crate::{exit::Refusal, moment::local, site};

const FORMAT: u32 = 1;
const SALT_LEN: usize = 16;
/// A machine whose clock is so far behind that of the one that invited is let in: an hour is what a
/// time zone or a winter does. Further behind, the end means nothing.
const BEHIND_MAX: Duration = Duration::from_secs(2 * 3600);

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
pub(super) struct Secret(pub(super) Zeroizing<String>);

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

    /// The file, sealed.
    pub(crate) fn sealed(
        &self,
        code: &Code,
        made: Timestamp,
        valid: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        let failed = |error: String| {
            Refusal::new(format!("the invitation cannot be sealed: {error}")).next("try again")
        };
        let plain = serde_json::to_vec(self)
            .map(Zeroizing::new)
            .map_err(|error| failed(error.to_string()))?;
        let mut salt = [0; SALT_LEN];
        RealRandom
            .fill(&mut salt)
            .map_err(|error| failed(error.to_string()))?;
        let mut envelope = Envelope {
            invitation: FORMAT,
            node: self.node.name().to_owned(),
            made: made.nanos() / NANOS,
            ends: made.plus(valid).nanos() / NANOS,
            salt: STANDARD.encode(salt),
            sealed: String::new(),
        };
        let payload = Payload {
            msg: &plain,
            aad: &envelope.associated(),
        };
        let sealed = cipher(code, &salt)
            .encrypt(&Nonce::from(NUMBER), payload)
            .map_err(|_| failed("it is too long".to_owned()))?;
        envelope.sealed = STANDARD.encode(sealed);
        serde_json::to_vec_pretty(&envelope).map_err(|error| failed(error.to_string()))
    }
}

const NANOS: u64 = 1_000_000_000;
/// Of the message: a key seals one, so it is always the same.
const NUMBER: [u8; 12] = [0; 12];

/// An invitation as it lies in its file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    /// The format.
    invitation: u32,
    node: String,
    /// Seconds since the epoch.
    made: u64,
    ends: u64,
    salt: String,
    sealed: String,
}

fn unreadable(what: &str) -> Refusal {
    Refusal::new(format!("the invitation cannot be read: {what}"))
        .next("have `holdfast node invite` write another one")
}

fn cipher(code: &Code, salt: &[u8]) -> ChaCha20Poly1305 {
    let key = code.key(salt, "holdfast invitation 1");
    ChaCha20Poly1305::new((&*key).into())
}

impl Envelope {
    /// As this machine's clock says, it can be used.
    pub(crate) fn read(text: &[u8], now: Timestamp) -> Result<Self, Refusal> {
        let envelope: Self =
            serde_json::from_slice(text).map_err(|error| unreadable(&error.to_string()))?;
        if envelope.invitation != FORMAT {
            let what = format!(
                "it has format {}, this program reads {FORMAT}",
                envelope.invitation
            );
            return Err(unreadable(&what));
        }
        let (made, ends) = (seconds(envelope.made), seconds(envelope.ends));
        let clock = local(now);
        if now > ends {
            return Err(Refusal::new(format!(
                "the invitation ended at {}, and this machine's clock says {clock}",
                local(ends)
            ))
            .next("set the clock if it is wrong; else `holdfast node remove` the name there and invite again"));
        }
        if now < made.minus(BEHIND_MAX) {
            return Err(Refusal::new(format!(
                "the invitation was made at {}, and this machine's clock says {clock}",
                local(made)
            ))
            .next("set this machine's clock, then join"));
        }
        Ok(envelope)
    }

    /// What is in the clear, so that nobody changes it.
    fn associated(&self) -> Vec<u8> {
        let Self {
            invitation,
            node,
            made,
            ends,
            ..
        } = self;
        format!("holdfast invitation {invitation} {made} {ends} {node}").into_bytes()
    }

    pub(crate) fn open(&self, code: &Code) -> Result<Invitation, Refusal> {
        let decoded = (STANDARD.decode(&self.salt), STANDARD.decode(&self.sealed));
        let (Ok(salt), Ok(sealed)) = decoded else {
            return Err(unreadable("it is not base64"));
        };
        let payload = Payload {
            msg: &sealed,
            aad: &self.associated(),
        };
        let plain =
            cipher(code, &salt)
                .decrypt(&Nonce::from(NUMBER), payload)
                .map_err(|_| {
                    Refusal::new("the code does not open this invitation, or the file was changed")
                .next("give the code that `holdfast node invite` showed when it wrote this file")
                })?;
        let plain = Zeroizing::new(plain);
        // No words of the parser's: they may quote what it read.
        serde_json::from_slice(&plain)
            .map_err(|_| unreadable("another version of Holdfast wrote it"))
    }
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds.saturating_mul(NANOS))
}

/// Makes an empty data directory the node that was invited.
pub(crate) fn join(
    data: &Path,
    invitation: Invitation,
    mode: wal::Mode,
) -> Result<Settings, Refusal> {
    let settings = Settings::of(invitation.node).map_err(|what| unreadable(&what))?;
    let credentials = Credentials {
        authority: invitation.cluster_certificate,
        certificate: invitation.certificate,
        key: invitation.key.0,
    };
    let keys = data.join(scan::credential::KEYS_DIR);
    let given = given_keys(&invitation.keys, &keys)?;
    RealDisk
        .create_dir_all_synced(&keys)
        .map_err(|error| cannot("make", &keys, &error))?;
    for (path, bytes) in &given {
        write(path, bytes)?;
    }
    write_credentials(data, &credentials)?;
    let log = begin_log(data, &settings, mode)?;
    make_record(data, &settings, &log)?;
    // Last: where it is, all of it is.
    settings.save(data)?;
    Ok(settings)
}

/// Where a key goes, and what it is.
type KeyFile = (PathBuf, Zeroizing<Vec<u8>>);

/// The keys of the site with their files. No key of another site is written over: rows that it sealed may lie
/// somewhere yet.
fn given_keys(given: &BTreeMap<String, Secret>, dir: &Path) -> Result<Vec<KeyFile>, Refusal> {
    let keys = given.iter().map(|(name, text)| {
        if !SITE_KEYS.contains(&name.as_str()) {
            return Err(unreadable("it holds a key that no site has"));
        }
        let bytes = STANDARD
            .decode(text.0.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| unreadable("a key in it is not base64"))?;
        let path = dir.join(name);
        let found = RealDisk
            .stat(&path)
            .map_err(|error| cannot("look for", &path, &error))?;
        let before = found.map(|_| RealDisk.read(&path, KEY_LEN_MAX).map(Zeroizing::new));
        let is_same = |before: std::io::Result<Zeroizing<Vec<u8>>>| {
            before.is_ok_and(|before| *before == *bytes)
        };
        match before.is_none_or(is_same) {
            true => Ok((path, bytes)),
            false => Err(Refusal::new(format!(
                "{} is a key of another site, and what it opens may be needed yet",
                path.display()
            ))
            .next("join with an empty data directory: name another one with --data-dir")),
        }
    });
    keys.collect()
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use replica::machine::NodeId;
    use wal::{Generation, Identity, JournalId};
    use world::sim;

    use super::*;
    use crate::node::Member;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECRET: &str = "a secret key";

    fn made() -> Timestamp {
        Timestamp::from_nanos(1_760_000_000 * NANOS)
    }

    fn code(seed: u64) -> Code {
        Code::draw(&sim::Random::new(seed)).unwrap()
    }

    fn invitation() -> Invitation {
        let address = SocketAddr::from(([127, 0, 0, 1], 7400));
        let settings = Settings {
            cluster: 1,
            node: NodeId(2),
            listen: address,
            journal: Identity {
                journal: JournalId([1; 16]),
                generation: Generation(1),
            },
            is_founder: false,
            members: vec![Member {
                node: NodeId(2),
                name: "second".to_owned(),
                address,
                number: 1,
                is_founder: false,
            }],
            removed: Vec::new(),
        };
        let secret = || Secret(Zeroizing::new(SECRET.to_owned()));
        Invitation {
            node: settings.written(),
            cluster_certificate: String::new(),
            certificate: String::new(),
            key: secret(),
            keys: [("data.key".to_owned(), secret())].into(),
        }
    }

    fn text() -> Vec<u8> {
        invitation().sealed(&code(1), made(), DAY).unwrap()
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
        let said = format!("{:?}", result.unwrap_err());
        assert!(
            !said.contains(SECRET) && !said.contains(code(1).text().as_str()),
            "{said}"
        );
        said
    }

    #[test]
    fn an_invitation_opens_by_its_code_and_shows_nothing_else() {
        let text = text();
        let shown = String::from_utf8(text.clone()).unwrap();
        for secret in [SECRET, &STANDARD.encode(SECRET), code(1).text().as_str()] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let envelope = Envelope::read(&text, made()).unwrap();
        let opened = envelope.open(&code(1)).unwrap();
        assert_eq!(opened.key.0.as_str(), SECRET);
        for shown in [format!("{envelope:?}"), format!("{opened:?}")] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }

    #[test]
    fn a_wrong_code_and_a_changed_file_are_refused() {
        let text = text();
        let envelope = Envelope::read(&text, made()).unwrap();
        assert!(refused(envelope.open(&code(2))).contains("does not open"));
        let shown = String::from_utf8(text).unwrap();
        let sealed = &envelope.sealed[..8];
        for (from, to) in [
            (envelope.ends.to_string(), (envelope.ends + 1).to_string()),
            ("second".to_owned(), "third".to_owned()),
            (sealed.to_owned(), sealed.chars().rev().collect()),
        ] {
            let changed = shown.replacen(&from, &to, 1);
            let envelope = Envelope::read(changed.as_bytes(), made()).unwrap();
            assert!(
                refused(envelope.open(&code(1))).contains("does not open"),
                "{to}"
            );
        }
        for garbage in [
            "",
            "{}",
            "[1]",
            &shown.replace("\"invitation\": 1", "\"invitation\": 2"),
        ] {
            let read = Envelope::read(garbage.as_bytes(), made());
            assert!(refused(read).contains("cannot be read"), "{garbage}");
        }
    }

    #[test]
    fn an_invitation_has_an_end_that_a_clock_an_hour_off_does_not_move_to_the_past() {
        let hour = Duration::from_secs(3600);
        for (now, wanted) in [
            (made(), None),
            (made().minus(hour), None),
            (made().plus(DAY), None),
            (made().plus(DAY + hour), Some("ended at")),
            (made().minus(hour * 3), Some("was made at")),
            (Timestamp::from_nanos(0), Some("was made at")),
        ] {
            match (Envelope::read(&text(), now), wanted) {
                (Ok(_), None) => {}
                (read, Some(wanted)) => assert!(refused(read).contains(wanted)),
                (Err(refusal), None) => panic!("{refusal:?}"),
            }
        }
    }
}
