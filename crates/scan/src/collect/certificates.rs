//! The site's own certificates: whose, until when, with which key and signature.
//!
//! Looked for where services keep theirs; the bundles of public authorities, which are links or
//! well-known names there, are left out. Private keys are never decoded: files named as keys are
//! not opened, `/etc/ssl/private` is not entered, and of any other file only the blocks labelled
//! CERTIFICATE are looked at. Nothing is verified: `self_signed` says that issuer and subject are
//! the same name.

use std::time::Duration;

use serde_json::{Value, json};
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::{
        Decode, DecodePem, Reader, SliceReader,
        asn1::{ObjectIdentifier, UintRef},
    },
    spki::SubjectPublicKeyInfoOwned,
};

use super::{Collector, Context, FactPattern, Privilege, Shape};
use crate::{
    facts::{Reason, Unknown},
    target::{Kind, Links},
};

/// Directories and whether links in them are followed: only certbot's are links to the certificate
/// itself; elsewhere they lead to the bundles of public authorities.
const DIRS: [(&str, LinksThere); 6] = [
    ("/etc/ssl", LinksThere::Skipped),
    ("/etc/ssl/certs", LinksThere::Skipped),
    ("/etc/pki/tls/certs", LinksThere::Skipped),
    ("/etc/nginx/ssl", LinksThere::Skipped),
    ("/etc/apache2/ssl", LinksThere::Skipped),
    ("/etc/letsencrypt/live", LinksThere::OneBelow),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinksThere {
    Skipped,
    /// One directory a name, each with `cert.pem`.
    OneBelow,
}

const EXTENSIONS: [&str; 4] = [".pem", ".crt", ".cer", ".der"];
const BUNDLES: [&str; 3] = [
    "ca-certificates.crt",
    "ca-bundle.crt",
    "ca-bundle.trust.crt",
];

/// A chain has a handful of certificates; what is longer is no site certificate but a bundle.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Far above any site; beyond it the list is `truncated`.
const CERTIFICATES_MAX: usize = 2_000;

pub(super) const COLLECTOR: Collector = Collector {
    name: "certificates",
    about: "certificates of this site's services",
    reads: &[
        "/etc/ssl/*.{pem,crt,cer,der}",
        "/etc/ssl/certs/*.{pem,crt,cer,der}",
        "/etc/pki/tls/certs/*.{pem,crt,cer,der}",
        "/etc/nginx/ssl/*.{pem,crt,cer,der}",
        "/etc/apache2/ssl/*.{pem,crt,cer,der}",
        "/etc/letsencrypt/live/*/cert.pem",
    ],
    privilege: Privilege::Partly("where /etc/letsencrypt/live or a file is closed to others"),
    patterns: &[
        FactPattern::closed("certificates", Shape::Map, "certificates"),
        FactPattern::closed(
            "certificates.certificates",
            Shape::List,
            "by path, then by place in the file",
        ),
        FactPattern::closed("certificates.certificates[].path", Shape::Text, "file"),
        FactPattern::closed(
            "certificates.certificates[].subject",
            Shape::Text,
            "CN=press-3,O=Site",
        ),
        FactPattern::closed(
            "certificates.certificates[].issuer",
            Shape::Text,
            "CN=Site CA",
        ),
        FactPattern::closed(
            "certificates.certificates[].not_before",
            Shape::Text,
            "RFC 3339, UTC",
        ),
        FactPattern::closed(
            "certificates.certificates[].not_after",
            Shape::Text,
            "RFC 3339, UTC",
        ),
        FactPattern::closed(
            "certificates.certificates[].key_algorithm",
            Shape::Text,
            "rsa, ec, ed25519, ed448, dsa, or the dotted identifier",
        ),
        FactPattern::closed(
            "certificates.certificates[].key_bits",
            Shape::Int,
            "modulus or curve",
        ),
        FactPattern::closed(
            "certificates.certificates[].signature_algorithm",
            Shape::Text,
            "sha256WithRSAEncryption, ecdsa-with-SHA256, ED25519, or the dotted identifier",
        ),
        FactPattern::closed(
            "certificates.certificates[].self_signed",
            Shape::Bool,
            "issuer is subject",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

/// Fields of a certificate that does not parse: each is unknown, so that no rule passes it.
const FIELDS: [&str; 8] = [
    "subject",
    "issuer",
    "not_before",
    "not_after",
    "key_algorithm",
    "key_bits",
    "signature_algorithm",
    "self_signed",
];

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut certificates = Vec::new();
    for path in paths(context)? {
        let Some(stat) = context.stat(&path, Links::Follow).known()? else {
            continue;
        };
        if stat.kind != Kind::File || stat.size > FILE_BYTES_MAX {
            continue;
        }
        let content = context.bytes(&path).known()?.unwrap_or_default();
        certificates.extend(blocks(&content).into_iter().map(|block| fact(&path, block)));
        if certificates.len() > CERTIFICATES_MAX {
            let detail = format!("{path}: over {CERTIFICATES_MAX} certificates");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
    }
    Ok(json!({ "certificates": certificates }))
}

fn paths(context: &Context<'_>) -> Result<Vec<String>, Unknown> {
    let mut paths = Vec::new();
    for (dir, links) in DIRS {
        for entry in context.list(dir).known()?.unwrap_or_default() {
            match links {
                LinksThere::OneBelow if entry.kind == Kind::Dir => {
                    paths.push(format!("{dir}/{}/cert.pem", entry.name));
                }
                LinksThere::Skipped if entry.kind == Kind::File && is_certificate(&entry.name) => {
                    paths.push(format!("{dir}/{}", entry.name));
                }
                _ => {}
            }
        }
    }
    Ok(paths)
}

fn is_certificate(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = EXTENSIONS.iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| !stem.ends_with("key")) && !BUNDLES.contains(&name.as_str())
}

/// The certificates of one file, each decoded or with the reason why not.
fn blocks(content: &[u8]) -> Vec<Result<CertificateInner<Raw>, String>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    // An ASN.1 SEQUENCE: the binary form, one certificate a file.
    if content.first() == Some(&0x30) {
        return vec![CertificateInner::from_der(content).map_err(|error| error.to_string())];
    }
    let text = String::from_utf8_lossy(content);
    text.split(BEGIN)
        .skip(1)
        .map(|block| {
            let (body, _) = block.split_once(END).ok_or("the block has no end")?;
            // The decoder wants lines of 64; files have any length, and carriage returns.
            let letters: Vec<char> = body
                .chars()
                .filter(|letter| !letter.is_whitespace())
                .collect();
            let lines: Vec<String> = letters.chunks(64).map(String::from_iter).collect();
            let pem = format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"));
            CertificateInner::from_pem(pem.as_bytes()).map_err(|error| error.to_string())
        })
        .collect()
}

fn fact(path: &str, block: Result<CertificateInner<Raw>, String>) -> Value {
    let mut fact = json!({ "path": path });
    match block {
        Ok(certificate) => {
            let inner = certificate.tbs_certificate();
            let (subject, issuer) = (inner.subject(), inner.issuer());
            let (algorithm, bits) = key(inner.subject_public_key_info());
            fact["subject"] = subject.to_string().into();
            fact["issuer"] = issuer.to_string().into();
            fact["not_before"] = time(inner.validity().not_before.to_unix_duration());
            fact["not_after"] = time(inner.validity().not_after.to_unix_duration());
            fact["key_algorithm"] = algorithm.into();
            fact["key_bits"] = match bits {
                Some(bits) => bits.into(),
                None => unreadable(Reason::Unsupported, path, "size of the key"),
            };
            fact["signature_algorithm"] = signature(certificate.signature_algorithm().oid).into();
            fact["self_signed"] = (subject == issuer).into();
        }
        Err(why) => {
            for field in FIELDS {
                fact[field] = unreadable(Reason::Malformed, path, &why);
            }
        }
    }
    fact
}

fn unreadable(reason: Reason, path: &str, why: &str) -> Value {
    Unknown::new(reason, format!("{path}: {why}")).to_value()
}

fn time(since_1970: Duration) -> Value {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string().into(),
        Err(error) => unreadable(Reason::Malformed, "validity", &error.to_string()),
    }
}

/// Algorithm and size of a key. The identifiers are those of RFC 8017, 5480, 8410 and 3279.
fn key(key: &SubjectPublicKeyInfoOwned) -> (String, Option<usize>) {
    let algorithm = key.algorithm.oid.to_string();
    let raw = key.subject_public_key.raw_bytes();
    match algorithm.as_str() {
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => ("rsa".to_owned(), rsa_bits(raw)),
        "1.2.840.10045.2.1" => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
            ("ec".to_owned(), curve.and_then(curve_bits))
        }
        "1.3.101.112" => ("ed25519".to_owned(), Some(256)),
        "1.3.101.113" => ("ed448".to_owned(), Some(456)),
        "1.2.840.10040.4.1" => ("dsa".to_owned(), None),
        _ => (algorithm, None),
    }
}

