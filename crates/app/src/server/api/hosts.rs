//! Hosts: listed, shown, added, changed, retired, and looked at by hand.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use scan::{
    inventory::{Host, Inventory, PORT, Reach as Way, SITE},
    token::Role,
};
use serde::{Deserialize, Serialize};
use store::Transaction;
use utoipa::{ToSchema, openapi::path::HttpMethod};
use world::Timestamp;

use super::{
    super::{
        call::{Answer, Call, Problem, tag_of, tag_of_row, tag_of_state},
        operation::{Operation, Reach},
    },
    AtAsked, NothingAsked,
};
use crate::view;

/// How a host is reached and where it belongs.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HostBody {
    /// `ssh` unless given; `local` is the machine of the server, `offline` is never connected to.
    #[serde(default)]
    via: Via,
    /// Name or IP address; of hosts over SSH.
    address: Option<String>,
    #[schema(minimum = 1)]
    port: Option<u16>,
    user: Option<String>,
    site: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    tags: BTreeSet<String>,
    /// The name of its own credential; the default one unless given.
    credential: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Via {
    #[default]
    Ssh,
    Local,
    Offline,
}

/// A host to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewHost {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    #[serde(default)]
    via: Via,
    address: Option<String>,
    #[schema(minimum = 1)]
    port: Option<u16>,
    user: Option<String>,
    site: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    tags: BTreeSet<String>,
    credential: Option<String>,
}

/// A host as it is in the inventory.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct HostEntry {
    name: String,
    via: &'static str,
    site: String,
    groups: BTreeSet<String>,
    tags: BTreeSet<String>,
    credential: Option<String>,
    retired: bool,
}

impl From<&Host> for HostEntry {
    fn from(host: &Host) -> Self {
        Self {
            name: host.name.clone(),
            via: host.reach.via(),
            site: host.site.clone(),
            groups: host.groups.clone(),
            tags: host.tags.clone(),
            credential: host.credential.clone(),
            retired: host.retired.is_some(),
        }
    }
}

/// What was asked for, and where to see what becomes of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ScanAsked {
    host: String,
    /// The schedule takes it up within a tick; this tells the job and then the scan.
    look_at: String,
}

/// Which host to scan.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScanBody {
    host: String,
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn operations() -> Vec<Operation> {
    let one = "/api/v1/hosts/{host}";
    vec![
        Operation::read("/api/v1/fleet", "getFleet", fleet)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "The whole fleet on one page, now or at a moment",
            )
            .asks::<AtAsked>()
            .gives::<view::Fleet>()
            .kept(),
        Operation::read("/api/v1/hosts", "listHosts", list)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Hosts and how they stand, now or at a moment",
            )
            .asks::<view::HostsAsked>()
            .gives::<view::HostPage>()
            .kept(),
        Operation::change(HttpMethod::Post, "/api/v1/hosts", "addHost", add)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Add a host; it is due at once",
            )
            .takes::<NewHost>()
            .gives::<HostEntry>()
            .status(201),
        Operation::read(one, "getHost", show)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "How one host stands, now or at a moment",
            )
            .asks::<AtAsked>()
            .gives::<view::HostView>()
            .kept(),
        Operation::read("/api/v1/hosts/{host}/findings", "listFindings", findings)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "What was found on one host, now or at a moment",
            )
            .asks::<view::FindingsAsked>()
            .gives::<view::FindingPage>()
            .kept(),
        Operation::read("/api/v1/hosts/{host}/entry", "getHostEntry", entry)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "A host as it is in the inventory, with its version",
            )
            .gives::<HostEntry>()
            .versioned(),
        Operation::change(HttpMethod::Put, one, "updateHost", update)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Replace how a host is reached and where it belongs",
            )
            .takes::<HostBody>()
            .gives::<HostEntry>()
            .versioned(),
        Operation::change(HttpMethod::Delete, one, "retireHost", retire)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Retire a host: no more scans, all history stays",
            )
            .gives::<HostEntry>()
            .versioned(),
        Operation::change(HttpMethod::Post, "/api/v1/scans", "requestScan", scan)
            .by(
                Role::Operator,
                Reach::Hosts,
                "Have a host scanned at once, back-off or not",
            )
            .takes::<ScanBody>()
            .gives::<ScanAsked>()
            .status(202),
        Operation::read("/api/v1/scans", "listScans", scans)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "The latest scan of each host, now or at a moment",
            )
            .asks::<AtAsked>()
            .gives::<view::ScanPage>(),
        Operation::read("/api/v1/hosts/{host}/scans", "listHostScans", host_scans)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Every scan of one host, the newest first",
            )
            .asks::<view::HostScansAsked>()
            .gives::<view::HostScanPage>(),
        Operation::read("/api/v1/scans/{scan}", "getScan", one_scan)
            .by(Role::Viewer, Reach::Hosts, "One scan")
            .gives::<view::ScanView>(),
    ]
}

