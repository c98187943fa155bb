//! The files that rules name: attributes, text, hashes.
//!
//! These facts are open: they hold what was asked for and nothing else. Text that is a secret by
//! its place is not collected, whoever asks: evidence is kept for ever.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Links, Stat},
};

/// One configuration file. The longest of a Debian system (services, mime types) have 70 KiB.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// One hashed file: programs and libraries, not images.
const HASHED_BYTES_MAX: usize = 256 << 20;

const SECONDS_A_DAY: i64 = 86_400;

/// Places whose text is a secret, by the beginning of the path. Attributes and hashes of keys and
/// password files give nothing away; a hash of a short password file would not help either, but
/// rules have no use for it.
const SECRET: &[&str] = &[
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/security/opasswd",
    "/etc/ssh/ssh_host_",
    "/etc/ssl/private/",
    "/etc/krb5.keytab",
    "/var/backups/shadow",
    "/var/backups/gshadow",
];

const CLOSED_DIRS: super::Privilege = super::Privilege::Partly("files closed to others");

pub(super) const FILES: Collector = Collector {
    name: "files",
    about: "attributes of the files that rules name; links are not followed",
    reads: &["attributes of the files that rules name"],
    privilege: super::Privilege::Partly("directories closed to others"),
    patterns: &[
        FactPattern::open("files", "attributes by path"),
        FactPattern::closed(
            "files[*]",
            Shape::Map,
            "one file; `exists` alone when it is not there",
        ),
        FactPattern::closed("files[*].exists", Shape::Bool, "whether it is there"),
        FactPattern::closed("files[*].kind", Shape::Text, "file, dir, link, other"),
        FactPattern::closed("files[*].mode", Shape::Text, "0644"),
        FactPattern::closed("files[*].owner", Shape::Text, "name, or number without one"),
        FactPattern::closed("files[*].group", Shape::Text, "name, or number without one"),
        FactPattern::closed("files[*].uid", Shape::Int, "owner's number"),
        FactPattern::closed("files[*].gid", Shape::Int, "group's number"),
        FactPattern::closed("files[*].size", Shape::Int, "bytes"),
        FactPattern::closed(
            "files[*].mtime_day",
            Shape::Int,
            "last change, days since 1970",
        ),
    ],
    collect: collect_files,
    ..Collector::DEFAULT
};

pub(super) const TEXT: Collector = Collector {
    name: "text",
    about: "lines of the configuration files that rules name",
    reads: &["files that rules name, except where passwords and keys lie"],
    privilege: CLOSED_DIRS,
    patterns: &[
        FactPattern::open("text", "lines by path"),
        FactPattern::closed("text[*]", Shape::Map, "one file"),
        FactPattern::closed("text[*].exists", Shape::Bool, "whether it is there"),
        FactPattern::closed("text[*].lines", Shape::List, "its lines, comments too"),
    ],
    collect: collect_text,
    ..Collector::DEFAULT
};

pub(super) const HASHES: Collector = Collector {
    name: "hashes",
    about: "SHA-256 of the files that rules name",
    reads: &["files that rules name"],
    privilege: CLOSED_DIRS,
    patterns: &[
        FactPattern::open("hashes", "hashes by path"),
        FactPattern::closed("hashes[*]", Shape::Map, "one file"),
        FactPattern::closed("hashes[*].exists", Shape::Bool, "whether it is there"),
        FactPattern::closed("hashes[*].sha256", Shape::Text, "lower case hexadecimal"),
    ],
    collect: collect_hashes,
    ..Collector::DEFAULT
};

fn collect_files(context: &Context<'_>) -> Result<Value, Unknown> {
    let asked = context.needs.files.iter();
    Ok(Value::Object(
        asked
            .map(|path| (path.clone(), file(context, path)))
            .collect(),
    ))
}

fn file(context: &Context<'_>, path: &str) -> Value {
    match context.stat(path, Links::Keep) {
        Found::Present(stat) => {
            let mut fields = Map::new();
            fields.insert("exists".into(), true.into());
            attributes(context, &stat, &mut fields);
            let day = stat.mtime_seconds.div_euclid(SECONDS_A_DAY);
            fields.insert("mtime_day".into(), day.into());
            Value::Object(fields)
        }
        Found::Absent => json!({"exists": false}),
        Found::Unknown(unknown) => unknown.into(),
    }
}

/// Kind, mode, owner, group and size, as every fact about files has them.
pub(super) fn attributes(context: &Context<'_>, stat: &Stat, fields: &mut Map<String, Value>) {
    fields.insert("kind".into(), stat.kind.as_str().into());
    fields.extend(context.ownership(stat.mode, stat.uid, stat.gid));
    fields.insert("uid".into(), stat.uid.into());
    fields.insert("gid".into(), stat.gid.into());
    fields.insert("size".into(), stat.size.into());
}

