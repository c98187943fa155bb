//! How the site is run: schedule, jobs, maintenance, policy, credentials.

use axum::http::StatusCode;
use scan::{
    backend::{Maintenance, Scope},
    credential::{Secret, Sudo},
    inventory::Inventory,
    policy::{Offer, Registry},
    token::Role,
};
use serde::{Deserialize, Serialize};
use store::Transaction;
use utoipa::{IntoParams, ToSchema, openapi::path::HttpMethod};
use zeroize::Zeroizing;

use super::{
    super::{
        call::{Answer, Call, Problem},
        operation::{Operation, Reach},
    },
    NothingAsked,
};
use crate::view::{self, Error};

/// When each host is scanned next.
#[derive(Serialize, ToSchema)]
struct Schedule {
    hosts: Vec<view::ScheduleRow>,
    counters: view::CountersView,
}

/// Jobs that wait or run.
#[derive(Serialize, ToSchema)]
struct Jobs {
    jobs: Vec<view::JobRow>,
}

/// Hosts that are left alone.
#[derive(Serialize, ToSchema)]
struct MaintenanceList {
    maintenance: Vec<view::MaintenanceRow>,
}

/// Policies that came into force, the newest first.
#[derive(Serialize, ToSchema)]
struct PolicyHistory {
    policies: Vec<view::PolicyRow>,
}

/// What may be shown of the credentials.
#[derive(Serialize, ToSchema)]
struct CredentialList {
    credentials: Vec<view::CredentialRow>,
}

/// Whom maintenance is for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MaintenanceFor {
    Host,
    Group,
    Site,
}

/// Hosts that are to be left alone.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMaintenance {
    scope: MaintenanceFor,
    name: String,
    /// RFC 3339; until it is cleared unless given.
    until: Option<String>,
    #[serde(default)]
    reason: String,
}

/// Which maintenance.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// `host`, `group` or `site`.
    #[param(value_type = String)]
    scope: MaintenanceFor,
    name: String,
}

/// A signed policy, a signed revocation list, or both.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    /// YAML with its signature.
    policy: Option<String>,
    revocation_list: Option<String>,
}

/// What a load did.
#[derive(Serialize, ToSchema)]
struct PolicyLoaded {
    /// False: what was offered is in force already, to the byte.
    changed: bool,
    /// The policy in force afterwards, if there is one.
    version: Option<String>,
    /// The key of the policy in force is revoked: nothing is dispatched until another is loaded.
    active_key_revoked: bool,
}

/// How root is reached on a host.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SudoBody {
    Never,
    #[default]
    NoPassword,
    Password,
}

/// A secret from a body, wiped when it is dropped.
struct Word(Zeroizing<String>);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self(Zeroizing::new(word)))
    }
}

/// Secrets to log in with. They are sealed at once and never read back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecretBody {
    user: String,
    #[schema(value_type = Option<String>)]
    password: Option<Word>,
    /// The text of a private key file.
    #[schema(value_type = Option<String>)]
    private_key: Option<Word>,
    #[schema(value_type = Option<String>)]
    passphrase: Option<Word>,
    #[schema(value_type = Option<String>)]
    sudo_password: Option<Word>,
    #[serde(default)]
    sudo: SudoBody,
}

/// Whether a credential goes although hosts use it.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Force {
    force: Option<bool>,
}

/// Hosts that cannot be logged in to any more.
#[derive(Serialize, ToSchema)]
struct Removed {
    hosts_without: Vec<String>,
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn operations() -> Vec<Operation> {
    let credential = "/api/v1/credentials/{credential}";
    vec![
        Operation::read("/api/v1/schedule", "getSchedule", schedule)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "When each host is scanned next, the soonest first",
            )
            .gives::<Schedule>(),
        Operation::read("/api/v1/jobs", "listJobs", jobs)
            .by(Role::Viewer, Reach::Site, "Jobs that wait or run")
            .gives::<Jobs>(),
        Operation::read("/api/v1/maintenance", "listMaintenance", maintenances)
            .by(Role::Viewer, Reach::Site, "Hosts that are left alone")
            .gives::<MaintenanceList>(),
        Operation::change(
            HttpMethod::Put,
            "/api/v1/maintenance",
            "setMaintenance",
            set,
        )
        .by(Role::Operator, Reach::Site, "Leave hosts alone for a while")
        .takes::<NewMaintenance>()
        .gives::<view::MaintenanceRow>(),
        Operation::change(
            HttpMethod::Delete,
            "/api/v1/maintenance",
            "clearMaintenance",
            clear,
        )
        .by(Role::Operator, Reach::Site, "End maintenance")
        .asks::<Which>()
        .status(204),
        Operation::read("/api/v1/policy", "getPolicy", policy)
            .by(
                Role::Viewer,
                Reach::Site,
                "The policy in force, with its version",
            )
            .gives::<view::PolicyView>()
            .versioned(),
        Operation::act("/api/v1/policy", "loadPolicy", load)
            .by(
                Role::Admin,
                Reach::Site,
                "Load a signed policy, a revocation list, or both in one step",
            )
            .takes::<NewPolicy>()
            .gives::<PolicyLoaded>()
            .versioned(),
        Operation::read("/api/v1/policy/history", "listPolicies", policies)
            .by(
                Role::Viewer,
                Reach::Site,
                "Policies that came into force, the newest first",
            )
            .gives::<PolicyHistory>(),
        Operation::read("/api/v1/credentials", "listCredentials", credentials)
            .by(
                Role::Operator,
                Reach::Site,
                "Names of credentials and what may be shown of them",
            )
            .gives::<CredentialList>(),
        Operation::change(HttpMethod::Post, credential, "addCredential", add)
            .by(
                Role::Admin,
                Reach::Site,
                "Seal a credential under a name that is free",
            )
            .takes::<SecretBody>()
            .gives::<view::CredentialRow>()
            .status(201),
        Operation::change(HttpMethod::Put, credential, "replaceCredential", replace)
            .by(
                Role::Admin,
                Reach::Site,
                "Replace all secrets of a credential",
            )
            .takes::<SecretBody>()
            .gives::<view::CredentialRow>(),
        Operation::change(HttpMethod::Delete, credential, "removeCredential", remove)
            .by(Role::Admin, Reach::Site, "Remove a credential")
            .asks::<Force>()
            .gives::<Removed>(),
    ]
}

