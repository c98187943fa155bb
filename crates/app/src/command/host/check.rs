//! `holdfast host check`: what the next scan will find on its way in.

use std::{sync::Arc, time::Duration};

use ::scan::{
    credential::{Credential, Secret},
    failure::{Failure, Reason},
    inventory::{Host, Reach},
    policy::HostKeyPolicy,
    ssh::{self, Endpoint, Patience, Privilege, Trust},
};
use serde_json::json;
use uuid::Uuid;
use world::{Clock, RealClock};

use crate::{
    cli::{Output, host::Check},
    config::Config,
    exit::{Exit, Refusal},
    present::{csv, safe},
    screen::Screen,
    site::{Site, fleet_refused},
};

/// A person waits: connection, login and sudo of a slow host, each with its own limit below this.
const CHECK_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(asked: &Check, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_fleet(config, screen)?;
    let host = site
        .inventory()?
        .get(&asked.name)
        .map_err(fleet_refused)?
        .ok_or_else(|| super::no_host(&asked.name))?;
    if host.retired.is_some() {
        return Err(super::taken(&host));
    }
    let Some(known) = super::known(&site, &host)? else {
        site.close(screen);
        screen.result(&safe(&format!(
            "host {}: {}, nothing to connect to",
            host.name,
            super::reach(&host)
        )))?;
        return Ok(Exit::Clean);
    };
    let credential = host
        .credential
        .as_deref()
        .unwrap_or(::scan::credential::DEFAULT);
    let shown = site.vault()?.get(credential).map_err(fleet_refused)?;
    // Closed while the network is waited for.
    site.close(screen);
    let Reach::Ssh { address, port, .. } = &host.reach else {
        return Ok(Exit::Clean);
    };
    let endpoint = Endpoint {
        address: address.clone(),
        port: *port,
    };
    let clock = RealClock::new();
    let patience = Patience::new(Arc::new(RealClock::new()), CHECK_MAX, Arc::new(()));
    let trust = Trust {
        known,
        // Whatever the policy takes from a scan, a person is told of a key that nobody vouched for.
        policy: HostKeyPolicy::RequireKnown,
        first_sight: Arc::new(|_| Ok(())),
    };
    let mut user = String::new();
    let started = clock.monotonic();
    let outcome = ssh::connect(
        &endpoint,
        &trust,
        || {
            let secret = resolve(&host, config, screen)?;
            user.clone_from(&secret.user);
            Ok(secret)
        },
        ssh::Limits::default(),
        &patience,
    )
    .and_then(|connection| connection.start("true", Uuid::new_v4().as_u128()))
    .map(|(session, privilege)| {
        session.close();
        privilege
    });
    let took = clock.monotonic() - started;
    let privilege = outcome.map_err(|failure| refused(&failure, &host.name, credential))?;
    print(
        &host.name,
        &user,
        shown.as_ref(),
        &privilege,
        took,
        config,
        screen,
    )
}

/// What logs in, opened only when the host's key was accepted.
fn resolve(host: &Host, config: &Config, screen: Screen) -> Result<Secret, Failure> {
    let internal = |refusal: Refusal| Failure::new(Reason::Internal, refusal.into_parts().0);
    let site = Site::open_fleet(config, screen).map_err(internal)?;
    let secret = site.vault().map_err(internal)?.resolve(host);
    site.close(screen);
    secret
}

fn print(
    host: &str,
    user: &str,
    credential: Option<&Credential>,
    privilege: &Privilege,
    took: Duration,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let (word, said) = match privilege {
        Privilege::Root => ("root", "who is root".to_owned()),
        Privilege::SudoNoPassword => ("sudo", "root by sudo without a password".to_owned()),
        Privilege::SudoPassword => ("sudo_password", "root by sudo with the password".to_owned()),
        Privilege::None { why } => ("none", format!("no root: {why}")),
    };
    let millis = took.as_millis();
    let name = credential.map_or("", |credential| credential.name.as_str());
    let text = match config.output.value {
        Output::Json => crate::command::json(&json!({
            "host": host,
            "user": user,
            "credential": name,
            "privilege": word,
            "took_ms": u64::try_from(millis).unwrap_or(u64::MAX),
        }))?,
        Output::Csv => csv::lines(
            ["host", "user", "credential", "privilege", "took_ms"],
            [[host, user, name, word, &millis.to_string()].map(str::to_owned)],
        ),
        Output::Table => safe(&format!(
            "host {host}: logged in as {user}, {said}, in {millis} ms"
        )),
    };
    screen.result(&text)?;
    if let Privilege::None { .. } = privilege {
        screen.remark(
            "rules that need root are not assessed; allow sudo for this user, or give its password: \
             holdfast credential rotate NAME --sudo-password",
        );
        return Ok(Exit::Incomplete);
    }
    Ok(Exit::Clean)
}

/// What went wrong, and what to do about it (EXE-10 names every way in which it can).
fn refused(failure: &Failure, host: &str, credential: &str) -> Refusal {
    let next = match failure.reason {
        Reason::HostUnreachable => {
            "check address, port and firewall, and that sshd runs".to_owned()
        }
        Reason::HostKeyUnknown => format!("vouch for its key: holdfast host trust {host}"),
        Reason::HostKeyChanged => format!(
            "find out why it changed; if the host was set up anew: holdfast host trust {host} --replace"
        ),
        Reason::AuthFailed => format!(
            "check user and key on the host (~/.ssh/authorized_keys), or replace the credential: \
             holdfast credential rotate {credential}"
        ),
        Reason::CredentialMissing => {
            format!("add it: holdfast credential add {credential} --user NAME --key FILE")
        }
        Reason::CredentialDecryptionFailed => {
            "put back the data key that belongs to this directory, from its backup".to_owned()
        }
        Reason::Timeout => {
            "see that it is sshd that listens there, and look at the load of the host".to_owned()
        }
        Reason::HostBusy | Reason::EvidenceOversize | Reason::Cancelled | Reason::Internal => {
            "try again; `holdfast doctor` checks this side".to_owned()
        }
    };
    Refusal::new(format!("host `{host}`: {failure}")).next(next)
}
