//! How a site is run: schedule, queue, maintenance, policy, credentials, tokens.

use std::collections::BTreeSet;

use scan::{
    backend::{self, Backend, Counters, JobView, Maintenance},
    credential::Credential,
    inventory::Host,
    policy::{Active, ComplianceState, Loaded, Registry},
    schedule::Row,
    seal::Book,
    token::{Role, Scope, Token, Tokens},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Error, Moment, Reader, fleet::Attempt};

/// Jobs of one answer: more than a queue has when anybody looks at it. Arbitrary.
const JOBS_MAX: usize = 10_000;

/// A host's place in the schedule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleRow {
    pub(crate) host: String,
    pub(crate) site: String,
    pub(crate) groups: Vec<String>,
    #[schema(value_type = String)]
    pub(crate) state: ComplianceState,
    pub(crate) score: Option<f64>,
    pub(crate) next: Moment,
    pub(crate) last_finished: Option<Moment>,
    pub(crate) last_scan: Option<String>,
    pub(crate) policy_version: Option<String>,
    /// The job that is queued or running.
    pub(crate) job: Option<String>,
    pub(crate) maintenance: bool,
    pub(crate) last_attempt_failed: Option<Attempt>,
}

/// The schedule of the hosts that may be seen, the soonest first.
pub(crate) fn schedule(reader: &Reader<'_>) -> Result<Vec<ScheduleRow>, Error> {
    let backend = reader.backend()?;
    let maintenances = backend.maintenances()?;
    let seen: BTreeSet<String> = reader
        .visible(None)?
        .into_iter()
        .map(|host| host.name)
        .collect();
    let mut rows = backend.schedule()?;
    rows.retain(|row| seen.contains(&row.host));
    rows.sort_by(|one, other| (one.next, &one.host).cmp(&(other.next, &other.host)));
    let row = |row: Row| ScheduleRow {
        last_attempt_failed: super::fleet::attempt(&row),
        maintenance: maintenances.iter().any(|set| set.blocks(&row, reader.now)),
        host: row.host,
        site: row.site,
        groups: row.groups.into_iter().collect(),
        state: row.state,
        score: row.score,
        next: Moment::nanos(row.next),
        last_finished: row.last_finished.map(Moment::nanos),
        last_scan: row.last_scan,
        policy_version: row.policy_version,
        job: row.job,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// A job that waits or runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobRow {
    pub(crate) job: String,
    pub(crate) host: String,
    pub(crate) site: String,
    pub(crate) policy_version: String,
    pub(crate) enqueued: Moment,
    /// Null while it waits.
    pub(crate) worker: Option<String>,
    pub(crate) lease_until: Option<Moment>,
    pub(crate) attempt: u32,
}

/// Jobs that wait or run, of the hosts that may be seen.
pub(crate) fn jobs(reader: &Reader<'_>) -> Result<Vec<JobRow>, Error> {
    let row = |job: JobView| {
        let (worker, until) = job.worker.unzip();
        JobRow {
            job: job.job,
            host: job.host,
            site: job.site,
            policy_version: job.policy_version,
            enqueued: Moment::nanos(job.enqueued),
            worker,
            lease_until: until.map(Moment::nanos),
            attempt: job.attempt,
        }
    };
    let mut jobs = reader.backend()?.jobs(JOBS_MAX)?;
    if !reader.scope.is_everything() {
        let seen: BTreeSet<String> = reader
            .visible(None)?
            .into_iter()
            .map(|host| host.name)
            .collect();
        jobs.retain(|job| seen.contains(&job.host));
    }
    Ok(jobs.into_iter().map(row).collect())
}

/// What the schedule counted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CountersView {
    pub(crate) last_tick: Option<Moment>,
    pub(crate) ticks: u64,
    pub(crate) dispatched: u64,
    pub(crate) refused: u64,
    pub(crate) hmac_rejected: u64,
    pub(crate) reaped: u64,
}

pub(crate) fn counters(reader: &Reader<'_>) -> Result<CountersView, Error> {
    let counters: Counters = reader.backend()?.counters()?;
    Ok(CountersView {
        last_tick: counters.last_tick.map(Moment::nanos),
        ticks: counters.ticks,
        dispatched: counters.total.dispatched,
        refused: counters.refused,
        hmac_rejected: counters.hmac_rejected,
        reaped: counters.reaped,
    })
}

/// Hosts that are left alone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MaintenanceRow {
    /// `host`, `group` or `site`.
    pub(crate) scope: &'static str,
    pub(crate) name: String,
    pub(crate) since: Moment,
    /// Null: until it is cleared.
    pub(crate) until: Option<Moment>,
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl From<&Maintenance> for MaintenanceRow {
    fn from(set: &Maintenance) -> Self {
        let (scope, name) = set.scope.parts();
        Self {
            scope,
            name: name.to_owned(),
            since: Moment::nanos(set.since),
            until: set.until.map(Moment::nanos),
            by: set.by.clone(),
            reason: set.reason.clone(),
        }
    }
}

/// Maintenance that holds for a host that may be seen.
pub(crate) fn maintenances(reader: &Reader<'_>) -> Result<Vec<MaintenanceRow>, Error> {
    let mut all = reader.backend()?.maintenances()?;
    all.retain(|set| !set.ended(reader.now));
    if !reader.scope.is_everything() {
        let seen = reader.visible(None)?;
        let is_of = |host: &Host, set: &Maintenance| match &set.scope {
            backend::Scope::Host(name) => host.name == *name,
            backend::Scope::Group(name) => host.groups.contains(name),
            backend::Scope::Site(name) => host.site == *name,
        };
        all.retain(|set| seen.iter().any(|host| is_of(host, set)));
    }
    Ok(all.iter().map(Into::into).collect())
}