fn collect_text(context: &Context<'_>) -> Result<Value, Unknown> {
    let asked = context.needs.text.iter();
    Ok(Value::Object(
        asked
            .map(|path| (path.clone(), part(text(context, path))))
            .collect(),
    ))
}

fn text(context: &Context<'_>, path: &str) -> Result<Value, Unknown> {
    if SECRET.iter().any(|place| path.starts_with(place)) {
        let detail = format!("{path}: holds secrets, its text is never collected");
        return Err(Unknown::new(Reason::Unsupported, detail));
    }
    let mut content = Vec::new();
    let mut take = |piece: &[u8]| content.extend_from_slice(piece);
    if context
        .stream(path, TEXT_BYTES_MAX, &mut take)
        .known()?
        .is_none()
    {
        return Ok(json!({"exists": false}));
    }
    let text = String::from_utf8_lossy(&content);
    Ok(json!({"exists": true, "lines": text.lines().collect::<Vec<_>>()}))
}

fn collect_hashes(context: &Context<'_>) -> Result<Value, Unknown> {
    let asked = context.needs.hashes.iter();
    Ok(Value::Object(
        asked
            .map(|path| (path.clone(), part(hash(context, path))))
            .collect(),
    ))
}

fn hash(context: &Context<'_>, path: &str) -> Result<Value, Unknown> {
    Ok(match context.hash(path, HASHED_BYTES_MAX).known()? {
        Some(hash) => json!({"exists": true, "sha256": hash}),
        None => json!({"exists": false}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    fn host() -> Fixture {
        Fixture::new(&[
            ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("/etc/group", "root:x:0:\nshadow:x:42:\n"),
            ("/etc/issue", "Debian\n# kept\n"),
            ("/etc/shadow", "root:$y$secret:1::::::\n"),
        ])
    }

    fn ask(paths: &[&str]) -> std::collections::BTreeSet<String> {
        paths.iter().map(|&path| path.to_owned()).collect()
    }

    #[test]
    fn attributes_are_the_links_own_and_a_missing_file_is_known_to_be_missing() {
        let mut host = host();
        host.chmod("/etc/shadow", 0o4640);
        host.link("/etc/motd", "/run/motd");
        host.needs.files = ask(&["/etc/shadow", "/etc/motd", "/etc/nologin", "/etc/issue/x"]);
        let fact = host.collect(&FILES);
        assert_eq!(fact["/etc/shadow"]["mode"], "4640");
        assert_eq!(fact["/etc/shadow"]["kind"], "file");
        assert_eq!(fact["/etc/shadow"]["size"], 23);
        assert!(fact["/etc/shadow"]["mtime_day"].as_i64().unwrap() > 20_000);
        assert_eq!(fact["/etc/motd"]["kind"], "link");
        for path in ["/etc/nologin", "/etc/issue/x"] {
            assert_eq!(fact[path], json!({"exists": false}));
        }
    }

    #[test]
    fn text_keeps_comments_and_refuses_secrets_directories_and_long_files() {
        let mut host = host();
        host.write("/etc/long", &vec![b'a'; TEXT_BYTES_MAX + 1]);
        host.write("/etc/noise", b"a\xff\xfe\0b\n");
        let paths = [
            "/etc/issue",
            "/etc/shadow",
            "/etc",
            "/etc/long",
            "/none",
            "/etc/noise",
        ];
        host.needs.text = ask(&paths);
        let fact = host.collect(&TEXT);
        let reason = |path: &str| Unknown::from_value(&fact[path]).map(|unknown| unknown.reason);
        let lines = json!({"exists": true, "lines": ["Debian", "# kept"]});
        assert_eq!(fact["/etc/issue"], lines);
        assert_eq!(reason("/etc/shadow"), Some(Reason::Unsupported));
        assert_eq!(reason("/etc"), Some(Reason::Unreadable));
        assert_eq!(reason("/etc/long"), Some(Reason::Truncated));
        assert_eq!(fact["/none"], json!({"exists": false}));
        assert_eq!(fact["/etc/noise"]["lines"], json!(["a\u{fffd}\u{fffd}\0b"]));
        assert!(!fact.to_string().contains("secret:"), "{fact}");
    }

    #[test]
    fn hashes_are_those_of_the_published_vector() {
        let mut host = host();
        host.write("/bin/abc", b"abc");
        host.needs.hashes = ask(&["/bin/abc", "/bin/none"]);
        let fact = host.collect(&HASHES);
        // FIPS 180-4, the one-block example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fact["/bin/abc"], json!({"exists": true, "sha256": abc}));
        assert_eq!(fact["/bin/none"], json!({"exists": false}));
    }
}
