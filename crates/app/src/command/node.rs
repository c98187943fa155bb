//! `holdfast node`, `group`, `promote`, `switchover`: a site on several machines.

use std::{
    io::{BufRead as _, IsTerminal as _, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use replica::machine::NodeId;
use serde_json::{Value, json};
use wal::Journal as _;
use world::{Disk, RealDisk, RealRandom};
use zeroize::Zeroizing;

use crate::{
    cli::{
        Output,
        node::{Explained, GroupAction, NodeAction, Promote},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment, named_file,
    node::{
        self, Book, Code, Envelope, Invitation, MEMBERS_MAX, Member, Request, Settings,
        check_address, draw, is_name,
    },
    present::{csv, table},
    screen::Screen,
    site,
};

/// An invitation is a few kilobytes of certificates and keys.
const INVITATION_LEN_MAX: u64 = 1 << 20;
/// A code with whatever stands around it.
const CODE_LEN_MAX: u64 = 1024;
/// Times that a code is asked for: a person mistypes it once or twice.
const ASKED_MAX: u32 = 3;
const VALID_MIN: Duration = Duration::from_secs(60);
/// What is not used in a month is forgotten by whoever has it.
const VALID_MAX: Duration = Duration::from_secs(30 * 86_400);

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
        NodeAction::Invite {
            name,
            address,
            to,
            valid,
        } => {
            let invited = Invited {
                name,
                address: *address,
                to,
                valid: valid_for(valid)?,
            };
            invite(data, &invited, config, screen)
        }
        NodeAction::Join {
            invitation,
            code_file,
        } => join(data, invitation, code_file.as_deref(), config, screen),
        NodeAction::List => list(data, config, screen),
        NodeAction::Remove { name } => remove(data, name, screen),
        NodeAction::Meet { list } => meet(data, list, screen),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if is_name(name) {
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
    check_address(listen)?;
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
            number: 1,
            is_founder: true,
        }],
        removed: Vec::new(),
    };
    node::found(data, &settings, &journal)?;
    screen.remark(format_args!(
        "node `{name}` of a new cluster; start it with `holdfast up`, and invite others with `holdfast node invite NAME ADDRESS --to FILE`"
    ));
    Ok(Exit::Clean)
}

struct Invited<'a> {
    name: &'a str,
    address: SocketAddr,
    to: &'a Path,
    valid: Duration,
}

fn valid_for(text: &str) -> Result<Duration, Refusal> {
    let span = moment::parse_span(text).filter(|span| (VALID_MIN..=VALID_MAX).contains(span));
    span.ok_or_else(|| {
        Refusal::new(format!(
            "`{}` is no time for an invitation to be valid",
            crate::present::safe(text)
        ))
        .next("write one minute to 30 days, such as 8h or 2d")
    })
}

fn invite(
    data: &Path,
    asked: &Invited<'_>,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let Invited { name, to, .. } = *asked;
    check_name(name)?;
    check_address(asked.address)?;
    settings(data)?;
    let code = Code::draw(&RealRandom).map_err(|error| {
        Refusal::new(format!("a code cannot be drawn: {error}")).next("try again")
    })?;
    let made = super::now();
    Settings::change(data, |settings| {
        let invitation = invited(data, name, asked.address, settings)?;
        let sealed = invitation.sealed(&code, made, asked.valid)?;
        let path = named_file::replaceable(to).map_err(|error| cannot_write(to, &error))?;
        // Before the node is known: a file without an entry is refused, an entry without a file cannot
        // be had again under this name.
        RealDisk
            .replace(&path, &sealed)
            .map_err(|error| cannot_write(to, &error))
    })?;
    let code = code.text();
    let text = match config.output.value {
        Output::Json => super::json(&json!({
            "name": name,
            "file": to.display().to_string(),
            "code": code.as_str(),
            "valid_until": moment::rfc3339(made.plus(asked.valid)),
        }))?,
        Output::Csv | Output::Table => code.to_string(),
    };
    screen.result(&text)?;
    screen.remark(format_args!(
        "this code opens {} until {}, and is shown once: tell it by another way than the file, and use both once. There: `holdfast node join FILE` and `holdfast up`, then `holdfast group add {name}` here",
        to.display(),
        moment::local(made.plus(asked.valid)),
    ));
    Ok(Exit::Clean)
}

