//! `holdfast ledger`: what shows that nothing was tampered with.

use std::{collections::BTreeMap, io, path::Path};

use indicatif::{ProgressBar, ProgressStyle};
use scan::{
    audit::{Audit, Filter, Record},
    policy::{KEY_FILE_BYTES_MAX, PublicKey},
    seal::{self, Asked, Book, Error, Export, Kind, Outcome, Reason, Sealed},
};
use serde_json::{Value, json};
use world::{Clock, Disk, RealClock, RealDisk, RealRandom, disk::Lock};

use crate::{
    cli::{
        Output,
        ledger::{KeyAction, LedgerAction, LedgerExport, Target, Verify},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment, named_file, node,
    present::counted,
    screen::Screen,
    sealing,
    site::{self, Site},
};

/// In `keys/`, held while the key is changed.
const KEY_LOCK: &str = "ledger.key.lock";

/// Lines between two looks at the terminal.
const TOLD_EVERY: u64 = 500;

/// Digits of a SHA-256.
const DIGEST_LEN: usize = 64;

pub(crate) fn run(action: &LedgerAction, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        LedgerAction::Seal => seal(config, screen),
        LedgerAction::Verify(asked) => verify(asked, Kind::Ledger, config, screen),
        LedgerAction::Export(asked) => export(asked, config, screen),
        LedgerAction::Key(key) => match &key.action {
            KeyAction::Show => show_key(config, screen),
            KeyAction::Rotate => rotate_key(config, screen),
            KeyAction::Replace(_) => replace_key(config, screen),
        },
    }
}

fn seal(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let sealed = sealing::state(&site, Reason::Asked).map_err(refused);
    site.close(screen);
    if let Some(sealed) = sealed? {
        screen.result(&told(&sealed, config)?)?;
    }
    Ok(Exit::Clean)
}

fn told(sealed: &Sealed, config: &Config) -> Result<String, Refusal> {
    let row = &sealed.signed.row;
    if config.output.value == Output::Json {
        return super::json(&json!({
            "sequence": row.sequence,
            "sha256": row.digest(),
            "time": row.made.to_string(),
            "hosts": row.hosts.count,
            "audit_records": row.audit.records,
            "key": row.key,
        }));
    }
    Ok(format!(
        "statement {} over {} and {}, signed by {}\nnote {}:{} to show later that nothing before it was rewritten\n",
        row.sequence,
        counted(row.hosts.count, "host"),
        counted(row.audit.records, "audit record"),
        row.key,
        row.sequence,
        row.digest(),
    ))
}

fn show_key(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let key = Book::new(site.store().clone())
        .and_then(|book| book.key(&RealDisk, &site.keys_dir(), &RealRandom))
        .map_err(refused);
    site.close(screen);
    let public = key?.public();
    screen.result(&match config.output.value {
        Output::Json => super::json(&json!({ "key": public.base64(), "pem": public.to_pem() }))?,
        Output::Table | Output::Csv => format!("{}\n{}", public.base64(), public.to_pem()),
    })?;
    Ok(Exit::Clean)
}

fn rotate_key(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let rotated = rotate(&site).map_err(refused);
    site.close(screen);
    screen.result(&told(&rotated?, config)?)?;
    screen.remark("give the public key to whoever verifies: `holdfast ledger key show`");
    Ok(Exit::Clean)
}

/// The next key on disk, its statement, and only then its name: after a crash in between the statement
/// says which of the two it is.
fn rotate(site: &Site) -> Result<Sealed, Error> {
    let (book, keys) = (Book::new(site.store().clone())?, site.keys_dir());
    let _lock = hold_key(&keys)?;
    let before = book.key(&RealDisk, &keys, &RealRandom)?;
    let next = seal::key::prepare(&RealDisk, &keys, &RealRandom)?;
    node::carry_keys(site.dir()).map_err(Error::Key)?;
    let sealed = book.rotate(&before, &next, &RealRandom, super::now())?;
    seal::key::promote(&RealDisk, &keys)?;
    Ok(sealed)
}

