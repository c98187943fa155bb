//! `holdfast policy`: keys, signatures, and what is in force.

use std::path::{Path, PathBuf};

use scan::policy::{
    self, Active, DOCUMENT_BYTES_MAX, Document, KEY_FILE, KEY_FILE_BYTES_MAX, KeyId, Offer,
    PrivateKey, PublicKey, Reason, Refused, Registry, Reloaded, Trust,
};
use world::{Disk, RealDisk, RealRandom, Timestamp};

use crate::{
    cli::{
        Output,
        policy::{Action, Key, Keygen, Reload, Revoke, Show, Sign, Trust as TrustKey, Verify},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment, named_file,
    present::{csv, safe, table},
    screen::Screen,
    site::{self, Site},
};

/// Fewer characters of a key id would be a guess.
const KEY_ID_PREFIX_MIN: usize = 8;

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Keygen(asked) => keygen(asked, config, screen),
        Action::Trust(asked) => trust(asked, config, screen),
        Action::Sign(asked) => sign(asked, config, screen),
        Action::Verify(asked) => verify(asked, config, screen),
        Action::Show(asked) => show(asked, config, screen),
        Action::Reload(asked) => reload(asked, config, screen),
        Action::Revoke(asked) => revoke(asked, config, screen),
    }
}

pub(super) fn refusal(refused: Refused) -> Refusal {
    Refusal::new(refused.to_string()).next(refused.next)
}

/// Runs `work` on the policies of the data directory, and closes it whatever comes of it.
fn with_registry<T>(
    config: &Config,
    screen: Screen,
    work: impl FnOnce(&Registry) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let site = Site::open(config, screen)?;
    let done = Registry::new(site.store().clone())
        .map_err(refusal)
        .and_then(|registry| work(&registry));
    site.close(screen);
    done
}