fn fleet(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    let mut fleet = view::fleet(&call.reader(), call.at(asked.at.as_ref())?)?;
    let answer = Answer::json(&fleet)?;
    fleet.at = view::Moment(Timestamp::default());
    let tag = tag_of_state(&fleet);
    Ok(held(answer, tag, asked.at.as_ref(), fleet.turns))
}

/// What a tag is of lasts until `turns`, unless it is of a moment that is counted back from the time of
/// asking: then it is another with the next request, in the same words.
fn held(answer: Answer, tag: String, at: Option<&String>, turns: Timestamp) -> Answer {
    match at.is_none_or(|text| view::stands(text)) {
        true => answer.lasting(tag, turns),
        false => answer.tagged(tag),
    }
}

fn list(call: &Call) -> Result<Answer, Problem> {
    let asked: view::HostsAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    let page = view::hosts(&call.reader(), &asked, at)?;
    let answer = Answer::json(&page)?;
    let tag = format!("W/{}", tag_of(&answer.body));
    Ok(held(answer, tag, asked.at.as_ref(), page.turns).timeless())
}

fn show(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    let mut host = view::host(&call.reader(), call.param("host"), at)?;
    let answer = Answer::json(&host)?;
    host.at = view::Moment(Timestamp::default());
    host.age_seconds = None;
    let tag = tag_of_state(&host);
    Ok(held(answer, tag, asked.at.as_ref(), host.turns))
}

fn findings(call: &Call) -> Result<Answer, Problem> {
    let asked: view::FindingsAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    let page = view::findings(&call.reader(), call.param("host"), &asked, at)?;
    let answer = Answer::json(&page)?;
    let tag = format!("W/{}", tag_of(&answer.body));
    Ok(held(answer, tag, asked.at.as_ref(), page.turns).timeless())
}

fn entry(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let name = call.param("host");
    let host = call.reader().must_see(name)?;
    let host = host.ok_or_else(|| view::Error::no_host(name))?;
    Ok(Answer::json(&HostEntry::from(&host))?.tagged(tag_of_row(&host)))
}

fn inventory(call: &Call) -> Result<Inventory, Problem> {
    Ok(Inventory::new(call.shared.store.clone())?)
}

fn way(
    via: Via,
    address: Option<String>,
    port: Option<u16>,
    user: Option<String>,
) -> Result<Way, Problem> {
    match (via, address) {
        (Via::Ssh, Some(address)) => Ok(Way::Ssh {
            address,
            port: port.unwrap_or(PORT),
            user,
        }),
        (Via::Ssh, None) => Err(Problem::invalid("a host over SSH needs its address")),
        (Via::Local | Via::Offline, _) if port.is_some() || user.is_some() => {
            Err(Problem::invalid("port and user are of hosts over SSH"))
        }
        (Via::Local | Via::Offline, Some(_)) => {
            Err(Problem::invalid("an address is of hosts over SSH"))
        }
        (Via::Local, None) => Ok(Way::Local),
        (Via::Offline, None) => Ok(Way::Offline),
    }
}