/// Two that rotate at once would put the one's key under the other's statement.
fn hold_key(keys: &Path) -> Result<Box<dyn Lock>, Error> {
    let held = RealDisk.lock(&keys.join(KEY_LOCK), "holdfast ledger key");
    held.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            Error::Key("the ledger key is being changed by another command".to_owned())
        }
        _ => Error::Io(error),
    })
}

fn replace_key(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let replaced = replace(&site);
    site.close(screen);
    screen.result(&told(&replaced?, config)?)?;
    screen.remark(
        "give the public key to whoever verifies, by a way of its own: nothing that was signed before vouches for it",
    );
    Ok(Exit::Clean)
}

/// On record before the statement, which covers the record. The key is on disk before its statement and
/// gets its name after it, as in a rotation.
fn replace(site: &Site) -> Result<Sealed, Refusal> {
    let (store, keys) = (site.store(), site.keys_dir());
    let book = Book::new(store.clone()).map_err(refused)?;
    let snapshot = store.snapshot().map_err(|error| refused(error.into()))?;
    if book.count(&snapshot).map_err(refused)? == 0 {
        return Err(Refusal::new("nothing was signed yet, so no key is lost")
            .next("`holdfast ledger seal` makes the first statement, and its key"));
    }
    if book.key(&RealDisk, &keys, &RealRandom).is_ok() {
        return Err(Refusal::new("keys/ledger.key is there and signs")
            .next("`holdfast ledger key rotate` changes it, with its word for the next one"));
    }
    let there = RealDisk.stat(&keys.join(seal::key::KEY_FILE));
    if there.is_ok_and(|found| found.is_some()) {
        return Err(Refusal::new(
            "keys/ledger.key is another key than the one that signed the newest statement",
        )
        .next("move it aside first: it may be another site's"));
    }
    let _lock = hold_key(&keys).map_err(refused)?;
    let next = seal::key::prepare(&RealDisk, &keys, &RealRandom).map_err(refused)?;
    node::carry_keys(site.dir())
        .map_err(|why| Refusal::new(why).next("nothing was changed; try again then"))?;
    let record = Record::new(
        super::now(),
        &super::actor(),
        "ledger.key_replaced",
        "keys/ledger.key",
        json!({ "key": next.public().base64() }),
    );
    let audited = Audit::of(store).and_then(|audit| {
        let mut transaction = store.begin()?;
        audit.append(&mut transaction, &record)?;
        transaction.commit()
    });
    audited.map_err(|error| refused(error.into()))?;
    let sealed = book.replace_lost(&next, &RealRandom, super::now());
    let sealed = sealed.map_err(refused)?;
    seal::key::promote(&RealDisk, &keys).map_err(refused)?;
    Ok(sealed)
}

fn export(asked: &LedgerExport, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let only = (!asked.host.is_empty()).then(|| asked.host.iter().cloned().collect());
    let wanted = Asked {
        kind: Kind::Ledger,
        only,
        filter: Filter::default(),
        with_evidence: true,
    };
    write_export(&asked.target, &wanted, config, screen)
}

/// States where everything stands, so that the export is covered to its end, and writes it.
pub(super) fn write_export(
    target: &Target,
    asked: &Asked,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let to = target_path(target)?;
    let site = Site::open_existing(config, screen)?;
    let unknown = asked.only.iter().flatten().find(|name| {
        let status = site.ledger().status(name, None);
        status.is_ok_and(|found| found.is_none())
    });
    if let Some(unknown) = unknown {
        let refusal = Refusal::new(format!("no scan of a host `{unknown}` is recorded"));
        site.close(screen);
        return Err(refusal.next("`holdfast status --all` prints the names"));
    }
    let bar = bar(screen, "exporting");
    let written = sealing::state(&site, Reason::Export).and_then(|_| {
        let book = Book::new(site.store().clone())?;
        let key = book.key(&RealDisk, &site.keys_dir(), &RealRandom)?;
        let export = Export {
            disk: &RealDisk,
            to: &to,
            compressed: to.extension().is_some_and(|extension| extension == "zst"),
            key: Some(&key),
            made: RealClock::new().now(),
            stop: &stop,
        };
        export.write(site.store(), asked, &mut |lines| show(&bar, lines))
    });
    bar.finish_and_clear();
    site.close(screen);
    let outcome = written.map_err(|error| match error {
        Error::Io(error) => Refusal::new(format!("export to {}", to.display()))
            .source(error)
            .next("name a file in a directory with space, where you may write"),
        other => refused(other),
    })?;
    screen.remark(format_args!(
        "{} to {}",
        amount(&outcome, asked.kind),
        to.display()
    ));
    if let Some((newest, digest)) = &outcome.newest {
        screen.remark(format_args!(
            "verify it with `holdfast {} verify --export FILE --key {}`; its newest statement is {}:{digest}",
            name(asked.kind), newest.key, newest.sequence
        ));
    }
    Ok(Exit::Clean)
}

