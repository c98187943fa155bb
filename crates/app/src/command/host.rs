//! `holdfast host`.

use ::scan::{
    inventory::{Host, Kind, Reach, SITE},
    known_hosts::{Known, fingerprint},
};
use serde_json::json;
use world::Timestamp;

use crate::{
    cli::{
        Output,
        host::{Action, Add, List, Place, Retire, Show},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, safe, table},
    screen::Screen,
    site::{self, Site, fleet_refused},
};

mod check;
mod import;
mod trust;

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Add(asked) => add(asked, config, screen),
        Action::List(asked) => list(asked, config, screen),
        Action::Show(asked) => show(asked, config, screen),
        Action::Check(asked) => check::run(asked, config, screen),
        Action::Import(asked) => import::run(asked, config, screen),
        Action::Retire(asked) => retire(asked, config, screen),
        Action::Trust(asked) => trust::run(asked, config, screen),
    }
}

fn add(asked: &Add, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let host = asked_for(asked)?;
    let site = Site::open(config, screen)?;
    let found = site.inventory()?.get(&host.name).map_err(fleet_refused)?;
    let known = known(&site, &host)?;
    let has_credential = has_credential(&site, &host)?;
    // Closed while the network and a person are waited for.
    site.close(screen);
    if let Some(found) = found {
        return Err(taken(&found));
    }
    let keys = match &known {
        Some(known) if !asked.no_key => trust::vouched_for(known, &host, &asked.vouching, screen)?,
        _ => Vec::new(),
    };
    let site = Site::open(config, screen)?;
    let (inventory, known_hosts) = (site.inventory()?, site.known_hosts()?);
    let (at, actor) = (super::now(), super::actor());
    inventory
        .transact(|transaction| {
            inventory.add_in(transaction, &host, &actor)?;
            if let Reach::Ssh { address, port, .. } = &host.reach {
                for key in &keys {
                    known_hosts.trust_in(transaction, address, *port, key, at)?;
                }
            }
            Ok(())
        })
        .map_err(fleet_refused)?;
    finish(site, screen);
    screen.result(&safe(&format!(
        "host {} added: {}",
        host.name,
        reach(&host)
    )))?;
    if !has_credential {
        let name = host.credential.as_deref().unwrap_or("default");
        screen.remark(format_args!(
            "no credential `{name}` yet: holdfast credential add {name} --user NAME --key FILE"
        ));
    }
    Ok(Exit::Clean)
}

fn asked_for(asked: &Add) -> Result<Host, Refusal> {
    let reach = if asked.local {
        Reach::Local
    } else if asked.offline {
        Reach::Offline
    } else {
        Reach::Ssh {
            address: asked.address.clone().unwrap_or_else(|| asked.name.clone()),
            port: asked.port,
            user: asked.user.clone(),
        }
    };
    let mut host = Host::new(&asked.name, reach, super::now());
    put(&mut host, &asked.place);
    host.checked().map_err(|error| {
        if asked.address.is_none() && error.to_string().starts_with("address") {
            return Refusal::new(error.to_string()).next(format!(
                "give its address too: holdfast host add {} ADDRESS",
                asked.name
            ));
        }
        fleet_refused(error)
    })
}

fn put(host: &mut Host, place: &Place) {
    host.credential.clone_from(&place.credential);
    host.site = place.site.clone().unwrap_or_else(|| SITE.to_owned());
    host.groups = place.groups.iter().cloned().collect();
    host.tags = place.tags.iter().cloned().collect();
}

fn taken(found: &Host) -> Refusal {
    let name = &found.name;
    match found.retired {
        Some(at) => Refusal::new(format!(
            "host `{name}` was retired on {}",
            moment::local(Timestamp::from_nanos(at))
        ))
        .next("its history keeps its name: add the machine under another"),
        None => Refusal::new(format!("host `{name}` is in the inventory already")).next(format!(
            "`holdfast host show {name}` prints it; another machine needs another name"
        )),
    }
}