/// Length of the modulus, the first integer of the key.
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader
        .sequence(|inner| {
            let modulus = UintRef::decode(inner)?;
            UintRef::decode(inner)?;
            Ok::<_, x509_cert::der::Error>(modulus)
        })
        .ok()?;
    let bytes = modulus.as_bytes();
    let first = bytes.first()?;
    let leading = usize::try_from(first.leading_zeros()).ok()?;
    Some(bytes.len() * 8 - leading)
}

fn curve_bits(curve: ObjectIdentifier) -> Option<usize> {
    match curve.to_string().as_str() {
        "1.2.840.10045.3.1.1" => Some(192),
        "1.3.132.0.33" => Some(224),
        "1.2.840.10045.3.1.7" | "1.3.132.0.10" | "1.3.36.3.3.2.8.1.1.7" => Some(256),
        "1.3.132.0.34" | "1.3.36.3.3.2.8.1.1.11" => Some(384),
        "1.3.36.3.3.2.8.1.1.13" => Some(512),
        "1.3.132.0.35" => Some(521),
        _ => None,
    }
}

/// Names as OpenSSL prints them, since administrators compare with its output.
fn signature(algorithm: ObjectIdentifier) -> String {
    let dotted = algorithm.to_string();
    let name = match dotted.as_str() {
        "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" => "sha1WithRSAEncryption",
        "1.2.840.113549.1.1.10" => "rsassaPss",
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        "1.2.840.113549.1.1.12" => "sha384WithRSAEncryption",
        "1.2.840.113549.1.1.13" => "sha512WithRSAEncryption",
        "1.2.840.113549.1.1.14" => "sha224WithRSAEncryption",
        "1.2.840.10040.4.3" => "dsaWithSHA1",
        "2.16.840.1.101.3.4.3.2" => "dsa_with_SHA256",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10045.4.3.1" => "ecdsa-with-SHA224",
        "1.2.840.10045.4.3.2" => "ecdsa-with-SHA256",
        "1.2.840.10045.4.3.3" => "ecdsa-with-SHA384",
        "1.2.840.10045.4.3.4" => "ecdsa-with-SHA512",
        "1.3.101.112" => "ED25519",
        "1.3.101.113" => "ED448",
        _ => return dotted,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const RSA: &str = include_str!("certificates/rsa2048.pem");
    const RSA_SHA1: &str = include_str!("certificates/rsa1024-sha1.pem");
    const SIGNED: &str = include_str!("certificates/p256-signed-by-p384.pem");
    const ED25519: &str = include_str!("certificates/ed25519.pem");

    fn certificates(host: &Fixture) -> Vec<Value> {
        let fact = host.collect(&COLLECTOR);
        fact["certificates"].as_array().expect("a list").clone()
    }

    /// The expected values are what `openssl x509 -text -nameopt RFC2253` printed for these files.
    #[test]
    fn a_certificate_tells_name_validity_key_and_signature() {
        let host = Fixture::new(&[(
            "/etc/ssl/a.pem",
            &format!("{RSA}{RSA_SHA1}{SIGNED}{ED25519}"),
        )]);
        let found = certificates(&host);
        assert_eq!(
            found[0],
            json!({
                "path": "/etc/ssl/a.pem",
                "subject": "CN=press-3.example,O=Site,C=FR", "issuer": "CN=press-3.example,O=Site,C=FR",
                "not_before": "2026-11-21T03:36:28Z", "not_after": "2036-11-18T03:36:28Z",
                "key_algorithm": "rsa", "key_bits": 2048,
                "signature_algorithm": "sha256WithRSAEncryption", "self_signed": true,
            })
        );
        let rest: Vec<_> = found[1..]
            .iter()
            .map(|found| {
                (
                    &found["key_algorithm"],
                    &found["key_bits"],
                    &found["signature_algorithm"],
                    &found["self_signed"],
                )
            })
            .collect();
        assert_eq!(
            rest,
            [
                (
                    &json!("rsa"),
                    &json!(1024),
                    &json!("sha1WithRSAEncryption"),
                    &json!(true)
                ),
                (
                    &json!("ec"),
                    &json!(256),
                    &json!("ecdsa-with-SHA256"),
                    &json!(false)
                ),
                (
                    &json!("ed25519"),
                    &json!(256),
                    &json!("ED25519"),
                    &json!(true)
                ),
            ]
        );
        assert_eq!(found[3]["not_after"], "2126-10-28T03:36:28Z");
    }

    #[test]
    fn bundles_keys_and_links_to_authorities_are_left_out_and_certbots_links_are_followed() {
        let host = Fixture::new(&[
            ("/etc/ssl/certs/ca-certificates.crt", RSA),
            ("/etc/ssl/certs/site.CRT", SIGNED),
            ("/etc/ssl/server-key.pem", RSA),
            ("/etc/ssl/private/site.pem", RSA),
            ("/etc/ssl/notes.txt", RSA),
            ("/usr/share/ca-certificates/x.crt", RSA),
            ("/etc/letsencrypt/archive/a.example/cert1.pem", ED25519),
            ("/etc/letsencrypt/live/README", "x"),
        ]);
        host.link("/etc/ssl/certs/x.pem", "/usr/share/ca-certificates/x.crt");
        host.link(
            "/etc/letsencrypt/live/a.example/cert.pem",
            "../../archive/a.example/cert1.pem",
        );
        let paths: Vec<_> = certificates(&host)
            .iter()
            .map(|found| found["path"].clone())
            .collect();
        assert_eq!(
            paths,
            [
                "/etc/ssl/certs/site.CRT",
                "/etc/letsencrypt/live/a.example/cert.pem"
            ]
        );
    }

    /// Proves: RUL-4
    #[test]
    fn a_certificate_that_does_not_parse_is_in_the_list_with_everything_unknown() {
        let cut = &RSA[..RSA.len() / 2];
        let flipped = RSA.replacen("MII", "AII", 1);
        let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let noise = "-----BEGIN CERTIFICATE-----\n\0\u{1}é*\n-----END CERTIFICATE-----\n";
        for text in [cut, &flipped, empty, noise, "0"] {
            let found = certificates(&Fixture::new(&[("/etc/ssl/a.crt", text)]));
            assert_eq!(found.len(), 1, "{text}");
            for field in FIELDS {
                let unknown = Unknown::from_value(&found[0][field]).expect(field);
                assert_eq!(unknown.reason, Reason::Malformed, "{text}");
            }
        }
    }

    #[test]
    fn lines_of_any_length_and_text_around_are_read() {
        let one_line = RSA.replace('\n', "").replace(
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\n",
        );
        let windows = RSA.replace('\n', "\r\n");
        let with_text = format!(
            "Bag Attributes\n{RSA}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        );
        for text in [one_line, windows, with_text] {
            let found = certificates(&Fixture::new(&[("/etc/ssl/a.pem", &text)]));
            assert_eq!(
                (found.len(), &found[0]["key_bits"]),
                (1, &json!(2048)),
                "{text}"
            );
        }
        assert!(certificates(&Fixture::new(&[])).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_decoder(place in 0_usize..700, byte in 0_u8..=255) {
            let mut text = SIGNED.as_bytes().to_vec();
            let place = place % text.len();
            text[place] = byte;
            for block in blocks(&text) {
                fact("x", block);
            }
        }
    }
}