fn keygen(asked: &Keygen, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let path = match &asked.out {
        Some(out) => named_file::replaceable(out).map_err(|error| key_file(out, error))?,
        None => {
            let dir = keys_dir(config)?;
            RealDisk
                .create_dir_all_synced(&dir)
                .map_err(|error| key_file(&dir, error))?;
            dir.join(KEY_FILE)
        }
    };
    let there = RealDisk
        .stat(&path)
        .map_err(|error| key_file(&path, error))?;
    if there.is_some() && !asked.force {
        return Err(
            Refusal::new(format!("{} is there already", path.display())).next(
                "name another file with --out, or replace it with --force; nobody can sign with it then",
            ),
        );
    }
    let key = PrivateKey::generate(&RealRandom)
        .map_err(|error| Refusal::new("no random numbers").source(error))?;
    let public = key.public();
    let beside = PathBuf::from(format!("{}.pub", path.display()));
    RealDisk
        .replace(&path, key.to_pem().as_bytes())
        .and_then(|()| RealDisk.replace(&beside, public.to_pem().as_bytes()))
        .map_err(|error| key_file(&path, error))?;
    if asked.trust {
        with_registry(config, screen, |registry| {
            registry
                .trust(&public, super::now(), &super::actor())
                .map_err(refusal)
        })?;
    } else {
        screen.remark(format_args!(
            "it signs nothing yet: `holdfast policy trust {}` lets it",
            beside.display()
        ));
    }
    let text = match config.output.value {
        Output::Json => super::json(&serde_json::json!({
            "key_id": public.id(),
            "public_key": public.base64(),
            "private_key_file": path.display().to_string(),
            "public_key_file": beside.display().to_string(),
            "trusted": asked.trust,
        }))?,
        Output::Csv => csv::lines(
            ["key_id", "public_key"],
            [[public.id().to_string(), public.base64()]],
        ),
        Output::Table => format!(
            "key id       {}\npublic key   {}\nprivate key  {} (mode 0600; keep a copy where this machine cannot lose it)\n",
            public.id(),
            public.base64(),
            path.display()
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn keys_dir(config: &Config) -> Result<PathBuf, Refusal> {
    Ok(config.data_dir()?.join("keys"))
}

fn key_file(path: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(format!("key {}", path.display()))
        .source(error)
        .next("name a file in a directory that you may write")
}

fn trust(asked: &TrustKey, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let Some(file) = &asked.file else {
        return trusted(config, screen);
    };
    let key = read_public(file)?;
    let fresh = with_registry(config, screen, |registry| {
        registry
            .trust(&key, super::now(), &super::actor())
            .map_err(refusal)
    })?;
    let is = if fresh {
        "is trusted"
    } else {
        "was trusted already"
    };
    screen.remark(format_args!(
        "key {} {is}: what it signs may come into force here",
        key.id()
    ));
    Ok(Exit::Clean)
}

fn trusted(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let (keys, held) = with_registry(config, screen, |registry| {
        let keys = registry.trusted().map_err(refusal)?;
        Ok((keys, registry.trust_now().map_err(refusal)?))
    })?;
    let rows = keys.iter().map(|(id, row)| {
        let revoked = held.list.as_ref().and_then(|list| list.revoked.get(id));
        let standing = revoked.map_or("may sign".to_owned(), |why| format!("revoked: {why}"));
        let at = Timestamp::from_nanos(row.trusted_at);
        let at = match config.output.value {
            Output::Table => moment::local(at),
            _ => moment::rfc3339(at),
        };
        [
            id.to_string(),
            standing,
            at,
            row.trusted_by.clone(),
            row.public_key.clone(),
        ]
    });
    let names = [
        "key_id",
        "standing",
        "trusted_at",
        "trusted_by",
        "public_key",
    ];
    let text = match config.output.value {
        Output::Table => table::rows(["KEY ID", "STANDING", "SINCE", "BY", "PUBLIC KEY"], rows),
        Output::Csv => csv::lines(names, rows),
        Output::Json => {
            let documents: Vec<serde_json::Value> = rows
                .map(|row| names.into_iter().zip(row).collect())
                .collect();
            super::json(&documents)?
        }
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn read_public(file: &Path) -> Result<PublicKey, Refusal> {
    let refuse = || {
        Refusal::new(format!("public key {}", file.display()))
            .next("give the .pub file that `holdfast policy keygen` wrote, never the private key")
    };
    let bytes =
        named_file::read(file, KEY_FILE_BYTES_MAX).map_err(|error| refuse().source(error))?;
    str::from_utf8(&bytes)
        .ok()
        .and_then(PublicKey::parse)
        .ok_or_else(|| refuse().source("no Ed25519 public key in PEM or base64"))
}

/// The key to sign with, and who signs.
fn signer(asked: &Key, config: &Config) -> Result<(PrivateKey, String), Refusal> {
    let path = match &asked.key {
        Some(file) => file.clone(),
        None => keys_dir(config)?.join(KEY_FILE),
    };
    let path = named_file::regular(&path).map_err(|error| no_key(&path, error))?;
    let key = policy::read_key(&RealDisk, &path).map_err(|error| no_key(&path, error))?;
    let by = asked.by.clone().unwrap_or_else(super::actor);
    Ok((key, by))
}

fn no_key(path: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(format!("private key {}", path.display()))
        .source(error)
        .next("make one with `holdfast policy keygen --trust`, or name one with --key")
}

fn sign(asked: &Sign, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let refuse = |error| {
        Refusal::new(format!("policy {}", asked.file.display()))
            .source(error)
            .next("name a regular file in a directory that you may write")
    };
    let path = named_file::replaceable(&asked.file).map_err(refuse)?;
    let text = read_document(&asked.file)?;
    let text = String::from_utf8(text)
        .map_err(|error| Refusal::new(format!("policy {}", asked.file.display())).source(error))?;
    let (key, by) = signer(&asked.key, config)?;
    let signed = policy::sign(
        &text,
        &asked.file.display().to_string(),
        &key,
        &by,
        super::now(),
    )
    .map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Refusal::new(format!("not signed:\n  {}", lines.join("\n  ")))
            .next("mend it and sign it again")
    })?;
    RealDisk.replace(&path, signed.as_bytes()).map_err(refuse)?;
    screen.remark(format_args!(
        "signed by key {}; `holdfast policy reload {}` puts it in force",
        key.public().id(),
        asked.file.display()
    ));
    Ok(Exit::Clean)
}

fn read_document(file: &Path) -> Result<Vec<u8>, Refusal> {
    let bytes_max = u64::try_from(DOCUMENT_BYTES_MAX).expect("128 KiB fit");
    named_file::read(file, bytes_max).map_err(|error| {
        Refusal::new(format!("{}: {}", Reason::ParseError, file.display()))
            .source(error)
            .next("`holdfast policy show > FILE` writes a policy to start from")
    })
}

/// Exits with 1 when something is wrong with it.
fn verify(asked: &Verify, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let bytes = read_document(&asked.file)?;
    let held = if asked.keys.is_empty() {
        let made = config.data_dir()?.join("journal");
        match RealDisk.stat(&made) {
            // A question creates nothing: without a data directory no key is trusted.
            Ok(None) => Trust::default(),
            _ => with_registry(config, screen, |registry| {
                registry.trust_now().map_err(refusal)
            })?,
        }
    } else {
        let keys = asked.keys.iter().map(|file| read_public(file));
        let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
        Trust {
            keys: keys.into_iter().map(|key| (key.id(), key)).collect(),
            ..Trust::default()
        }
    };
    let (document, wrong) = held.examine(&bytes, &asked.file.display().to_string(), super::now());
    let text = match config.output.value {
        Output::Json => super::json(&serde_json::json!({
            "file": asked.file.display().to_string(),
            "good": wrong.is_empty(),
            "version": document.as_ref().map(|document| document.policy.version),
            "wrong": wrong.iter().map(|refused| serde_json::json!({
                "reason": refused.reason, "detail": refused.detail, "next": refused.next,
            })).collect::<Vec<_>>(),
            "clamps": document.as_ref().map(|document| document.policy.clamps.iter().map(clamp_words).collect::<Vec<_>>()),
        }))?,
        Output::Csv => csv::lines(
            ["reason", "detail", "next"],
            wrong.iter().map(|refused| {
                [
                    refused.reason.to_string(),
                    refused.detail.clone(),
                    refused.next.clone(),
                ]
            }),
        ),
        Output::Table => verdict_words(document.as_ref(), &wrong),
    };
    screen.result(&text)?;
    Ok(if wrong.is_empty() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}

fn verdict_words(document: Option<&Document>, wrong: &[Refused]) -> String {
    let mut text = String::new();
    if let Some(document) = document {
        for clamp in &document.policy.clamps {
            text.push_str(&format!("clamped: {}\n", clamp_words(clamp)));
        }
        if wrong.is_empty() {
            text.push_str(&format!(
                "good: version {} may come into force\n",
                document.policy.version
            ));
        }
    }
    for refused in wrong {
        let detail: Vec<String> = refused.detail.split('\n').map(safe).collect();
        text.push_str(&format!(
            "{}: {}\n  {}\n",
            refused.reason,
            detail.join("\n"),
            refused.next
        ));
    }
    text
}

fn clamp_words(clamp: &policy::Clamp) -> String {
    format!(
        "{} {} becomes {}",
        clamp.tier,
        policy::span_words(clamp.original),
        policy::span_words(clamp.clamped)
    )
}

fn show(asked: &Show, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if asked.history {
        return history(config, screen);
    }
    let found = with_registry(config, screen, |registry| {
        match registry.in_force(super::now()) {
            Ok(active) => Ok(Some(active)),
            Err(refused) if refused.reason == Reason::PolicyMissing => Ok(None),
            Err(refused) => Err(refusal(refused)),
        }
    })?;
    let unsigned = match &found {
        Some(active) => active.document.unsigned(),
        None => policy::built_in_text(),
    };
    let text = match config.output.value {
        Output::Json => super::json(&shown(found.as_ref(), &unsigned))?,
        _ => unsigned,
    };
    screen.result(&text)?;
    match found {
        Some(active) => screen.remark(format_args!(
            "version {} is in force since {}, signed by key {}\nto change it: edit it, raise `version` to {} or higher, `holdfast policy sign FILE`, `holdfast policy reload FILE`",
            active.loaded.version,
            moment::local(Timestamp::from_nanos(active.loaded.loaded_at)),
            active.loaded.key_id,
            active.loaded.version.next(),
        )),
        None => screen.remark(
            "no policy is in force; these are the built-in defaults, which `holdfast up` signs by itself on a first start",
        ),
    }
    Ok(Exit::Clean)
}

fn shown(active: Option<&Active>, unsigned: &str) -> serde_json::Value {
    serde_json::json!({
        "version": active.map(|active| active.loaded.version),
        "key_id": active.map(|active| active.loaded.key_id.clone()),
        "sha256": active.map(|active| active.loaded.sha256.clone()),
        "loaded_at": active.map(|active| moment::rfc3339(Timestamp::from_nanos(active.loaded.loaded_at))),
        "loaded_by": active.map(|active| active.loaded.loaded_by.clone()),
        "signed_by": active.and_then(|active| active.document.metadata.signed_by.clone()),
        "document": unsigned,
    })
}

fn history(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let rows = with_registry(config, screen, |registry| {
        registry.history().map_err(refusal)
    })?;
    let is_table = config.output.value == Output::Table;
    let rows = rows.iter().map(|row| {
        let at = Timestamp::from_nanos(row.loaded_at);
        let at = if is_table {
            moment::local(at)
        } else {
            moment::rfc3339(at)
        };
        [
            row.version.to_string(),
            at,
            row.loaded_by.clone(),
            row.key_id.to_string(),
            row.sha256.clone(),
        ]
    });
    let names = ["version", "loaded_at", "loaded_by", "key_id", "sha256"];
    let text = match config.output.value {
        Output::Table => table::rows(
            [
                "VERSION",
                "IN FORCE SINCE",
                "LOADED BY",
                "KEY ID",
                "SHA-256",
            ],
            rows,
        ),
        Output::Csv => csv::lines(names, rows),
        Output::Json => {
            let documents: Vec<serde_json::Value> = rows
                .map(|row| names.into_iter().zip(row).collect())
                .collect();
            super::json(&documents)?
        }
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn reload(asked: &Reload, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let named = |file: &PathBuf| -> Result<(Vec<u8>, String), Refusal> {
        Ok((read_document(file)?, file.display().to_string()))
    };
    let policy = asked.file.as_ref().map(named).transpose()?;
    let list = asked.revocations.as_ref().map(named).transpose()?;
    let offer = Offer {
        policy: policy
            .as_ref()
            .map(|(bytes, file)| (bytes.as_slice(), file.as_str())),
        list: list
            .as_ref()
            .map(|(bytes, file)| (bytes.as_slice(), file.as_str())),
    };
    let done = with_registry(config, screen, |registry| {
        registry
            .reload(offer, super::now(), &super::actor())
            .map_err(refusal)
    })?;
    site::changed(config.data_dir()?, screen);
    tell_reloaded(&done, screen);
    Ok(Exit::Clean)
}

fn tell_reloaded(done: &Reloaded, screen: Screen) {
    let how = if done.changed {
        ""
    } else {
        " already; nothing was changed"
    };
    if let Some(active) = &done.active {
        screen.remark(format_args!(
            "version {} is in force{how}",
            active.loaded.version
        ));
        for clamp in &active.policy().clamps {
            screen.remark(format_args!("clamped: {}", clamp_words(clamp)));
        }
    }
    if done.active_key_revoked {
        screen.remark("its key is revoked: `up` dispatches nothing until one signed with another key is reloaded");
    }
}

fn revoke(asked: &Revoke, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let span = moment::parse_span(&asked.valid_for).ok_or_else(|| {
        Refusal::new(format!("`{}` is no span", asked.valid_for)).next("write 90d")
    })?;
    let out = asked
        .out
        .as_ref()
        .map(|out| named_file::replaceable(out).map_err(|error| key_file(out, error)))
        .transpose()?;
    let (key, by) = signer(&asked.signer, config)?;
    let now = super::now();
    let (list, done) = with_registry(config, screen, |registry| {
        let id = key_named(registry, &asked.key_id)?;
        registry
            .revoke(&id, &asked.reason, now.plus(span), &key, now, &by)
            .map_err(refusal)
    })?;
    if let Some(out) = out {
        RealDisk
            .replace(&out, list.text().as_bytes())
            .map_err(|error| key_file(&out, error))?;
    }
    let keys = match list.revoked.len() {
        1 => "1 key".to_owned(),
        more => format!("{more} keys"),
    };
    screen.remark(format_args!(
        "revocation list {} is in force: {keys}, until {}",
        list.serial,
        moment::local(list.expires)
    ));
    site::changed(config.data_dir()?, screen);
    tell_reloaded(&done, screen);
    Ok(Exit::Clean)
}

/// A whole id may be of a key that was never trusted here; a part of one must name one that is.
fn key_named(registry: &Registry, text: &str) -> Result<KeyId, Refusal> {
    if let Some(id) = KeyId::parse(text) {
        return Ok(id);
    }
    let keys = registry.trusted().map_err(refusal)?;
    let mut near = keys
        .into_iter()
        .map(|(id, _)| id)
        .filter(|id| text.len() >= KEY_ID_PREFIX_MIN && id.as_str().starts_with(text));
    match (near.next(), near.next()) {
        (Some(id), None) => Ok(id),
        _ => Err(Refusal::new(format!("`{text}` names no key"))
            .next("`holdfast policy trust` lists the ids; 8 characters or more are enough")),
    }
}