/// A token of a few hosts may not make or move a host to where it could not see it. Nor may it turn one
/// into the server itself, or give it the credential of others: both reach beyond its hosts.
fn must_hold(call: &Call, before: Option<&Host>, host: &Host) -> Result<(), Problem> {
    let scope = call.scope();
    let refuse = |detail| Err(Problem::new(StatusCode::FORBIDDEN, "SCOPE", detail));
    if !scope.holds(host) {
        return refuse("the host would be outside of this token's scope");
    }
    if scope.is_everything() {
        return Ok(());
    }
    let was_local = before.is_some_and(|before| before.reach == Way::Local);
    if host.reach == Way::Local && !was_local {
        return refuse("a token of some hosts does not make a host the server itself");
    }
    if host.credential != before.and_then(|before| before.credential.clone()) {
        return refuse("a token of some hosts does not choose credentials");
    }
    Ok(())
}

fn add(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewHost = call.json()?;
    let reach = way(asked.via, asked.address, asked.port, asked.user)?;
    let mut host = Host::new(asked.name, reach, call.now);
    host.site = asked.site.unwrap_or_else(|| SITE.to_owned());
    host.groups = asked.groups;
    host.tags = asked.tags;
    host.credential = asked.credential;
    let host = host.checked()?;
    must_hold(call, None, &host)?;
    inventory(call)?.add_in(transaction, &host, &call.actor())?;
    let place = format!("/api/v1/hosts/{}", encoded(&host.name));
    let answer = Answer::with(StatusCode::CREATED, &HostEntry::from(&host))?;
    Ok(answer.at(place).tagged(tag_of_row(&host)))
}

/// A name as a part of a path: what no path takes as it is, is written by its bytes.
fn encoded(name: &str) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    text
}

fn seen(call: &Call, transaction: &mut Transaction) -> Result<Host, Problem> {
    let name = call.param("host");
    call.reader().must_see(name)?;
    let host = inventory(call)?.active_in(transaction, name)?;
    call.must_match(&tag_of_row(&host))?;
    Ok(host)
}

fn update(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: HostBody = call.json()?;
    let before = seen(call, transaction)?;
    let was = before.clone();
    let host = Host {
        reach: way(asked.via, asked.address, asked.port, asked.user)?,
        site: asked.site.unwrap_or_else(|| SITE.to_owned()),
        groups: asked.groups,
        tags: asked.tags,
        credential: asked.credential,
        ..before
    };
    let host = host.checked()?;
    must_hold(call, Some(&was), &host)?;
    inventory(call)?.update_in(transaction, &host, call.now, &call.actor())?;
    Ok(Answer::json(&HostEntry::from(&host))?.tagged(tag_of_row(&host)))
}

fn retire(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let host = seen(call, transaction)?;
    let host = inventory(call)?.retire_in(transaction, &host.name, call.now, &call.actor())?;
    Ok(Answer::json(&HostEntry::from(&host))?.tagged(tag_of_row(&host)))
}

fn scan(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let ScanBody { host } = call.json()?;
    call.reader().must_see(&host)?;
    let host = inventory(call)?.active_in(transaction, &host)?.name;
    let backend = call.reader().backend()?;
    if !backend.hasten_in(transaction, &host, call.now, &call.actor())? {
        return Err(Problem::invalid(
            "the host is never connected to: collect its facts there and replay them",
        ));
    }
    let look_at = format!("/api/v1/hosts/{}", encoded(&host));
    let asked = ScanAsked {
        host,
        look_at: look_at.clone(),
    };
    Ok(Answer::with(StatusCode::ACCEPTED, &asked)?.at(look_at))
}

fn scans(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    Answer::json(&view::scans(&call.reader(), call.at(asked.at.as_ref())?)?)
}

fn host_scans(call: &Call) -> Result<Answer, Problem> {
    let asked: view::HostScansAsked = call.query()?;
    let page = view::host_scans(&call.reader(), call.param("host"), &asked)?;
    Answer::json(&page)
}

fn one_scan(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    Answer::json(&view::scan(&call.reader(), call.param("scan"))?)
}
