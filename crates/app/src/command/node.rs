//! `holdfast node`, `group`, `promote`, `switchover`: a site on several machines.

use std::{io::Read as _, net::SocketAddr, path::Path};

use replica::machine::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};
use wal::Journal as _;
use world::{Disk, RealDisk};
use zeroize::Zeroizing;

use crate::{
    cli::{
        Output,
        node::{GroupAction, NodeAction, Promote},
    },
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    node::{self, Invitation, Member, Request, Settings, draw},
    present::{csv, table},
    screen::Screen,
    site,
};

/// An invitation is a few kilobytes of certificates and keys.
const INVITATION_LEN_MAX: u64 = 1 << 20;
/// Names stand in messages, columns and file names.
const NAME_LEN_MAX: usize = 64;

pub(crate) fn run(action: &NodeAction, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let data = config.data_dir()?;
    if site::shared::is_used(config) {
        return Err(Refusal::new(
            "this site keeps its record on PostgreSQL, which has copies of its own",
        )
        .next("see docs/OPERATING.md for several machines on one database"));
    }
    match action {
        NodeAction::Init { name, listen } => init(data, name, *listen, config, screen),
        NodeAction::Invite { name, address, to } => invite(data, name, *address, to, screen),
        NodeAction::Join { invitation } => join(data, invitation, config, screen),
        NodeAction::List => list(data, config, screen),
        NodeAction::Meet { list } => meet(data, list, screen),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= NAME_LEN_MAX && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "`{}` is no name for a node",
        crate::present::safe(name)
    ))
    .next("use letters, digits, - _ and ., at most 64"))
}

fn settings(data: &Path) -> Result<Settings, Refusal> {
    Settings::load(data)?.ok_or_else(|| {
        Refusal::new(format!(
            "{} is no node's: the site is this machine's alone",
            data.display()
        ))
        .next("`holdfast node init NAME --listen ADDRESS` makes it one")
    })
}

fn refuse_node(data: &Path) -> Result<(), Refusal> {
    match Settings::load(data)? {
        None => Ok(()),
        Some(settings) => Err(Refusal::new(format!(
            "{} is node `{}` already",
            data.display(),
            settings.own_name()
        ))
        .next("`holdfast node list` shows its cluster")),
    }
}

fn init(
    data: &Path,
    name: &str,
    listen: SocketAddr,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    check_name(name)?;
    refuse_node(data)?;
    site::make(data)?;
    // Also shows that nobody has it open.
    let mut options = wal::Options::on_this_machine(data.join(site::JOURNAL_DIR));
    options.mode = config.mode();
    options.evidence = site::evidence_beside(&options.dir);
    let (journal, _) =
        wal::Local::open(options).map_err(|error| site::cannot_open_journal(data, &error))?;
    let node = NodeId(draw()?);
    let settings = Settings {
        cluster: draw()?,
        node,
        listen,
        journal: journal.identity(),
        is_founder: true,
        members: vec![Member {
            node,
            name: name.to_owned(),
            address: listen,
        }],
    };
    node::found(data, &settings)?;
    screen.remark(format_args!(
        "node `{name}` of a new cluster; start it with `holdfast up`, and invite others with `holdfast node invite NAME ADDRESS --to FILE`"
    ));
    Ok(Exit::Clean)
}

fn invite(
    data: &Path,
    name: &str,
    address: SocketAddr,
    to: &Path,
    screen: Screen,
) -> Result<Exit, Refusal> {
    check_name(name)?;
    let mut settings = settings(data)?;
    let authority = node::authority(data, &settings)?;
    if settings.members.iter().any(|member| member.name == name) {
        return Err(Refusal::new(format!("a node is called `{name}` already"))
            .next("choose another name; a machine that lost its disk comes back as another node"));
    }
    let invited = NodeId(draw()?);
    settings.members.push(Member {
        node: invited,
        name: name.to_owned(),
        address,
    });
    let credentials = authority.issue(invited).map_err(|error| {
        Refusal::new(format!("a certificate cannot be made: {error}")).next("try again")
    })?;
    let theirs = Settings {
        node: invited,
        listen: address,
        is_founder: false,
        ..settings.clone()
    };
    let invitation = Invitation::new(data, &theirs, credentials)?;
    let path = named_file::replaceable(to).map_err(|error| cannot_write(to, &error))?;
    RealDisk
        .replace(&path, &invitation.text()?)
        .map_err(|error| cannot_write(to, &error))?;
    settings.save(data)?;
    screen.remark(format_args!(
        "{} makes a machine the node `{name}`: carry it there by a safe way, run `holdfast node join` and `holdfast up` there, then `holdfast group add {name}` here, and delete the file",
        to.display()
    ));
    Ok(Exit::Clean)
}

fn cannot_write(to: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("write {}: {error}", to.display())).next("name another file with --to")
}

