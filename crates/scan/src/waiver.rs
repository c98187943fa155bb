//! Waivers: somebody owns a failure until a date, and somebody else agreed.
//!
//! A waiver never touches a verdict: the ledger does not know of them, and whoever shows a verdict
//! shows the waiver beside it. Each step keeps its moment in one row that is only added to, so that
//! what a waiver was at any past moment can be told from the row of today. It ends by itself.

use std::{collections::BTreeSet, error, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::Timestamp;

use crate::{
    audit::{Audit, Record},
    inventory::{Host, Kind},
};

const TABLE: &str = "waiver.waiver";
/// Longest life: what is still wanted after a year is looked at again by two people.
pub const LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Waivers of one data directory, ended ones too, since their past can be asked for; all are read
/// for an answer.
const WAIVERS_MAX: usize = 20_000;
/// Characters of a reason; a paragraph.
const TEXT_CHARS_MAX: usize = 1000;

/// Whom a waiver is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "for", content = "name", rename_all = "snake_case")]
pub enum Target {
    Host(String),
    Group(String),
    Site(String),
    Tag(String),
}

impl Target {
    fn name(&self) -> &str {
        match self {
            Self::Host(name) | Self::Group(name) | Self::Site(name) | Self::Tag(name) => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Host(_) => "host",
            Self::Group(_) => "group",
            Self::Site(_) => "site",
            Self::Tag(_) => "tag",
        };
        f.pad(&format!("{kind} {}", self.name()))
    }
}

/// Where a waiver stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Requested,
    /// The only one that is shown beside a verdict.
    Approved,
    Revoked,
    Expired,
}

impl Standing {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Approved => "approved",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// A step that somebody took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Nanoseconds since the epoch.
    pub at: u64,
    pub by: String,
    /// Why, where that is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub rule: String,
    pub target: Target,
    /// Who answers for the failure while it is waived.
    pub owner: String,
    pub reason: String,
    pub expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// From 1, in the order of requests.
    pub id: u32,
    pub rule: String,
    #[serde(flatten)]
    pub target: Target,
    pub owner: String,
    pub reason: String,
    pub expires: u64,
    pub requested: Step,
    #[serde(default)]
    pub approved: Option<Step>,
    #[serde(default)]
    pub revoked: Option<Step>,
}

impl Waiver {
    /// `None` before it was requested.
    pub fn standing(&self, at: Timestamp) -> Option<Standing> {
        let by_then = |step: &Option<Step>| step.as_ref().is_some_and(|step| step.at <= at.nanos());
        if at.nanos() < self.requested.at {
            None
        } else if by_then(&self.revoked) {
            Some(Standing::Revoked)
        } else if self.expires <= at.nanos() {
            Some(Standing::Expired)
        } else if by_then(&self.approved) {
            Some(Standing::Approved)
        } else {
            Some(Standing::Requested)
        }
    }

    /// The first moment after `at` from which on it may stand otherwise than at `at`.
    pub fn turns_after(&self, at: Timestamp) -> Option<Timestamp> {
        let of = |step: &Option<Step>| step.as_ref().map(|step| step.at);
        let steps = [
            Some(self.requested.at),
            of(&self.approved),
            of(&self.revoked),
        ];
        let turns = steps.into_iter().flatten().chain([self.expires]);
        let turns = turns.filter(|turn| *turn > at.nanos()).min();
        turns.map(Timestamp::from_nanos)
    }

    /// `labels` are those of the host, if it is in the inventory.
    pub fn is_for(&self, rule: &str, host: &str, labels: Option<&Host>) -> bool {
        let has = |set: fn(&Host) -> &BTreeSet<String>, name: &String| {
            labels.is_some_and(|host| set(host).contains(name))
        };
        self.rule == rule
            && match &self.target {
                Target::Host(name) => name == host,
                Target::Group(name) => has(|host| &host.groups, name),
                Target::Tag(name) => has(|host| &host.tags, name),
                Target::Site(name) => labels.is_some_and(|host| host.site == *name),
            }
    }
}

/// The waiver to show beside a verdict: of those that hold, the one that holds longest.
pub fn beside<'w>(
    waivers: &'w [Waiver],
    rule: &str,
    host: &str,
    labels: Option<&Host>,
    at: Timestamp,
) -> Option<&'w Waiver> {
    waivers
        .iter()
        .filter(|waiver| waiver.is_for(rule, host, labels))
        .filter(|waiver| waiver.standing(at) == Some(Standing::Approved))
        .max_by_key(|waiver| waiver.expires)
}

