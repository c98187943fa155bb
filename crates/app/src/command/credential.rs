//! `holdfast credential`.

use ::scan::credential::{Credential, Secret};
use serde_json::json;
use world::Timestamp;

use crate::{
    cli::{
        Output,
        credential::{Action, Add, Remove, Rotate},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment, node,
    present::{counted, csv, table},
    screen::Screen,
    site::{self, Site, fleet_refused},
};

mod secrets;

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Add(asked) => add(asked, config, screen),
        Action::List => list(config, screen),
        Action::Rotate(asked) if asked.data_key => rotate_data_key(config, screen),
        Action::Rotate(asked) => rotate(asked, config, screen),
        Action::Remove(asked) => remove(asked, config, screen),
    }
}

fn add(asked: &Add, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    // What is asked for is read before the directory is opened: a person types for a minute.
    let mut secret = Secret::of_user(&asked.user, Default::default());
    secrets::read(&asked.secrets, &mut secret, screen)?;
    let site = Site::open(config, screen)?;
    let added = site
        .vault()?
        .add(&asked.name, &secret, super::now(), &super::actor())
        .map_err(|error| match error.kind() {
            ::scan::inventory::Kind::Exists => Refusal::new(error.to_string()).next(format!(
                "replace its secrets with `holdfast credential rotate {}`, or choose another name",
                asked.name
            )),
            _ => fleet_refused(error),
        })?;
    finish(site, screen);
    told(&added, "sealed", screen)?;
    Ok(Exit::Clean)
}

fn rotate(asked: &Rotate, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let name = asked.name.as_deref().unwrap_or_default();
    if asked.user.is_none() && !secrets::is_any(&asked.secrets) {
        return Err(
            Refusal::new(format!("nothing is given that credential `{name}` gets"))
                .next("name what is replaced: --key, --password, --sudo, --user and so on"),
        );
    }
    let site = Site::open_fleet(config, screen)?;
    let mut secret = site.vault()?.open(name).map_err(fleet_refused)?;
    site.close(screen);
    if let Some(user) = &asked.user {
        secret.user.clone_from(user);
    }
    secrets::read(&asked.secrets, &mut secret, screen)?;
    let site = Site::open_fleet(config, screen)?;
    let rotated = site
        .vault()?
        .replace(name, &secret, super::now(), &super::actor())
        .map_err(fleet_refused)?;
    finish(site, screen);
    told(&rotated, "sealed again", screen)?;
    Ok(Exit::Clean)
}

fn rotate_data_key(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let count = site
        .vault()?
        .rotate_data_key_after(super::now(), &super::actor(), &|| {
            node::carry_keys(site.dir())
        })
        .map_err(fleet_refused)?;
    finish(site, screen);
    let credentials = counted(count as u64, "credential");
    screen.remark(format_args!(
        "{credentials} sealed under another data key; copies of the old one open nothing here"
    ));
    Ok(Exit::Clean)
}

fn remove(asked: &Remove, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let users = site
        .vault()?
        .remove(
            &site.inventory()?,
            &asked.name,
            asked.force,
            super::now(),
            &super::actor(),
        )
        .map_err(fleet_refused)?;
    finish(site, screen);
    screen.remark(format_args!("credential {} is removed", asked.name));
    if !users.is_empty() {
        screen.remark(format_args!(
            "{} cannot be logged in to without it",
            counted(users.len() as u64, "host")
        ));
    }
    Ok(Exit::Clean)
}

fn finish(site: Site, screen: Screen) {
    let dir = site.dir().to_owned();
    site.close(screen);
    site::changed(&dir, screen);
}

/// What was done, without the secret.
fn told(credential: &Credential, done: &str, screen: Screen) -> Result<(), Refusal> {
    let [name, user, what, sudo, key, ..] = row(credential);
    let key = if key.is_empty() {
        key
    } else {
        format!(" {key}")
    };
    screen.result(&crate::present::safe(&format!(
        "credential {name} {done}: {user}, {what}{key}, sudo {sudo}"
    )))
}

fn list(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let credentials = site.vault()?.list().map_err(fleet_refused)?;
    site.close(screen);
    let rows = credentials.iter().map(row);
    let text = match config.output.value {
        Output::Json => super::json(&json!({
            "credentials": credentials.iter().map(document).collect::<Vec<_>>()
        }))?,
        Output::Csv => csv::lines(
            [
                "name",
                "user",
                "kinds",
                "sudo",
                "fingerprint",
                "added",
                "rotated",
            ],
            rows,
        ),
        Output::Table if credentials.is_empty() => {
            screen.remark(
                "no credentials; `holdfast credential add default --user NAME --key FILE` adds one",
            );
            return Ok(Exit::Clean);
        }
        Output::Table => table::rows(
            ["NAME", "USER", "KINDS", "SUDO", "FINGERPRINT", "CHANGED"],
            credentials.iter().map(|credential| {
                let [name, user, kinds, sudo, key, ..] = row(credential);
                let changed = credential.rotated.unwrap_or(credential.added);
                let changed = moment::local(Timestamp::from_nanos(changed));
                [name, user, kinds, sudo, key, changed]
            }),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn row(credential: &Credential) -> [String; 7] {
    let kinds: Vec<_> = credential
        .fields
        .iter()
        .map(|field| field.name().replace('_', " "))
        .collect();
    let time = |at| moment::rfc3339(Timestamp::from_nanos(at));
    [
        credential.name.clone(),
        credential.user.clone(),
        kinds.join(" + "),
        credential.sudo.as_str().to_owned(),
        credential
            .public_key
            .as_ref()
            .map(|key| format!("{} {}", key.algorithm, key.fingerprint))
            .unwrap_or_default(),
        time(credential.added),
        credential.rotated.map(time).unwrap_or_default(),
    ]
}

fn document(credential: &Credential) -> serde_json::Value {
    let time = |at| moment::rfc3339(Timestamp::from_nanos(at));
    json!({
        "name": credential.name,
        "user": credential.user,
        "kinds": credential.fields,
        "sudo": credential.sudo,
        "public_key": credential.public_key,
        "version": credential.version,
        "added": time(credential.added),
        "rotated": credential.rotated.map(time),
    })
}