/// A policy that came into force.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PolicyRow {
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) key: String,
    pub(crate) loaded_at: Moment,
    pub(crate) loaded_by: String,
}

impl From<&Loaded> for PolicyRow {
    fn from(loaded: &Loaded) -> Self {
        Self {
            version: loaded.version.to_string(),
            sha256: loaded.sha256.clone(),
            key: loaded.key_id.to_string(),
            loaded_at: Moment::nanos(loaded.loaded_at),
            loaded_by: loaded.loaded_by.clone(),
        }
    }
}

/// The policy in force.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PolicyView {
    #[serde(flatten)]
    pub(crate) row: PolicyRow,
    pub(crate) description: String,
    pub(crate) signed_by: Option<String>,
    pub(crate) signed_at: Option<Moment>,
    pub(crate) effective_from: Option<Moment>,
    pub(crate) expires: Option<Moment>,
    /// The signed document, YAML.
    pub(crate) text: String,
}

impl From<&Active> for PolicyView {
    fn from(active: &Active) -> Self {
        let metadata = &active.document.metadata;
        Self {
            row: (&active.loaded).into(),
            description: metadata.description.clone(),
            signed_by: metadata.signed_by.clone(),
            signed_at: metadata.signed_at.map(Moment),
            effective_from: metadata.effective_from.map(Moment),
            expires: metadata.expires.map(Moment),
            text: active.loaded.text.clone(),
        }
    }
}

/// The policy in force; refused with the reason where none may be used.
pub(crate) fn policy(reader: &Reader<'_>) -> Result<PolicyView, Error> {
    let active = Registry::new(reader.store.clone())?.in_force(reader.now)?;
    Ok((&active).into())
}

/// Policies that came into force, the newest first.
pub(crate) fn policies(reader: &Reader<'_>) -> Result<Vec<PolicyRow>, Error> {
    let all = Registry::new(reader.store.clone())?.history()?;
    Ok(all.iter().map(Into::into).collect())
}

/// The public key that the newest statement of the ledger is signed by; none before the first.
pub(crate) fn signing_key(reader: &Reader<'_>) -> Option<String> {
    let book = Book::new(reader.store.clone()).ok()?;
    let snapshot = reader.store.snapshot().ok()?;
    let count = book.count(&snapshot).ok()?;
    let (signed, _) = book.statement(&snapshot, count).ok()?;
    Some(signed.row.key)
}

/// What may be shown of a credential: nothing that opens anything.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CredentialRow {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) user: String,
    /// `never`, `nopassword` or `password`.
    pub(crate) sudo: &'static str,
    /// Which secrets it has, by name.
    #[schema(value_type = Vec<String>)]
    pub(crate) has: Value,
    /// Fingerprint and comment of its key.
    #[schema(value_type = Object)]
    pub(crate) public_key: Value,
    pub(crate) added: Moment,
    pub(crate) rotated: Option<Moment>,
}

impl From<&Credential> for CredentialRow {
    fn from(credential: &Credential) -> Self {
        Self {
            name: credential.name.clone(),
            version: credential.version,
            user: credential.user.clone(),
            sudo: credential.sudo.as_str(),
            has: serde_json::json!(credential.fields),
            public_key: serde_json::json!(credential.public_key),
            added: Moment::nanos(credential.added),
            rotated: credential.rotated.map(Moment::nanos),
        }
    }
}

/// Every credential by name.
pub(crate) fn credentials(vault: &scan::credential::Vault) -> Result<Vec<CredentialRow>, Error> {
    Ok(vault.list()?.iter().map(Into::into).collect())
}

/// A token as it may be shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenRow {
    pub(crate) name: String,
    #[schema(value_type = String, example = "viewer")]
    pub(crate) role: Role,
    pub(crate) scope: ScopeView,
    /// `valid`, `expired` or `revoked`.
    pub(crate) standing: &'static str,
    pub(crate) made: Moment,
    pub(crate) made_by: String,
    pub(crate) expires: Option<Moment>,
    pub(crate) revoked: Option<Moment>,
    /// To the hour; null: never.
    pub(crate) last_used: Option<Moment>,
}

/// Which hosts a token is for; empty: everything.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct ScopeView {
    pub(crate) sites: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) hosts: Vec<String>,
}

impl From<&Scope> for ScopeView {
    fn from(scope: &Scope) -> Self {
        Self {
            sites: scope.sites.iter().cloned().collect(),
            groups: scope.groups.iter().cloned().collect(),
            hosts: scope.hosts.iter().cloned().collect(),
        }
    }
}

impl TokenRow {
    pub(crate) fn of(token: &Token, used: Option<u64>, now: world::Timestamp) -> Self {
        Self {
            name: token.name.clone(),
            role: token.role,
            scope: (&token.scope).into(),
            standing: token.standing(now).name(),
            made: Moment::nanos(token.made),
            made_by: token.made_by.clone(),
            expires: token.expires.map(Moment::nanos),
            revoked: token.revoked.map(Moment::nanos),
            last_used: used.map(Moment::nanos),
        }
    }
}

/// Every token by name.
pub(crate) fn tokens(reader: &Reader<'_>) -> Result<Vec<TokenRow>, Error> {
    let all = Tokens::new(reader.store.clone())?.list()?;
    let row = |(token, used): &(Token, Option<u64>)| TokenRow::of(token, *used, reader.now);
    Ok(all.iter().map(row).collect())
}