/// The invitation of a node that is among the members then.
fn invited(
    data: &Path,
    name: &str,
    address: SocketAddr,
    settings: &mut Settings,
) -> Result<Invitation, Refusal> {
    let authority = node::authority(data, settings)?;
    if settings.members.iter().any(|member| member.name == name) {
        return Err(Refusal::new(format!("a node is called `{name}` already"))
            .next("choose another name; a machine that lost its disk comes back as another node"));
    }
    if settings.members.len() >= MEMBERS_MAX {
        return Err(Refusal::new(format!(
            "the cluster has {MEMBERS_MAX} nodes, and no more can be"
        ))
        .next("remove those that are gone: `holdfast node remove NAME`"));
    }
    let node = NodeId(draw()?);
    settings.members.push(Member {
        node,
        name: name.to_owned(),
        address,
        number: 1,
        is_founder: false,
    });
    let credentials = authority.issue(node).map_err(|error| {
        Refusal::new(format!("a certificate cannot be made: {error}")).next("try again")
    })?;
    let theirs = Settings {
        node,
        listen: address,
        is_founder: false,
        ..settings.clone()
    };
    Invitation::new(data, &theirs, credentials)
}

fn cannot_write(to: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(format!("write {}: {error}", to.display())).next("name another file with --to")
}

fn join(
    data: &Path,
    invitation: &Path,
    code_file: Option<&Path>,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
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
    let text = read(
        invitation,
        "name the file that `holdfast node invite` wrote",
    )?;
    let envelope = Envelope::read(&text, super::now())?;
    let opened = envelope.open(&code(code_file)?)?;
    site::make(data)?;
    let settings = node::join(data, opened, config.mode())?;
    screen.remark(format_args!(
        "node `{}`; start it with `holdfast up`, then `holdfast group add {}` where the site is written",
        settings.own_name(),
        settings.own_name()
    ));
    Ok(Exit::Clean)
}

