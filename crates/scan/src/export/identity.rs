//! Names that stay the same from one export to the next: UUIDs of version 5 from what they name.

use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

/// Drawn once; the space of all UUIDs in exports.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a0f_6b0c_93c1_4f0e_8d52_1d3c_7b5e_90a4);

/// The UUID of a thing of `kind` with these parts. A zero byte ends each: no name holds one.
pub(super) fn uuid(kind: &str, parts: &[&str]) -> String {
    let mut hash = Sha1::new();
    hash.update(NAMESPACE.as_bytes());
    for part in std::iter::once(&kind).chain(parts) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    Builder::from_sha1_bytes(first).into_uuid().to_string()
}
