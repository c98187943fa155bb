//! What a job in the queue says, and the seal by which we know our own.
//!
//! Whoever can write to the queue could otherwise have any host scanned, under any policy, as often as
//! they like: that is what the seal, the expiry and the nonce answer.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;
use world::Timestamp;
use zeroize::Zeroizing;

use crate::credential::DataKey;

/// Names the purpose of the key that is derived from the data key, and the form of what is sealed.
const PURPOSE: &str = "holdfast-queue-v1";

/// What is sealed. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    pub host: String,
    /// In force at the enqueue: a reload does not touch what is queued or running.
    pub policy_version: String,
    pub enqueued: u64,
    /// Random, used for one job, and its name: a copy under another name is seen at once.
    pub nonce: String,
    /// From this moment on the job is not run.
    pub expires: u64,
}

impl Payload {
    pub fn new(
        nonce: Uuid,
        host: &str,
        policy_version: &str,
        enqueued: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self {
            host: host.to_owned(),
            policy_version: policy_version.to_owned(),
            enqueued: enqueued.nanos(),
            nonce: nonce.to_string(),
            expires: expires.nanos(),
        }
    }

    /// One form for one payload: each text after its length, so that no two payloads share a form.
    fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [&self.host, &self.policy_version, &self.nonce] {
            out.extend_from_slice(&(text.len() as u64).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&self.enqueued.to_be_bytes());
        out.extend_from_slice(&self.expires.to_be_bytes());
        out
    }
}

/// Seals jobs. Wiped when it is dropped.
#[derive(Clone)]
pub struct QueueKey(Zeroizing<[u8; 32]>);

impl QueueKey {
    pub fn of(data_key: &DataKey) -> Self {
        Self(data_key.derive(PURPOSE))
    }

    /// For a test that has no data directory.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// HMAC-SHA256 over the payload, hexadecimal.
    pub fn seal(&self, payload: &Payload) -> String {
        let mac = self.mac(payload).finalize().into_bytes();
        mac.iter().fold(String::new(), |mut text, byte| {
            use fmt::Write;
            write!(text, "{byte:02x}").expect("writing to a string");
            text
        })
    }

    /// Whether `seal` is this key's over exactly this payload. Takes as long for a seal that is nearly
    /// right as for any other of its length.
    pub fn verify(&self, payload: &Payload, seal: &str) -> bool {
        hex(seal).is_some_and(|bytes| self.mac(payload).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, payload: &Payload) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice())
            .expect("HMAC takes a key of any length");
        mac.update(&payload.canonical());
        mac
    }
}

impl fmt::Debug for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueKey")
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Why a job was not given out: the closed list that audit records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobFault {
    /// The seal is missing, of another key, or over another payload.
    Tampered,
    /// Its nonce was used, or it lies under another name than its nonce.
    Replayed,
    Expired,
    /// No host waits for it: retired, or moved on without it.
    Unscheduled,
}

impl JobFault {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tampered => "tampered",
            Self::Replayed => "replayed",
            Self::Expired => "expired",
            Self::Unscheduled => "unscheduled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload {
            host: "web1".to_owned(),
            policy_version: "1.2.3".to_owned(),
            enqueued: 1_700_000_000_000_000_000,
            nonce: "8d0c1a52-3f0e-4a0e-9d0b-7e6f0f3a2b1c".to_owned(),
            expires: 1_700_003_600_000_000_000,
        }
    }

    /// Proves: SCH-14
    #[test]
    fn a_change_of_any_field_or_of_the_seal_or_the_key_breaks_the_seal() {
        let key = QueueKey::from_bytes([7; 32]);
        let seal = key.seal(&payload());
        assert!(key.verify(&payload(), &seal));
        let changes: [fn(&mut Payload); 7] = [
            |it| it.host = "web2".to_owned(),
            |it| it.policy_version = "1.2.4".to_owned(),
            |it| it.enqueued += 1,
            |it| it.nonce.replace_range(0..1, "9"),
            |it| it.expires += 1,
            // The same bytes, cut elsewhere.
            |it| (it.host, it.policy_version) = ("web11.2.3".to_owned(), String::new()),
            |it| std::mem::swap(&mut it.host, &mut it.policy_version),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = payload();
            change(&mut changed);
            assert!(!key.verify(&changed, &seal), "change {index}");
        }
        let mut flipped = seal.clone();
        flipped.replace_range(0..1, if seal.starts_with('0') { "1" } else { "0" });
        let long = format!("{seal}00");
        for wrong in [&flipped, &long, &seal[..62], "", "zz", "é", "0"] {
            assert!(!key.verify(&payload(), wrong), "{wrong}");
        }
        assert!(!QueueKey::from_bytes([8; 32]).verify(&payload(), &seal));
        assert_eq!(format!("{key:?}"), "QueueKey");
    }

    /// As Python's `hmac` computes it over the same bytes. The form is fixed: a job that waits while the program is replaced is still our own.
    #[test]
    fn the_seal_of_a_known_job_is_known() {
        let seal = QueueKey::from_bytes([7; 32]).seal(&payload());
        assert_eq!(seal, SEAL);
    }

    const SEAL: &str = "cdb342b1c14731698bb79e02eb7abfb8a76f641c660d3e84c33930664158a980";
}