fn known(site: &Site, host: &Host) -> Result<Option<Known>, Refusal> {
    match &host.reach {
        Reach::Ssh { address, port, .. } => site
            .known_hosts()?
            .of(address, *port)
            .map(Some)
            .map_err(fleet_refused),
        Reach::Local | Reach::Offline => Ok(None),
    }
}

fn has_credential(site: &Site, host: &Host) -> Result<bool, Refusal> {
    let name = match (&host.reach, &host.credential) {
        (_, Some(own)) => own.as_str(),
        (Reach::Ssh { .. }, None) => ::scan::credential::DEFAULT,
        (Reach::Local | Reach::Offline, None) => return Ok(true),
    };
    let found = site.vault()?.get(name).map_err(fleet_refused)?;
    Ok(found.is_some())
}

fn finish(site: Site, screen: Screen) {
    let dir = site.dir().to_owned();
    site.close(screen);
    site::changed(&dir, screen);
}

/// How a host is reached, as one would write it.
fn reach(host: &Host) -> String {
    match &host.reach {
        Reach::Local => "this machine".to_owned(),
        Reach::Offline => "offline".to_owned(),
        Reach::Ssh {
            address,
            port,
            user,
        } => {
            let user = user
                .as_ref()
                .map(|user| format!("{user}@"))
                .unwrap_or_default();
            match *port {
                ::scan::inventory::PORT => format!("{user}{address}"),
                port if address.contains(':') => format!("{user}[{address}]:{port}"),
                port => format!("{user}{address}:{port}"),
            }
        }
    }
}