fn target_path(target: &Target) -> Result<std::path::PathBuf, Refusal> {
    let unwritable = |error: io::Error| {
        Refusal::new(format!("export to {}", target.to.display()))
            .source(error)
            .next("name a file in a directory where you may write")
    };
    let to = named_file::replaceable(&target.to).map_err(unwritable)?;
    if RealDisk.stat(&to).map_err(unwritable)?.is_some() && !target.force {
        return Err(Refusal::new(format!("{} is there already", to.display()))
            .next("name another file, or replace it with --force"));
    }
    Ok(to)
}

/// Judges this data directory or an export, of which `kind` is wanted.
pub(super) fn verify(
    asked: &Verify,
    kind: Kind,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let stop = site::stop_flag()?;
    let key = asked.key.as_deref().map(public_key).transpose()?;
    let noted = noted(&asked.noted)?;
    let bar = bar(screen, "verifying");
    let mut told = |lines| show(&bar, lines);
    let judged = match &asked.export {
        Some(path) => named_file::open(path)
            .map_err(Error::Io)
            .and_then(|file| seal::verify_file(&file, key, noted, &stop, &mut told))
            .map_err(|error| (error, Some(path.as_path()))),
        None => {
            let site = Site::open_existing(config, screen)?;
            let judged = match Audit::of(site.store()) {
                Ok(audit) => audit.link(site.store()).map_err(Error::from),
                Err(error) => Err(error.into()),
            }
            .and_then(|_| seal::verify_store(site.store(), kind, key, noted, &stop, &mut told));
            site.close(screen);
            judged.map_err(|error| (error, None))
        }
    };
    bar.finish_and_clear();
    match judged {
        Ok(outcome) => {
            screen.result(&sound(&outcome, kind, config)?)?;
            Ok(Exit::Clean)
        }
        Err((Error::Wrong(wrong), _)) => {
            screen.result(&match config.output.value {
                Output::Json => {
                    super::json(&json!({ "sound": false, "what": wrong.what, "why": wrong.why }))?
                }
                Output::Table | Output::Csv => format!("TAMPERED WITH OR DAMAGED\n{wrong}\n"),
            })?;
            screen.remark("what comes after the first fault was not looked at");
            Ok(Exit::Findings)
        }
        Err((Error::Io(error), Some(path))) => {
            Err(Refusal::new(format!("read {}", path.display()))
                .source(error)
                .next("name an export that you may read"))
        }
        Err((error, _)) => Err(refused(error)),
    }
}

fn public_key(text: &str) -> Result<PublicKey, Refusal> {
    let refuse = || {
        Refusal::new("--key is no Ed25519 public key, and no file with one")
            .next("`holdfast ledger key show` prints it where the ledger is")
    };
    if let Some(key) = PublicKey::parse(text) {
        return Ok(key);
    }
    let bytes = named_file::read(Path::new(text), KEY_FILE_BYTES_MAX).map_err(|_| refuse())?;
    // As `ledger key show` prints it: base64 first, then PEM.
    let text = str::from_utf8(&bytes).map_err(|_| refuse())?;
    let pem = text.find("-----BEGIN").map_or(text, |at| &text[at..]);
    PublicKey::parse(pem).ok_or_else(refuse)
}

fn noted(texts: &[String]) -> Result<BTreeMap<u64, String>, Refusal> {
    texts
        .iter()
        .map(|text| {
            text.split_once(':')
                .and_then(|(sequence, digest)| Some((sequence.parse().ok()?, digest)))
                .filter(|(_, digest)| {
                    digest.len() == DIGEST_LEN
                        && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
                })
                .map(|(sequence, digest)| (sequence, digest.to_ascii_lowercase()))
                .ok_or_else(|| {
                    Refusal::new(format!("`{text}` is no noted statement"))
                        .next("write it as `ledger seal` and `ledger verify` print it: 12:SHA256")
                })
        })
        .collect()
}

