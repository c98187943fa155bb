//! `holdfast host trust`, and the part of `host add` that is the same: whose word a host's key is
//! taken on.

use std::{
    io::{self, BufRead, IsTerminal, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::scan::{
    inventory::{Host, Reach},
    known_hosts::{self, Check, Known, PublicKey, fingerprint},
    ssh::{self, Endpoint, Patience},
};
use world::RealClock;

use crate::{
    cli::host::{Trust, Vouching},
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::{counted, safe},
    screen::Screen,
    site::{Site, fleet_refused},
};

pub(super) fn run(asked: &Trust, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if asked.export {
        let site = Site::open_fleet(config, screen)?;
        let text = site.known_hosts()?.export().map_err(fleet_refused)?;
        site.close(screen);
        if !text.is_empty() {
            screen.result(&text)?;
        }
        return Ok(Exit::Clean);
    }
    if let Some(file) = &asked.known_hosts {
        return take_over(file, config, screen);
    }
    one_host(asked, config, screen)
}

fn one_host(asked: &Trust, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let name = asked.name.as_deref().unwrap_or_default();
    let site = Site::open_fleet(config, screen)?;
    let host = site
        .inventory()?
        .get(name)
        .map_err(fleet_refused)?
        .ok_or_else(|| super::no_host(name))?;
    let known = super::known(&site, &host)?;
    site.close(screen);
    let (Some(known), Reach::Ssh { address, port, .. }) = (known, &host.reach) else {
        return Err(
            Refusal::new(format!("host `{name}` is not reached over SSH"))
                .next("there is no key to trust"),
        );
    };
    let before = if asked.replace {
        Known::in_file("", address, *port).map_err(fleet_refused)?
    } else {
        known
    };
    let keys = keys_of(&before, &host, &asked.vouching, false, screen)?;
    let site = Site::open_fleet(config, screen)?;
    let (inventory, known_hosts) = (site.inventory()?, site.known_hosts()?);
    let at = crate::command::now();
    let added = inventory
        .transact(|transaction| {
            if asked.replace {
                known_hosts.forget_in(transaction, address, *port)?;
            }
            let mut added = 0;
            for key in &keys {
                added += u64::from(known_hosts.trust_in(transaction, address, *port, key, at)?);
            }
            Ok(added)
        })
        .map_err(fleet_refused)?;
    super::finish(site, screen);
    let said = if added > 0 {
        "trusted"
    } else {
        "trusted already"
    };
    for key in &keys {
        screen.result(&safe(&format!("host {name}: {} {said}", shown(key))))?;
    }
    Ok(Exit::Clean)
}

/// The keys that a host that is to be added is known by. None where they are on record.
pub(super) fn vouched_for(
    known: &Known,
    host: &Host,
    vouching: &Vouching,
    screen: Screen,
) -> Result<Vec<PublicKey>, Refusal> {
    let is_silent = vouching.accept_key.is_none() && vouching.key_file.is_none();
    if is_silent && known.vouched().next().is_some() {
        screen.remark(format_args!(
            "the key of {} is on record already",
            known.endpoint()
        ));
        return Ok(Vec::new());
    }
    keys_of(known, host, vouching, true, screen)
}

fn keys_of(
    known: &Known,
    host: &Host,
    vouching: &Vouching,
    from_home: bool,
    screen: Screen,
) -> Result<Vec<PublicKey>, Refusal> {
    let Reach::Ssh { address, port, .. } = &host.reach else {
        return Ok(Vec::new());
    };
    if let Some(file) = &vouching.key_file {
        let keys = public_keys(file)?;
        keys.iter().try_for_each(|key| fits(known, host, key))?;
        return Ok(keys);
    }
    if from_home && vouching.accept_key.is_none() {
        let keys = of_home(address, *port)?;
        if let Some((file, keys)) = keys {
            keys.iter().try_for_each(|key| fits(known, host, key))?;
            for key in &keys {
                screen.remark(format_args!(
                    "host key from {}: {}",
                    file.display(),
                    shown(key)
                ));
            }
            return Ok(keys);
        }
    }
    let key = fetch(address, *port, host)?;
    fits(known, host, &key)?;
    if matches!(known.check(&key), Check::Known) {
        return Ok(vec![key]);
    }
    accept(&key, known, host, vouching, screen)?;
    Ok(vec![key])
}

/// Refuses a key where others are on record, or that is revoked.
fn fits(known: &Known, host: &Host, key: &PublicKey) -> Result<(), Refusal> {
    let name = &host.name;
    match known.check(key) {
        Check::Known | Check::Unknown { .. } => Ok(()),
        Check::Changed { offered, known: on_record } => Err(Refusal::new(format!(
            "the key of {} is {offered}; on record is {}",
            known.endpoint(),
            on_record.join(", ")
        ))
        .next(format!(
            "find out why it changed; if the host was set up anew: holdfast host trust {name} --replace"
        ))),
        Check::Revoked { offered } => Err(Refusal::new(format!(
            "the key {offered} of {} is marked as revoked",
            known.endpoint()
        ))
        .next("give the host another key")),
    }
}

/// Asks whether the key is the host's, or compares it with what was given.
fn accept(
    key: &PublicKey,
    known: &Known,
    host: &Host,
    vouching: &Vouching,
    screen: Screen,
) -> Result<(), Refusal> {
    let (endpoint, offered) = (known.endpoint(), fingerprint(key));
    if let Some(expected) = &vouching.accept_key {
        let expected = expected.trim();
        if expected == offered || offered.strip_prefix("SHA256:") == Some(expected) {
            return Ok(());
        }
        return Err(
            Refusal::new(format!("{endpoint} offers {offered}, not {expected}"))
                .next("compare it with `ssh-keygen -lf` on the host; somebody may be in between"),
        );
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let name = &host.name;
        return Err(Refusal::new(format!(
            "{endpoint} offers the key {}, and there is no terminal to ask on",
            shown(key)
        ))
        .next(format!(
            "compare it with `ssh-keygen -lf` on the host, then give it: --accept-key {offered}; \
             or add `{name}` with --no-key"
        )));
    }
    screen.ask(format_args!(
        "{endpoint} offers the key\n  {}\nIs it the host's? It must be what `ssh-keygen -lf \
         /etc/ssh/ssh_host_*_key.pub` prints there. [y/N] ",
        shown(key)
    ));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .take(16)
        .read_line(&mut answer)
        .map_err(|error| Refusal::new("standard input").source(error))?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(
        Refusal::new(format!("the key {offered} of {endpoint} was not accepted"))
            .next("nothing was changed"),
    )
}

/// The key that the host shows at this moment: whoever is in between shows theirs.
fn fetch(address: &str, port: u16, host: &Host) -> Result<PublicKey, Refusal> {
    /// A person waits.
    const FETCH_MAX: Duration = Duration::from_secs(15);
    let endpoint = Endpoint {
        address: address.to_owned(),
        port,
    };
    let patience = Patience::new(Arc::new(RealClock::new()), FETCH_MAX, Arc::new(()));
    ssh::fetch_host_key(&endpoint, ssh::Limits::default(), &patience).map_err(|failure| {
        Refusal::new(format!("the key of host `{}`: {failure}", host.name))
            .next("check address, port and firewall; or give the key with --key-file FILE")
    })
}

fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), fingerprint(key))
}

