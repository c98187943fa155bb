//! A signed YAML document: its body, what was signed, and the signature beside it.
//!
//! Signed is the canonical JSON of everything but `signature`, so that order of keys, comments and
//! layout may change and nothing else. The form is in docs/format/policy.md. YAML's traps end in the
//! reader of rules: limits on bytes, depth and aliases, no key twice, `yes` and `no` are text.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    key::{KeyId, PrivateKey, PublicKey},
    refusal::{Reason, Refused},
};
use crate::{
    judge::hex,
    rule::{
        Fault, Place, canonical_json,
        yaml::{self, Node, Tree},
    },
};

/// Bytes of a document. A full policy has about 3 KiB, a list of a thousand revoked keys 60 KiB.
pub const DOCUMENT_BYTES_MAX: usize = 128 * 1024;
/// Before the canonical bytes: a signature made for this is good for nothing else.
const DOMAIN: &[u8] = b"holdfast.signed/1\n";
const ALGORITHM: &str = "ed25519";

/// A parsed document whose body is not looked at yet.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    /// As it was read.
    pub(super) text: String,
    pub(super) root: Node,
    /// Everything but the signature.
    body: Value,
    signature: Result<Option<Signature>, Fault>,
}

#[derive(Clone, Debug)]
struct Signature {
    key: KeyId,
    value: String,
}

impl Envelope {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let what = format!(
                "the document has {} bytes, more than {DOCUMENT_BYTES_MAX}",
                bytes.len()
            );
            return Err(Fault::at(Place::default(), what));
        }
        let text = str::from_utf8(bytes)
            .map_err(|error| Fault::at(Place::default(), format!("not text: {error}")))?;
        let root = yaml::parse(text)?;
        if !matches!(root.tree, Tree::Map(_)) {
            return Err(Fault::at(
                root.at,
                format!("the document is {}, wanted a mapping", root.kind()),
            )
            .next("`holdfast policy show` prints one"));
        }
        let mut body = root.to_json();
        if let Value::Object(map) = &mut body {
            map.shift_remove("signature");
        }
        Ok(Self {
            text: text.to_owned(),
            signature: signature(&root),
            root,
            body,
        })
    }

    /// SHA-256 of the document as it was read, hexadecimal.
    pub(super) fn sha256(&self) -> String {
        hex(&Sha256::digest(self.text.as_bytes()))
    }

    /// The bytes that a signature of this document is over.
    pub(super) fn message(&self) -> Vec<u8> {
        message(&self.body)
    }

    /// The key that made the signature, when `trusted` has it and the signature is its.
    pub(super) fn verify(
        &self,
        trusted: impl Fn(&KeyId) -> Option<PublicKey>,
    ) -> Result<KeyId, Refused> {
        let invalid =
            |detail: String, next: &str| Refused::new(Reason::SignatureInvalid, detail, next);
        let signature = match &self.signature {
            Ok(Some(signature)) => signature,
            Ok(None) => {
                return Err(invalid(
                    "the document is not signed".to_owned(),
                    "sign it with `holdfast policy sign FILE`",
                ));
            }
            Err(fault) => {
                return Err(invalid(
                    fault.to_string(),
                    "sign it again with `holdfast policy sign FILE`",
                ));
            }
        };
        let key = trusted(&signature.key).ok_or_else(|| {
            invalid(
                format!(
                    "the key {} that signed it is not trusted here",
                    signature.key
                ),
                "if it should be, `holdfast policy trust FILE` installs its public key",
            )
        })?;
        if !key.verifies(&self.message(), &signature.value) {
            return Err(invalid(
                format!(
                    "the signature does not fit: the document was changed after key {} signed it",
                    signature.key
                ),
                "sign it again with `holdfast policy sign FILE`, or get it anew from who signed it",
            ));
        }
        Ok(signature.key.clone())
    }
}

fn message(body: &Value) -> Vec<u8> {
    [DOMAIN, &canonical_json(body)].concat()
}