fn list(asked: &List, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let at = asked.at.as_deref().map(super::moment).transpose()?;
    let site = Site::open_fleet(config, screen)?;
    if let (Some(at), Some(text)) = (at, &asked.at) {
        super::must_be_past(at, text, &site)?;
    }
    let mut hosts = site.inventory()?.list(at).map_err(fleet_refused)?;
    site.close(screen);
    hosts.retain(|host| {
        (asked.retired || host.retired.is_none())
            && asked.site.as_ref().is_none_or(|site| *site == host.site)
            && asked
                .group
                .as_ref()
                .is_none_or(|group| host.groups.contains(group))
            && asked.tag.as_ref().is_none_or(|tag| host.tags.contains(tag))
    });
    let text = match config.output.value {
        Output::Json => super::json(&json!({
            "hosts": hosts.iter().map(document).collect::<Vec<_>>()
        }))?,
        Output::Csv => csv::lines(CSV_COLUMNS, hosts.iter().map(csv_row)),
        Output::Table if hosts.is_empty() => {
            screen.remark("no hosts; `holdfast host add NAME ADDRESS` adds one");
            return Ok(Exit::Clean);
        }
        Output::Table => table::rows(
            [
                "NAME",
                "REACHED AT",
                "CREDENTIAL",
                "SITE",
                "GROUPS",
                "TAGS",
                "",
            ],
            hosts.iter().map(|host| {
                let [name, _, _, _, _, credential, site, groups, tags, ..] = csv_row(host);
                let retired = if host.retired.is_some() {
                    "retired"
                } else {
                    ""
                };
                [
                    name,
                    reach(host),
                    credential,
                    site,
                    groups,
                    tags,
                    retired.to_owned(),
                ]
            }),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

const CSV_COLUMNS: [&str; 11] = [
    "name",
    "via",
    "address",
    "port",
    "user",
    "credential",
    "site",
    "groups",
    "tags",
    "added",
    "retired",
];

fn csv_row(host: &Host) -> [String; 11] {
    let (address, port, user) = match &host.reach {
        Reach::Ssh {
            address,
            port,
            user,
        } => (address.clone(), port.to_string(), user.clone()),
        Reach::Local | Reach::Offline => Default::default(),
    };
    let joined = |labels: &std::collections::BTreeSet<String>| {
        labels.iter().cloned().collect::<Vec<_>>().join(",")
    };
    let time = |at| moment::rfc3339(Timestamp::from_nanos(at));
    [
        host.name.clone(),
        host.reach.via().to_owned(),
        address,
        port,
        user.unwrap_or_default(),
        host.credential.clone().unwrap_or_default(),
        host.site.clone(),
        joined(&host.groups),
        joined(&host.tags),
        time(host.added),
        host.retired.map(time).unwrap_or_default(),
    ]
}

fn document(host: &Host) -> serde_json::Value {
    let time = |at| moment::rfc3339(Timestamp::from_nanos(at));
    json!({
        "name": host.name,
        "reach": host.reach,
        "site": host.site,
        "groups": host.groups,
        "tags": host.tags,
        "credential": host.credential,
        "added": time(host.added),
        "retired": host.retired.map(time),
    })
}

fn show(asked: &Show, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let host = site
        .inventory()?
        .get(&asked.name)
        .map_err(fleet_refused)?
        .ok_or_else(|| no_host(&asked.name))?;
    let keys: Vec<String> = known(&site, &host)?
        .iter()
        .flat_map(|known| {
            known
                .vouched()
                .map(|key| (key.algorithm(), fingerprint(key)))
                .collect::<Vec<_>>()
        })
        .map(|(algorithm, fingerprint)| format!("{} {fingerprint}", algorithm.as_str()))
        .collect();
    site.close(screen);
    let text = match config.output.value {
        Output::Json => {
            let mut document = document(&host);
            document["known_keys"] = json!(keys);
            super::json(&document)?
        }
        Output::Csv => csv::lines(CSV_COLUMNS, [csv_row(&host)]),
        Output::Table => in_full(&host, &keys),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn in_full(host: &Host, keys: &[String]) -> String {
    let [name, via, _, _, _, credential, site, groups, tags, ..] = csv_row(host);
    let local = |at| moment::local(Timestamp::from_nanos(at));
    let is_ssh = matches!(host.reach, Reach::Ssh { .. });
    let or = |text: String, otherwise: &str| match text.is_empty() {
        true => otherwise.to_owned(),
        false => text,
    };
    let mut lines = vec![
        ("name", name),
        (
            "reached",
            if is_ssh {
                format!("{} over {via}", reach(host))
            } else {
                reach(host)
            },
        ),
        ("site", site),
        ("groups", or(groups, "none")),
        ("tags", or(tags, "none")),
    ];
    if is_ssh {
        lines.push(("credential", or(credential, "default")));
        let unknown = "none on record; `holdfast host trust` fetches it";
        lines.push(("host key", or(keys.join("\n            "), unknown)));
    }
    lines.push(("added", local(host.added)));
    lines.extend(host.retired.map(|at| ("retired", local(at))));
    lines
        .into_iter()
        .map(|(what, text)| {
            let text: Vec<_> = text.split('\n').map(safe).collect();
            format!("{what:<10}  {}\n", text.join("\n"))
        })
        .collect()
}

fn retire(asked: &Retire, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let inventory = site.inventory()?;
    let (at, actor) = (super::now(), super::actor());
    inventory
        .transact(|transaction| inventory.retire_in(transaction, &asked.name, at, &actor))
        .map_err(|error| match error.kind() {
            Kind::Missing => no_host(&asked.name),
            Kind::Retired => Refusal::new(error.to_string()).next("nothing is left to do"),
            _ => fleet_refused(error),
        })?;
    finish(site, screen);
    let name = safe(&asked.name);
    screen.result(&format!(
        "host {name} is retired; its history stays: holdfast status --host {name}"
    ))?;
    Ok(Exit::Clean)
}

fn no_host(name: &str) -> Refusal {
    Refusal::new(format!("no host `{name}` in the inventory"))
        .next("`holdfast host list` prints every host, `holdfast host add` adds one")
}