/// A step that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub detail: String,
    pub next: String,
}

impl Error {
    fn new(detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            kind: Kind::Invalid,
            detail: detail.into(),
            next: next.into(),
        }
    }

    fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match error.kind() {
            store::Kind::Conflict => Kind::Conflict,
            _ => Kind::Storage,
        };
        Self::new(
            format!("waivers in the store: {error}"),
            "run `holdfast doctor` to check disk and data directory",
        )
        .of(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl error::Error for Error {}

/// The waivers, on a store that has [`Waivers::tables`] and [`Audit::tables`].
#[derive(Clone)]
pub struct Waivers {
    store: Store,
    table: TableId,
    audit: Audit,
}

impl fmt::Debug for Waivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waivers")
    }
}

impl Waivers {
    pub fn tables() -> Vec<Table> {
        vec![Table::new(TABLE, History::Forever)]
    }

    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self {
            table: store.table(TABLE)?,
            audit: Audit::of(&store)?,
            store,
        })
    }

    /// Asks for a waiver; it holds once somebody else approved it.
    pub fn request(&self, request: &Request, now: Timestamp, by: &str) -> Result<Waiver, Error> {
        self.store
            .transact(|transaction| self.request_in(transaction, request, now, by))
    }

    /// As [`Waivers::request`], in somebody else's transaction.
    pub fn request_in(
        &self,
        transaction: &mut Transaction,
        request: &Request,
        now: Timestamp,
        by: &str,
    ) -> Result<Waiver, Error> {
        check(request, now)?;
        let last = transaction.range(self.table, &Keys::all(), Order::Descending, 1)?;
        let last = last.first().map(|(_, row)| decode(row)).transpose()?;
        let id = last.map_or(0, |waiver| waiver.id) + 1;
        if usize::try_from(id).unwrap_or(usize::MAX) > WAIVERS_MAX {
            return Err(Error::new(
                format!("{WAIVERS_MAX} waivers were requested already"),
                "mend what is waived, or leave out the rules that this site does not follow",
            ));
        }
        let waiver = Waiver {
            id,
            rule: request.rule.clone(),
            target: request.target.clone(),
            owner: request.owner.trim().to_owned(),
            reason: request.reason.trim().to_owned(),
            expires: request.expires.nanos(),
            requested: step(now, by, ""),
            approved: None,
            revoked: None,
        };
        self.put(transaction, &waiver, "waiver.requested", &waiver.requested)?;
        Ok(waiver)
    }

    /// By another name than the owner's and than who requested it. Names are compared as people
    /// read them; who runs the command is not proven to be who it says.
    pub fn approve(&self, id: u32, now: Timestamp, by: &str) -> Result<Waiver, Error> {
        self.store
            .transact(|transaction| self.approve_in(transaction, id, now, by))
    }

    /// As [`Waivers::approve`], in somebody else's transaction.
    pub fn approve_in(
        &self,
        transaction: &mut Transaction,
        id: u32,
        now: Timestamp,
        by: &str,
    ) -> Result<Waiver, Error> {
        let mut waiver = self.must_be(transaction, id, now, &[Standing::Requested])?;
        for (role, name) in [
            ("owner", &waiver.owner),
            ("requester", &waiver.requested.by),
        ] {
            if same_name(name, by) {
                return Err(Error::new(
                    format!("`{by}` is the {role} of waiver {id}"),
                    "have somebody else approve it; `--by NAME` says who",
                ));
            }
        }
        person("approver", by)?;
        let approved = step(now, by, "");
        waiver.approved = Some(approved.clone());
        self.put(transaction, &waiver, "waiver.approved", &approved)?;
        Ok(waiver)
    }

    /// Ends a waiver, or a request, before its time.
    pub fn revoke(&self, id: u32, why: &str, now: Timestamp, by: &str) -> Result<Waiver, Error> {
        self.store
            .transact(|transaction| self.revoke_in(transaction, id, why, now, by))
    }

    /// As [`Waivers::revoke`], in somebody else's transaction.
    pub fn revoke_in(
        &self,
        transaction: &mut Transaction,
        id: u32,
        why: &str,
        now: Timestamp,
        by: &str,
    ) -> Result<Waiver, Error> {
        person("reason", why)?;
        let open = [Standing::Requested, Standing::Approved];
        let mut waiver = self.must_be(transaction, id, now, &open)?;
        let revoked = step(now, by, why);
        waiver.revoked = Some(revoked.clone());
        self.put(transaction, &waiver, "waiver.revoked", &revoked)?;
        Ok(waiver)
    }

    /// The waiver as `transaction` sees it.
    pub fn get_in(&self, transaction: &mut Transaction, id: u32) -> Result<Option<Waiver>, Error> {
        let found = transaction.get(self.table, &id.to_be_bytes())?;
        found.map(|row| decode(&row)).transpose()
    }

    /// Every waiver there ever was, by id.
    pub fn list(&self) -> Result<Vec<Waiver>, Error> {
        let rows =
            self.store
                .begin()?
                .range(self.table, &Keys::all(), Order::Ascending, WAIVERS_MAX)?;
        rows.iter().map(|(_, row)| decode(row)).collect()
    }

    fn must_be(
        &self,
        transaction: &mut Transaction,
        id: u32,
        now: Timestamp,
        wanted: &[Standing],
    ) -> Result<Waiver, Error> {
        let waiver = self.get_in(transaction, id)?.ok_or_else(|| {
            Error::new(
                format!("no waiver {id}"),
                "`holdfast waiver list` names those there are",
            )
            .of(Kind::Missing)
        })?;
        let standing = waiver.standing(now);
        if standing.is_some_and(|standing| wanted.contains(&standing)) {
            return Ok(waiver);
        }
        let standing = standing.map_or("not yet requested", Standing::name);
        Err(Error::new(
            format!("waiver {id} is {standing}"),
            "request another with `holdfast waiver add`",
        )
        .of(Kind::Exists))
    }

    fn put(
        &self,
        transaction: &mut Transaction,
        waiver: &Waiver,
        action: &str,
        step: &Step,
    ) -> Result<(), Error> {
        let row = serde_json::to_vec(waiver).expect("rows are plain structs with string keys");
        transaction.put(self.table, &waiver.id.to_be_bytes(), &row)?;
        let detail = json!({
            "rule": waiver.rule,
            "for": waiver.target.to_string(),
            "owner": waiver.owner,
            "reason": if step.reason.is_empty() { &waiver.reason } else { &step.reason },
            "expires": waiver.expires,
        });
        let at = Timestamp::from_nanos(step.at);
        let record = Record::new(
            at,
            &step.by,
            action,
            &format!("waiver {}", waiver.id),
            detail,
        );
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn step(at: Timestamp, by: &str, reason: &str) -> Step {
    Step {
        at: at.nanos(),
        by: by.trim().to_owned(),
        reason: reason.trim().to_owned(),
    }
}

/// `user anna` of the command line and `Anna` are one.
fn same_name(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        let name = name.trim().to_lowercase();
        name.strip_prefix("user ")
            .unwrap_or(&name)
            .trim()
            .to_owned()
    };
    plain(one) == plain(other)
}

fn person(what: &str, text: &str) -> Result<(), Error> {
    let text = text.trim();
    if text.is_empty()
        || text.chars().count() > TEXT_CHARS_MAX
        || text.chars().any(char::is_control)
    {
        return Err(Error::new(
            format!("the {what} is not 1 to {TEXT_CHARS_MAX} characters on one line"),
            format!("give a {what} that tells somebody else something"),
        ));
    }
    Ok(())
}

fn check(request: &Request, now: Timestamp) -> Result<(), Error> {
    person("owner", &request.owner)?;
    person("reason", &request.reason)?;
    person("name of the target", request.target.name())?;
    if request.expires <= now {
        return Err(Error::new(
            "the waiver ends before it begins",
            "give a later moment",
        ));
    }
    if request.expires > now.plus(LIFE_MAX) {
        return Err(Error::new(
            "the waiver holds for more than 366 days",
            "give an earlier end; it can be requested again",
        ));
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<Waiver, Error> {
    serde_json::from_slice(bytes).map_err(|_| {
        Error::new(
            "a waiver in the store does not decode",
            "run `holdfast doctor`; nothing was changed",
        )
        .of(Kind::Storage)
    })
}

#[cfg(test)]
mod tests;