fn signature(root: &Node) -> Result<Option<Signature>, Fault> {
    let Some((_, node)) = root
        .map("the document")?
        .iter()
        .find(|(key, _)| key.name == "signature")
    else {
        return Ok(None);
    };
    let fields = node.fields("`signature`", &["algorithm", "key_id", "value"])?;
    let algorithm = fields.need("algorithm")?;
    if algorithm.text("`algorithm`")? != ALGORITHM {
        return Err(Fault::at(
            algorithm.at,
            format!("the algorithm of the signature is not `{ALGORITHM}`"),
        ));
    }
    let key = fields.need("key_id")?;
    let key = KeyId::parse(key.text("`key_id`")?).ok_or_else(|| {
        Fault::at(
            key.at,
            "the key id of the signature is not 32 digits and letters a to f",
        )
    })?;
    let value = fields.need("value")?.text("`value`")?.to_owned();
    Ok(Some(Signature { key, value }))
}

/// `text` with its signature by `key` in place of any it had, and `metadata` saying who and when.
/// Comments and layout stay.
pub(super) fn sign(
    text: &str,
    key: &PrivateKey,
    signed_by: &str,
    signed_at: &str,
) -> Result<String, Fault> {
    let before = Envelope::parse(text.as_bytes())?;
    let mut wanted = before.body.clone();
    let Some(Value::Object(metadata)) = wanted.get_mut("metadata") else {
        return Err(Fault::at(before.root.at, "the document has no `metadata`")
            .next("add `metadata:` with a `description`"));
    };
    metadata.insert("signed_by".to_owned(), Value::from(signed_by));
    metadata.insert("signed_at".to_owned(), Value::from(signed_at));
    let quoted = |text: &str| Value::from(text).to_string();
    let unsigned = with_metadata(
        &without_signature(text),
        &[
            format!("signed_by: {}", quoted(signed_by)),
            format!("signed_at: {}", quoted(signed_at)),
        ],
    );
    let signed = format!(
        "{}\nsignature:\n  algorithm: {ALGORITHM}\n  key_id: \"{}\"\n  value: \"{}\"\n",
        unsigned.trim_end(),
        key.public().id(),
        key.sign(&message(&wanted))
    );
    // Lines were edited where a tree was meant: only what reads back as that tree was edited well.
    match Envelope::parse(signed.as_bytes()) {
        Ok(after)
            if after.body == wanted
                && after.verify(|_| Some(key.public())).is_ok() =>
        {
            Ok(signed)
        }
        _ => Err(
            Fault::at(before.root.at, "the signature does not fit into this layout")
                .next("write `metadata:` and `signature:` as blocks, one key a line, and nothing after them that is not YAML"),
        ),
    }
}

/// The text without the block `signature:` at the left margin.
pub(super) fn without_signature(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if !line.starts_with([' ', '\t']) && !line.is_empty() {
            inside = line.starts_with("signature:");
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The text with `entries` (`name: value`) at the end of the block `metadata:`, in place of older
/// ones of the same names.
fn with_metadata(text: &str, entries: &[String]) -> String {
    let name = |line: &str| line.trim_start().split(':').next().unwrap_or("").to_owned();
    let replaced: Vec<String> = entries.iter().map(|entry| name(entry)).collect();
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    let mut indent = None;
    let mut last = None;
    for line in text.lines() {
        let is_child = line.starts_with(' ');
        if !is_child && !line.is_empty() {
            inside = line.starts_with("metadata:");
        }
        let is_entry = is_child && !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if inside && is_entry {
            let spaces = line.len() - line.trim_start().len();
            let first = *indent.get_or_insert(spaces);
            if spaces == first && replaced.contains(&name(line)) {
                continue;
            }
        }
        if inside && (is_entry || last.is_none()) {
            last = Some(lines.len());
        }
        lines.push(line.to_owned());
    }
    let at = last.map_or(lines.len(), |last| last + 1);
    let indent = " ".repeat(indent.unwrap_or(2));
    for (offset, entry) in entries.iter().enumerate() {
        lines.insert(at + offset, format!("{indent}{entry}"));
    }
    lines.join("\n") + "\n"
}