fn schedule(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let reader = call.reader();
    Answer::json(&Schedule {
        hosts: view::schedule(&reader)?,
        counters: view::counters(&reader)?,
    })
}

fn jobs(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let jobs = view::jobs(&call.reader())?;
    Answer::json(&Jobs { jobs })
}

fn maintenances(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let maintenance = view::maintenances(&call.reader())?;
    Answer::json(&MaintenanceList { maintenance })
}

fn scope(kind: MaintenanceFor, name: String) -> Scope {
    match kind {
        MaintenanceFor::Host => Scope::Host(name),
        MaintenanceFor::Group => Scope::Group(name),
        MaintenanceFor::Site => Scope::Site(name),
    }
}

fn set(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewMaintenance = call.json()?;
    let until = asked.until.as_deref();
    let until = until.map(|text| view::parse(text, call.now)).transpose()?;
    let maintenance = Maintenance {
        scope: scope(asked.scope, asked.name),
        since: call.now.nanos(),
        until: until.map(world::Timestamp::nanos),
        by: call.actor(),
        reason: asked.reason,
    };
    let backend = call.reader().backend()?;
    backend.set_maintenance_in(transaction, &maintenance, call.now, &call.actor())?;
    Answer::json(&view::MaintenanceRow::from(&maintenance))
}

fn clear(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let asked: Which = call.query()?;
    let scope = scope(asked.scope, asked.name);
    let backend = call.reader().backend()?;
    if !backend.clear_maintenance_in(transaction, &scope, call.now, &call.actor())? {
        return Err(Error::missing("maintenance", &scope.to_string()).into());
    }
    Ok(Answer::nothing())
}

fn policy_tag(sha256: &str) -> String {
    format!("\"{sha256}\"")
}

fn policy(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let policy = view::policy(&call.reader())?;
    let tag = policy_tag(&policy.row.sha256);
    Ok(Answer::json(&policy)?.tagged(tag))
}

fn policies(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let policies = view::policies(&call.reader())?;
    Answer::json(&PolicyHistory { policies })
}

fn load(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewPolicy = call.json()?;
    if asked.policy.is_none() && asked.revocation_list.is_none() {
        return Err(Problem::invalid(
            "neither a policy nor a revocation list was sent",
        ));
    }
    let registry = Registry::new(call.shared.store.clone())?;
    if let Some(active) = registry.history()?.first() {
        call.must_match(&policy_tag(&active.sha256))?;
    }
    let offer = Offer {
        policy: asked
            .policy
            .as_deref()
            .map(|text| (text.as_bytes(), "policy")),
        list: asked
            .revocation_list
            .as_deref()
            .map(|text| (text.as_bytes(), "revocation list")),
    };
    let reloaded = registry.reload(offer, call.now, &call.actor())?;
    Answer::json(&PolicyLoaded {
        changed: reloaded.changed,
        version: reloaded
            .active
            .map(|active| active.loaded.version.to_string()),
        active_key_revoked: reloaded.active_key_revoked,
    })
}

fn credentials(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let credentials = view::credentials(&call.shared.vault()?)?;
    Answer::json(&CredentialList { credentials })
}

fn secret(call: &Call) -> Result<Secret, Problem> {
    let body: SecretBody = call.json()?;
    Ok(Secret {
        credential: call.param("credential").to_owned(),
        user: body.user,
        password: body.password.map(|word| word.0),
        private_key: body.private_key.map(|word| word.0),
        passphrase: body.passphrase.map(|word| word.0),
        sudo_password: body.sudo_password.map(|word| word.0),
        sudo: match body.sudo {
            SudoBody::Never => Sudo::Never,
            SudoBody::NoPassword => Sudo::NoPassword,
            SudoBody::Password => Sudo::Password,
        },
    })
}

fn add(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let (name, secret) = (call.param("credential"), secret(call)?);
    let vault = call.shared.vault()?;
    let made = vault.add_in(transaction, name, &secret, call.now, &call.actor())?;
    Answer::with(StatusCode::CREATED, &view::CredentialRow::from(&made))
}

fn replace(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let (name, secret) = (call.param("credential"), secret(call)?);
    let vault = call.shared.vault()?;
    let made = vault.replace_in(transaction, name, &secret, call.now, &call.actor())?;
    Answer::json(&view::CredentialRow::from(&made))
}

fn remove(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let asked: Force = call.query()?;
    let inventory = Inventory::new(call.shared.store.clone())?;
    let vault = call.shared.vault()?;
    let hosts_without = vault.remove_in(
        transaction,
        &inventory,
        call.param("credential"),
        asked.force.unwrap_or_default(),
        call.now,
        &call.actor(),
    )?;
    Answer::json(&Removed { hosts_without })
}