fn public_keys(file: &Path) -> Result<Vec<PublicKey>, Refusal> {
    /// A few keys of a few KiB.
    const FILE_LEN_MAX: u64 = 64 << 10;
    let text = text_of(file, FILE_LEN_MAX)?;
    let keys: Option<Vec<PublicKey>> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| PublicKey::from_openssh(line).ok())
        .collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
        Refusal::new(format!("{} holds no public key", file.display()))
            .next("give a copy of /etc/ssh/ssh_host_ed25519_key.pub of the host")
    })
}

/// What the user's own file says of an address, if anything. A file that is not there says nothing.
fn of_home(address: &str, port: u16) -> Result<Option<(PathBuf, Vec<PublicKey>)>, Refusal> {
    let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) else {
        return Ok(None);
    };
    let file = PathBuf::from(home).join(".ssh/known_hosts");
    let Ok(bytes) = named_file::read(&file, known_hosts::FILE_LEN_MAX) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let known = Known::in_file(&text, address, port).map_err(fleet_refused)?;
    let keys: Vec<_> = known.vouched().cloned().collect();
    Ok((!keys.is_empty()).then_some((file, keys)))
}

fn take_over(file: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let text = text_of(file, known_hosts::FILE_LEN_MAX)?;
    let site = Site::open(config, screen)?;
    let imported = site
        .known_hosts()?
        .import(&text, crate::command::now())
        .map_err(fleet_refused)?;
    super::finish(site, screen);
    for (line, fault) in &imported.refused {
        screen.remark(format_args!("{}:{line}: {fault}", file.display()));
    }
    screen.result(&format!(
        "{} taken, {} on record already, {} refused",
        counted(imported.added as u64, "key"),
        imported.present,
        counted(imported.refused.len() as u64, "line"),
    ))?;
    if imported.added + imported.present == 0 && !imported.refused.is_empty() {
        return Err(Refusal::new(format!(
            "{} holds no line that can be taken",
            file.display()
        ))
        .next("give an OpenSSH known_hosts file"));
    }
    Ok(Exit::Clean)
}

/// The text of a file, or of standard input for `-`.
pub(super) fn text_of(file: &Path, len_max: u64) -> Result<String, Refusal> {
    let refuse = || Refusal::new(format!("{}", file.display()));
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .take(len_max + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Refusal::new("standard input").source(error))?;
        if bytes.len() as u64 > len_max {
            return Err(refuse()
                .source(format!("more than {len_max} bytes"))
                .next("give it in parts"));
        }
        bytes
    } else {
        named_file::read(file, len_max).map_err(|error| {
            refuse()
                .source(error)
                .next("check the path, and that you may read the file")
        })?
    };
    String::from_utf8(bytes)
        .map_err(|error| refuse().source(error).next("give a text file in UTF-8"))
}