fn join(data: &Path, invitation: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    refuse_node(data)?;
    let journal = data.join(site::JOURNAL_DIR);
    let found = RealDisk
        .stat(&journal)
        .map_err(|error| site::cannot_use(data, &error))?;
    if found.is_some() {
        return Err(
            Refusal::new(format!("{} holds a record of its own", data.display()))
                .next("join with an empty data directory: name another one with --data-dir"),
        );
    }
    let text = Zeroizing::new(read(
        invitation,
        "name the file that `holdfast node invite` wrote",
    )?);
    site::make(data)?;
    let settings = node::join(data, &text, config.mode())?;
    screen.remark(format_args!(
        "node `{}`; start it with `holdfast up`, then `holdfast group add {}` where the site is written",
        settings.own_name(),
        settings.own_name()
    ));
    Ok(Exit::Clean)
}

/// The file, or what comes on standard input.
fn read(path: &Path, next: &'static str) -> Result<Vec<u8>, Refusal> {
    let unreadable = |error: std::io::Error| {
        Refusal::new(format!("read {}: {error}", path.display())).next(next)
    };
    if path != Path::new("-") {
        return named_file::read(path, INVITATION_LEN_MAX).map_err(unreadable);
    }
    let mut text = Vec::new();
    let mut input = std::io::stdin().lock().take(INVITATION_LEN_MAX);
    input.read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    address: SocketAddr,
    node: String,
}

/// Ids, names and addresses only: nothing in it is secret, and who counts is the group's to say.
fn meet(data: &Path, path: &Path, screen: Screen) -> Result<Exit, Refusal> {
    const NEXT: &str = "name a file with what `holdfast node list --output json` printed";
    let mut settings = settings(data)?;
    let text = read(path, NEXT)?;
    let listed: Vec<Listed> = serde_json::from_slice(&text)
        .map_err(|error| Refusal::new(format!("{}: {error}", path.display())).next(NEXT))?;
    let mut met = 0;
    for other in listed {
        check_name(&other.name)?;
        let node = u128::from_str_radix(&other.node, 16)
            .map(NodeId)
            .map_err(|_| {
                Refusal::new(format!(
                    "`{}` is no id of a node",
                    crate::present::safe(&other.node)
                ))
                .next(NEXT)
            })?;
        let is_same = |known: &Member| known.node == node;
        if let Some(known) = settings.members.iter_mut().find(|known| is_same(known)) {
            met += u32::from(known.address != other.address);
            known.address = other.address;
            continue;
        }
        if settings
            .members
            .iter()
            .any(|known| known.name == other.name)
        {
            return Err(
                Refusal::new(format!("another node is called `{}` here", other.name))
                    .next("lists of one cluster agree; see that this one is of the same"),
            );
        }
        settings.members.push(Member {
            node,
            name: other.name,
            address: other.address,
        });
        met += 1;
    }
    settings.save(data)?;
    screen.remark(format_args!("{met} nodes are known anew or elsewhere; a running `holdfast up` finds them within a second"));
    Ok(Exit::Clean)
}

fn list(data: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let settings = settings(data)?;
    let cells = settings.members.iter().map(|member| {
        let is_own = if member.node == settings.node {
            " (this node)"
        } else {
            ""
        };
        [
            format!("{}{is_own}", member.name),
            member.address.to_string(),
            format!("{:032x}", member.node.0),
        ]
    });
    let text = match config.output.value {
        Output::Json => {
            let members = settings.members.iter().map(|member| {
                json!({
                    "name": member.name,
                    "address": member.address.to_string(),
                    "node": format!("{:032x}", member.node.0),
                    "is_this": member.node == settings.node,
                })
            });
            super::json(&members.collect::<Vec<Value>>())?
        }
        Output::Csv => csv::lines(["name", "address", "node"], cells),
        Output::Table => table::rows(["NAME", "ADDRESS", "ID"], cells),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

pub(crate) fn group(
    action: &GroupAction,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let request = match action {
        GroupAction::Status => Request::Status,
        GroupAction::Add { name } => Request::Add { name: name.clone() },
        GroupAction::Remove { name, fenced } => Request::Remove {
            name: name.clone(),
            fenced: fenced.clone(),
        },
        GroupAction::Mode { mode, fenced } => Request::Mode {
            mode: mode.clone(),
            fenced: fenced.clone(),
        },
    };
    order(&request, config, screen)
}

pub(crate) fn promote(asked: &Promote, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let request = Request::Promote {
        alone: asked.alone,
        force: asked.fenced_by.clone().filter(|_| asked.force),
    };
    order(&request, config, screen)
}

pub(crate) fn switchover(to: &str, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    order(&Request::Switchover { to: to.to_owned() }, config, screen)
}

fn order(request: &Request, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let data = config.data_dir()?;
    settings(data)?;
    let document = node::ask(data, request)?;
    let text = match config.output.value {
        Output::Json => node::status_document(&document),
        Output::Csv | Output::Table => node::status_text(&document),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}