fn sound(outcome: &Outcome, kind: Kind, config: &Config) -> Result<String, Refusal> {
    if config.output.value == Output::Json {
        return super::json(&document(outcome));
    }
    let mut text = format!("sound: {}\n", amount(outcome, kind));
    match &outcome.newest {
        Some((newest, digest)) => {
            text += &format!(
                "newest statement {}:{digest}\nmade {}, signed by {}\n",
                newest.sequence,
                moment::local(newest.made.0),
                newest.key
            );
        }
        None => {
            text += "no statement yet: whoever can write here could have made all of it; `holdfast ledger seal` makes one\n"
        }
    }
    for lost in &outcome.keys_lost {
        text += &format!(
            "statement {}, made {}, says that the key before it was lost ({}): from there on {} signs, and nothing that was signed before vouches for it\n",
            lost.sequence,
            moment::local(lost.made.0),
            lost.before,
            lost.key
        );
    }
    let (behind, noun) = match kind {
        Kind::Ledger => (outcome.unsealed_scans, "scan"),
        Kind::Audit => (outcome.unsealed_records, "audit record"),
    };
    if outcome.newest.is_some() && behind > 0 {
        text += &format!(
            "{} after it, chained and not signed for yet\n",
            counted(behind, noun)
        );
    }
    Ok(text)
}

fn document(outcome: &Outcome) -> Value {
    json!({
        "sound": true,
        "hosts": outcome.hosts,
        "scans": outcome.scans,
        "changes": outcome.changes,
        "verdicts": outcome.verdicts,
        "evidence": outcome.evidence,
        "records": outcome.records,
        "withheld": outcome.withheld,
        "statements": outcome.statements,
        "unsealed_scans": outcome.unsealed_scans,
        "unsealed_records": outcome.unsealed_records,
        "keys_lost": outcome.keys_lost.iter().map(|lost| json!({
            "sequence": lost.sequence,
            "time": lost.made.to_string(),
            "before": lost.before,
            "key": lost.key,
        })).collect::<Vec<_>>(),
        "newest": outcome.newest.as_ref().map(|(newest, digest)| json!({
            "sequence": newest.sequence,
            "sha256": digest,
            "time": newest.made.to_string(),
            "key": newest.key,
            "site": newest.site,
        })),
    })
}

fn amount(outcome: &Outcome, kind: Kind) -> String {
    let statements = counted(outcome.statements, "statement");
    match kind {
        Kind::Ledger => format!(
            "{}, {}, {}, {statements}",
            counted(outcome.hosts, "host"),
            counted(outcome.scans, "scan"),
            counted(outcome.changes, "change"),
        ),
        Kind::Audit => format!(
            "{}, {} withheld, {statements}",
            counted(outcome.records, "record"),
            outcome.withheld
        ),
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Audit => "audit",
        Kind::Ledger => "ledger",
    }
}

fn bar(screen: Screen, doing: &'static str) -> ProgressBar {
    if !screen.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}  {human_pos} lines, {elapsed}")
        .expect("the template is valid");
    ProgressBar::new_spinner()
        .with_style(style)
        .with_message(doing)
}

fn show(bar: &ProgressBar, lines: u64) {
    if lines.is_multiple_of(TOLD_EVERY) {
        bar.set_position(lines);
    }
}

/// What was not sealed, exported or verified to its end, as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn refused(error: Error) -> Refusal {
    let next = match &error {
        Error::Wrong(_) => {
            "`holdfast ledger verify` and `holdfast audit verify` tell where; nothing was written"
        }
        Error::Key(_) => {
            "put keys/ledger.key back from its backup, or copy it from the machine that made it; if there is none any more: `holdfast ledger key replace --lost`"
        }
        Error::Stopped => "run it again; nothing was left behind",
        Error::Store(_) | Error::Io(_) | Error::Row(_) => {
            "run `holdfast doctor` to check disk and data directory"
        }
    };
    Refusal::new(error.to_string()).next(next)
}
