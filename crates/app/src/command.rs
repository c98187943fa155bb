//! The commands: each reads its arguments, does its work through the rooms below, and prints.

use std::sync::Arc;

use ::scan::target::{LocalTarget, Target};
use jiff::Zoned;
use serde::Serialize;
use world::{Clock, RealClock, Timestamp};

use crate::{
    cli::{Cli, Command},
    config::Config,
    exit::{Exit, Refusal},
    moment,
    remote::carried,
    screen::Screen,
    site::Site,
};

mod alert;
mod audit;
mod chosen;
mod collect;
mod config;
mod credential;
mod diff;
mod doctor;
mod events;
mod export;
mod fix;
mod history;
mod host;
mod import;
pub(crate) mod journal;
pub(crate) mod ledger;
mod load;
mod maintenance;
mod migrate;
mod node;
mod policy;
mod reference;
mod rules;
mod scan;
mod schedule;
mod status;
mod token;
mod up;
mod variable;
mod waiver;

pub(crate) use status::FailedAttempt;

pub(crate) fn run(cli: &Cli) -> Result<Exit, Refusal> {
    // These say what the program is, whatever is configured.
    match &cli.command {
        Command::Completions(asked) => {
            return reference::completions(asked, Screen::new(&cli.global));
        }
        Command::Man(asked) => return reference::man(asked, Screen::new(&cli.global)),
        Command::Reference => return reference::reference(Screen::new(&cli.global)),
        _ => {}
    }
    let config = Config::load(&cli.global)?;
    carried::seal();
    let screen = Screen::new(&cli.global);
    match &cli.command {
        Command::Up(up) => up::run(up, &config, screen),
        Command::Scan(scan) => scan::run(scan, &config, screen),
        Command::Host(host) => host::run(&host.action, &config, screen),
        Command::Credential(credential) => credential::run(&credential.action, &config, screen),
        Command::Collect(collect) => collect::run(collect, &config, screen),
        Command::Status(status) => status::run(status, &config, screen),
        Command::History(history) => history::run(history, &config, screen),
        Command::Diff(diff) => diff::run(diff, &config, screen),
        Command::Export(asked) => export::run(asked, &config, screen),
        Command::Import(asked) => import::run(asked, &config, screen),
        Command::Ledger(asked) => ledger::run(&asked.action, &config, screen),
        Command::Rules(rules) => rules::run(&rules.action, &config, screen),
        Command::Fix(fix) => fix::run(fix, &config, screen),
        Command::Policy(policy) => policy::run(&policy.action, &config, screen),
        Command::Alert(alert) => alert::run(&alert.action, &config, screen),
        Command::Waiver(waiver) => waiver::run(&waiver.action, &config, screen),
        Command::Variable(variable) => variable::run(&variable.action, &config, screen),
        Command::Schedule(asked) => schedule::run(asked, &config, screen),
        Command::Maintenance(asked) => maintenance::run(&asked.action, &config, screen),
        Command::Token(token) => token::run(&token.action, &config, screen),
        Command::Node(node) => node::run(&node.action, &config, screen),
        Command::Group(group) => node::group(&group.action, &config, screen),
        Command::Explain(explain) => node::explain(explain.what, &config, screen),
        Command::Promote(asked) => node::promote(asked, &config, screen),
        Command::Switchover { to } => node::switchover(to, &config, screen),
        Command::Audit(asked) => audit::run(asked, &config, screen),
        Command::Doctor => doctor::run(&config, screen),
        Command::Config(shown) => config::run(&shown.action, &config, screen),
        Command::Events(events) => events::run(&events.action, &config, screen),
        Command::Journal(journal) => journal::run(&journal.action, &config, screen),
        Command::Openapi => {
            screen.result(&crate::server::openapi_document())?;
            Ok(Exit::Clean)
        }
        Command::Migrate(asked) => migrate::run(asked, &config, screen),
        Command::Load(load) => load::run(&load.action, &config, screen),
        Command::Completions(_) | Command::Man(_) | Command::Reference => Ok(Exit::Clean),
    }
}

/// One JSON document, indented: read by people as often as by programs.
fn json<T: Serialize>(document: &T) -> Result<String, Refusal> {
    serde_json::to_string_pretty(document)
        .map_err(|error| Refusal::new("the result cannot be written as JSON").source(error))
}

fn now() -> Timestamp {
    RealClock::new().now()
}

/// Who is named where a change is recorded.
fn actor() -> String {
    if let Some(actor) = carried::actor() {
        return actor.to_owned();
    }
    let uid = rustix::process::getuid().as_raw();
    let named = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    match named {
        Ok(name) if !name.is_empty() => format!("user {name}"),
        _ => format!("user #{uid}"),
    }
}

/// Reads a moment of the command line, local times in this machine's zone.
fn moment(text: &str) -> Result<Timestamp, Refusal> {
    moment::parse(text, &Zoned::now())
}

/// Refuses a moment that nothing can be known of yet. What is recorded counts as past, also when
/// the clock was set back since.
fn must_be_past(at: Timestamp, text: &str, site: &Site) -> Result<(), Refusal> {
    if at > now().max(site.newest()?) {
        return Err(Refusal::new(format!("`{text}` is in the future"))
            .next("ask for a moment that has been, or for `now`"));
    }
    Ok(())
}

/// The host that is meant where none is named.
pub(crate) fn this_host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The machine itself, for collectors.
fn this_machine() -> Result<Arc<dyn Target>, Refusal> {
    let target = LocalTarget::new("/", Arc::new(RealClock::new()))
        .map_err(|unknown| Refusal::new(format!("this machine cannot be looked at: {unknown}")))?;
    Ok(Arc::new(target))
}
