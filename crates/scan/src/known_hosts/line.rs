//! Lines of OpenSSH's `known_hosts`: names, type, key.
//!
//! The names are one or several of: a name, `[name]:port`, patterns with `*`, `?` and `!`, or one
//! name that is hashed (`|1|salt|hash`). Of the markers, `@revoked` is honoured and
//! `@cert-authority` refused: nothing here checks certificates.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;
use world::Timestamp;

use super::{Entry, fingerprint};
use crate::inventory::field;

/// Bytes of a line: a key of RSA 16384 has 3 KiB, the rest is names.
const LINE_LEN_MAX: usize = 16 << 10;
/// Names of one line.
const NAMES_MAX: usize = 64;
const HASHED: &str = "|1|";

/// Why a line is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CertAuthority,
    Marker,
    Fields,
    Key,
    Names,
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertAuthority => {
                "@cert-authority: host certificates are not checked; trust the keys of its hosts"
            }
            Self::Marker => "a marker that is not known",
            Self::Fields => "a line has names, a key type and a key",
            Self::Key => "the key is damaged, or of a type that is not supported",
            Self::Names => "the names are none, too many, or a hash that is damaged",
            Self::TooLong => "the line is too long",
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) names: Names,
    pub(super) revoked: bool,
    pub(super) key: PublicKey,
}

#[derive(Clone, Debug)]
pub(super) enum Names {
    /// In the form that [`super::endpoint`] gives.
    Exact(String),
    /// Patterns, or hashed: looked at for every host.
    Matched(String),
}

impl Names {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Exact(names) | Self::Matched(names) => names,
        }
    }
}

impl Line {
    pub(super) fn exact(endpoint: String, key: &PublicKey) -> Self {
        Self {
            names: Names::Exact(endpoint),
            revoked: false,
            key: key.clone(),
        }
    }

    pub(super) fn entry(&self, at: Timestamp) -> Entry {
        let mut bare = self.key.clone();
        bare.set_comment("");
        Entry {
            names: self.names.as_str().to_owned(),
            revoked: self.revoked,
            key: bare
                .to_openssh()
                .expect("a key that was decoded can be encoded"),
            fingerprint: fingerprint(&self.key),
            added: at.nanos(),
        }
    }
}

/// The line as rows: one for each plain name. `None` for comments and blank lines.
pub(super) fn parse(text: &str) -> Result<Option<Vec<Line>>, Fault> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.len() > LINE_LEN_MAX {
        return Err(Fault::TooLong);
    }
    let (revoked, text) = match text.split_once([' ', '\t']) {
        Some(("@revoked", rest)) => (true, rest.trim_start()),
        Some(("@cert-authority", _)) => return Err(Fault::CertAuthority),
        Some((marker, _)) if marker.starts_with('@') => return Err(Fault::Marker),
        _ => (false, text),
    };
    let mut fields = text.split_ascii_whitespace();
    let (Some(names), Some(kind), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(Fault::Fields);
    };
    let key = PublicKey::from_openssh(&format!("{kind} {key}")).map_err(|_| Fault::Key)?;
    let lines = read_names(names)?
        .into_iter()
        .map(|names| Line {
            names,
            revoked,
            key: key.clone(),
        })
        .collect();
    Ok(Some(lines))
}

fn read_names(names: &str) -> Result<Vec<Names>, Fault> {
    if names.starts_with(HASHED) {
        split_hash(names).ok_or(Fault::Names)?;
        return Ok(vec![Names::Matched(names.to_owned())]);
    }
    let each: Vec<&str> = names.split(',').collect();
    if each.len() > NAMES_MAX
        || each
            .iter()
            .any(|name| name.trim_start_matches('!').is_empty())
    {
        return Err(Fault::Names);
    }
    // A negation is about the whole list: such a list stays whole.
    if names.contains(['*', '?', '!']) {
        return Ok(vec![Names::Matched(names.to_owned())]);
    }
    each.into_iter()
        .map(|name| plain(name).map(Names::Exact).ok_or(Fault::Names))
        .collect()
}

/// A plain name in the form of an endpoint; `[name]:22` is `name`.
fn plain(name: &str) -> Option<String> {
    let (address, port) = match name.strip_prefix('[') {
        None => (name, super::PORT),
        Some(rest) => {
            let (address, port) = rest.rsplit_once("]:")?;
            (address, port.parse().ok().filter(|port| *port != 0)?)
        }
    };
    field::address(address).ok()?;
    super::endpoint(address, port).ok()
}

/// Whether the names of a row are about `endpoint`.
pub(super) fn matches(names: &str, endpoint: &str) -> bool {
    if names.starts_with(HASHED) {
        return matches_hash(names, endpoint);
    }
    let mut is_matched = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if globbed(not, endpoint) => return false,
            Some(_) => {}
            None => is_matched |= globbed(pattern, endpoint),
        }
    }
    is_matched
}

/// HMAC-SHA1 of the name under the salt. What is kept from a reader of the file is the name; the key
/// is compared in full whatever matches.
fn matches_hash(names: &str, endpoint: &str) -> bool {
    let Some((salt, hash)) = split_hash(names) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else {
        return false;
    };
    mac.update(endpoint.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

fn split_hash(names: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    const SHA1_LEN: usize = 20;
    let (salt, hash) = names.strip_prefix(HASHED)?.split_once('|')?;
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok()?);
    (salt.len() == SHA1_LEN && hash.len() == SHA1_LEN).then_some((salt, hash))
}

/// `*` for any text, `?` for any one character, letters in either case. Steps back to the last `*`
/// only, so that no pattern takes more than its length times the text's.
pub fn globbed(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => (p, t) = (p + 1, t + 1),
            Some(byte) if byte.eq_ignore_ascii_case(&text[t]) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// As a line of a file.
pub(super) fn written(entry: &Entry) -> String {
    let marker = if entry.revoked { "@revoked " } else { "" };
    format!("{marker}{} {}\n", entry.names, entry.key)
}