/// Out of the file, or from the terminal: never an argument or a variable, which others can see.
fn code(file: Option<&Path>) -> Result<Code, Refusal> {
    let mistyped = || {
        Refusal::new("this is no code of an invitation: something is missing or mistyped")
            .next("give the seven groups that `holdfast node invite` showed")
    };
    if let Some(file) = file {
        let bytes = named_file::read(file, CODE_LEN_MAX).map(Zeroizing::new);
        let bytes = bytes.map_err(|error| {
            Refusal::new(format!("read {}: {error}", file.display()))
                .next("name a file with the code that `holdfast node invite` showed")
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| mistyped())?;
        return Code::read(text).ok_or_else(mistyped);
    }
    for _ in 0..ASKED_MAX {
        let typed = rpassword::prompt_password("The code of the invitation: ")
            .map(Zeroizing::new)
            .map_err(|error| {
                Refusal::new("the code cannot be asked for without a terminal")
                    .source(error)
                    .next("give it in a file: --code-file FILE")
            })?;
        if let Some(code) = Code::read(&typed) {
            return Ok(code);
        }
    }
    Err(mistyped())
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

const FOUNDER_REMOVED: &str = ". It made the cluster: it has the key that signs certificates, and whoever has that can make itself any node of it, \
whatever is removed. If it is in the wrong hands make a new cluster: OPERATING, Removing a node";

fn remove(data: &Path, name: &str, screen: Screen) -> Result<Exit, Refusal> {
    let before = settings(data)?;
    let made_it = before.named(name).is_ok_and(|member| member.is_founder);
    let request = Request::Forget {
        name: name.to_owned(),
    };
    node::ask(data, &request)?;
    screen.remark(format_args!(
        "node `{name}` is shut out: this node refuses its certificate, and the others do once they hear of it. It still has the site's keys: wipe its disk, or change them with `holdfast credential rotate --data-key` and `holdfast ledger key rotate`{}",
        if made_it { FOUNDER_REMOVED } else { "" }
    ));
    Ok(Exit::Clean)
}

/// Ids, names and addresses only: nothing in it is secret, and who counts is the group's to say.
fn meet(data: &Path, path: &Path, screen: Screen) -> Result<Exit, Refusal> {
    const NEXT: &str = "name a file with what `holdfast node list --output json` printed";
    let before = settings(data)?;
    let text = read(path, NEXT)?;
    let book = Book::listed(&text)
        .map_err(|error| Refusal::new(format!("{}: {error}", path.display())).next(NEXT))?;
    let ((), after) = Settings::change(data, |settings| {
        book.merge_into(settings);
        Ok(())
    })?;
    let is_news = |member: &&Member| !before.members.contains(member);
    let met = after.members.iter().filter(is_news).count();
    screen.remark(format_args!("{met} nodes are known anew or elsewhere; a running `holdfast up` finds them within a second"));
    Ok(Exit::Clean)
}

fn list(data: &Path, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let settings = settings(data)?;
    let members = settings.members.iter().map(|member| {
        let is_own = match (member.node == settings.node, member.is_founder) {
            (true, true) => " (this node, made the cluster)",
            (true, false) => " (this node)",
            (false, true) => " (made the cluster)",
            (false, false) => "",
        };
        (
            format!("{}{is_own}", member.name),
            member.address.to_string(),
            member.node,
        )
    });
    let removed = settings.removed.iter().map(|removed| {
        let name = format!("{} (removed)", removed.name);
        (name, "-".to_owned(), removed.node)
    });
    let cells = members
        .chain(removed)
        .map(|(name, address, node)| [name, address, format!("{:032x}", node.0)]);
    let text = match config.output.value {
        Output::Json => super::json(&listed(&settings))?,
        Output::Csv => csv::lines(["name", "address", "node"], cells),
        Output::Table => table::rows(["NAME", "ADDRESS", "ID"], cells),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

/// What `node meet` reads elsewhere.
fn listed(settings: &Settings) -> Vec<Value> {
    let members = settings.members.iter().map(|member| {
        json!({
            "name": member.name,
            "address": member.address.to_string(),
            "node": format!("{:032x}", member.node.0),
            "is_this": member.node == settings.node,
            "number": member.number,
            "is_founder": member.is_founder,
            "is_removed": false,
        })
    });
    let removed = settings.removed.iter().map(|removed| {
        json!({
            "name": removed.name,
            "address": Value::Null,
            "node": format!("{:032x}", removed.node.0),
            "is_this": false,
            "number": 0,
            "is_founder": false,
            "is_removed": true,
        })
    });
    members.chain(removed).collect()
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
        GroupAction::Policy { policy } => Request::Policy { policy: *policy },
        GroupAction::Mode { mode, fenced } => Request::Mode {
            mode: mode.clone(),
            fenced: fenced.clone(),
        },
    };
    order(&request, config, screen)
}

pub(crate) fn promote(asked: &Promote, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match &asked.fenced_by {
        Some(fenced_by) if asked.force => force(fenced_by, asked.alone, config, screen),
        Some(_) if !asked.alone => Err(Refusal::new(
            "what may be lost is decided by the members' answers, not by a statement",
        )
        .next("leave --fenced-by out; it belongs to --alone and to --force")),
        alone => order(
            &Request::Promote {
                alone: alone.clone(),
            },
            config,
            screen,
        ),
    }
}

/// Says what may be lost, and goes on when somebody at a terminal typed the name of this node.
fn force(fenced_by: &str, alone: bool, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let data = config.data_dir()?;
    let name = settings(data)?.own_name();
    if !std::io::stdin().is_terminal() {
        return Err(Refusal::new(
            "a forced promotion is confirmed at a terminal, and there is none",
        )
        .next(
            "run it on a terminal of this node; `holdfast promote` without --force asks nothing",
        ));
    }
    let bound = node::ask(data, &Request::Bound)?;
    let bound: node::Bound = serde_json::from_value(bound)
        .map_err(|error| Refusal::new("the node's answer is not understood").source(error))?;
    let mut err = anstream::stderr().lock();
    let asked = write!(
        err,
        "{}Type `{name}`, the name of this node, to take over and accept that: ",
        node::bound_text(&bound)
    )
    .and_then(|()| err.flush());
    drop(err);
    let mut answer = String::new();
    asked
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Refusal::new("the terminal cannot be asked").source(error))?;
    if answer.trim() != name {
        return Err(Refusal::new("not confirmed, and nothing was changed")
            .next("try `holdfast promote` on each member first: it loses nothing"));
    }
    let said = node::Statement {
        fenced_by: fenced_by.to_owned(),
        actor: super::actor(),
        alone,
    };
    let accepted = bound;
    order(&Request::Force { said, accepted }, config, screen)
}

pub(crate) fn explain(what: Explained, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let data = config.data_dir()?;
    settings(data)?;
    let (request, text): (_, fn(&Value) -> String) = match what {
        Explained::Replication => (Request::ExplainReplication, node::replication_text),
        Explained::Promotion => (Request::ExplainPromotion, node::promotion_text),
    };
    let document = node::ask(data, &request)?;
    let shown = match config.output.value {
        Output::Json => node::status_document(&document),
        Output::Csv | Output::Table => text(&document),
    };
    screen.result(&shown)?;
    Ok(Exit::Clean)
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
