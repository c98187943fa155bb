//! Values that a site gives to the variables of rules: everywhere, for a site, a group or one host.
//!
//! The nearest to the host wins: host, then group, then site, then everywhere, then the rule's own
//! default. Of two groups of a host that differ, the first by name wins: an order that anybody can
//! look up, where a refusal would leave the host unscanned because somebody put it into a group. A
//! value is checked against the rule when it is set. One that a changed rule does not take any more
//! is left out and told: the rule's default is judged by, and the change row says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    error, fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{History, Keys, Order, Store, Table, TableId, Transaction};
use world::Timestamp;

use crate::{
    audit::{Audit, Record},
    inventory::{Host, Inventory, Kind},
    rule::{Rule, Variables},
};

const TABLE: &str = "variable.value";
/// Settings of one data directory; all of them are read for a scan. Each variable of the pack set
/// for a hundred groups has room.
const SETTINGS_MAX: usize = 20_000;
/// Bytes of one value: a long list of names.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Whom a setting is for, the nearest to a host last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", content = "of", rename_all = "snake_case")]
pub enum Scope {
    Everywhere,
    Site(String),
    Group(String),
    Host(String),
}

impl Scope {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Everywhere => "everywhere",
            Self::Site(_) => "site",
            Self::Group(_) => "group",
            Self::Host(_) => "host",
        }
    }

    pub fn of(&self) -> &str {
        match self {
            Self::Everywhere => "",
            Self::Site(name) | Self::Group(name) | Self::Host(name) => name,
        }
    }

    fn holds_for(&self, place: &Place<'_>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Site(site) => place.site == Some(site),
            Self::Group(group) => place.groups.is_some_and(|groups| groups.contains(group)),
            Self::Host(host) => place.host == host,
        }
    }

    /// Sorts the strongest first: the kind, then the name.
    fn strength(&self) -> (u8, &str) {
        let kind = match self {
            Self::Host(_) => 0,
            Self::Group(_) => 1,
            Self::Site(_) => 2,
            Self::Everywhere => 3,
        };
        (kind, self.of())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.pad("everywhere"),
            named => f.pad(&format!("{} {}", named.kind(), named.of())),
        }
    }
}

/// Where a host is. One that is not in the inventory has only its name.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub host: &'a str,
    pub site: Option<&'a String>,
    pub groups: Option<&'a BTreeSet<String>>,
}

impl<'a> Place<'a> {
    pub fn of(name: &'a str, host: Option<&'a Host>) -> Self {
        Self {
            host: name,
            site: host.map(|host| &host.site),
            groups: host.map(|host| &host.groups),
        }
    }
}

/// One value for one variable of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub rule: String,
    pub variable: String,
    #[serde(flatten)]
    pub scope: Scope,
    pub value: Value,
    /// Nanoseconds since the epoch.
    pub set_at: u64,
    pub set_by: String,
}

/// A setting that was not taken.
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
            format!("variables in the store: {error}"),
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

/// The settings, on a store that has [`Settings::tables`] and [`Audit::tables`].
#[derive(Clone)]
pub struct Settings {
    store: Store,
    table: TableId,
    audit: Audit,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

impl Settings {
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

    /// Sets a value that `rule` takes. The one before, if there was one, is in the audit log.
    pub fn set(&self, rule: &Rule, setting: &Setting) -> Result<(), Error> {
        self.store
            .transact(|transaction| self.set_in(transaction, rule, setting))
    }

    /// As [`Settings::set`], in somebody else's transaction.
    pub fn set_in(
        &self,
        transaction: &mut Transaction,
        rule: &Rule,
        setting: &Setting,
    ) -> Result<(), Error> {
        check(rule, setting)?;
        let before = self.get(transaction, setting)?;
        if before.is_none() && self.read(transaction)?.len() >= SETTINGS_MAX {
            return Err(Error::new(
                format!("{SETTINGS_MAX} values are set already"),
                "unset some, or set one for a group instead of each host",
            ));
        }
        transaction.put(self.table, &key(setting), &encode(setting))?;
        let detail =
            json!({ "scope": setting.scope.to_string(), "value": setting.value, "before": before });
        self.record(transaction, "variable.set", setting, detail)
    }

    /// False when it was not set. `setting` says which, when and by whom; its value is not looked at.
    pub fn unset(&self, setting: &Setting) -> Result<bool, Error> {
        self.store
            .transact(|transaction| self.unset_in(transaction, setting))
    }

    /// As [`Settings::unset`], in somebody else's transaction.
    pub fn unset_in(
        &self,
        transaction: &mut Transaction,
        setting: &Setting,
    ) -> Result<bool, Error> {
        let Some(before) = self.get(transaction, setting)? else {
            return Ok(false);
        };
        transaction.delete(self.table, &key(setting))?;
        let detail = json!({ "scope": setting.scope.to_string(), "before": before });
        self.record(transaction, "variable.unset", setting, detail)?;
        Ok(true)
    }

    /// By rule, variable and scope; now, or as it was at a moment.
    pub fn list(&self) -> Result<Vec<Setting>, Error> {
        self.read(&mut self.store.begin()?)
    }

    /// The value that is set where `setting` would be.
    pub fn find_in(
        &self,
        transaction: &mut Transaction,
        setting: &Setting,
    ) -> Result<Option<Setting>, Error> {
        let found = transaction.get(self.table, &key(setting))?;
        found.map(|value| decode(&value)).transpose()
    }

    fn get(
        &self,
        transaction: &mut Transaction,
        setting: &Setting,
    ) -> Result<Option<Value>, Error> {
        let found = transaction.get(self.table, &key(setting))?;
        found
            .map(|value| decode(&value).map(|setting| setting.value))
            .transpose()
    }

    fn read(&self, transaction: &mut Transaction) -> Result<Vec<Setting>, Error> {
        let rows = transaction.range(self.table, &Keys::all(), Order::Ascending, SETTINGS_MAX)?;
        rows.iter().map(|(_, value)| decode(value)).collect()
    }

    fn record(
        &self,
        transaction: &mut Transaction,
        action: &str,
        setting: &Setting,
        detail: Value,
    ) -> Result<(), Error> {
        let object = format!("{} {}", setting.rule, setting.variable);
        let at = Timestamp::from_nanos(setting.set_at);
        let record = Record::new(at, &setting.set_by, action, &object, detail);
        Ok(self.audit.append(transaction, &record)?)
    }
}

fn check(rule: &Rule, setting: &Setting) -> Result<(), Error> {
    let name = &setting.variable;
    let of = setting.scope.of();
    if of.len() > 255 || of.chars().any(char::is_control) {
        return Err(Error::new(
            "the scope is no name",
            "name a host, group or site",
        ));
    }
    if setting.value.to_string().len() > VALUE_BYTES_MAX {
        return Err(Error::new(
            format!("the value of `{name}` has more than {VALUE_BYTES_MAX} bytes"),
            "set a shorter one",
        ));
    }
    rule.with_variables(&[(name.clone(), setting.value.clone())].into())
        .map(drop)
        .map_err(|fault| {
            Error::new(
                format!("rule {}: {}", rule.id, fault.what),
                if fault.next.is_empty() {
                    format!("`holdfast rules show {}` tells what it takes", rule.id)
                } else {
                    fault.next
                },
            )
        })
}

/// A rule's values for one host, and where each comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce<'s> {
    pub setting: &'s Setting,
    /// Settings of other groups of the host that say something else.
    pub overruled: Vec<&'s Setting>,
}

/// What holds for a host, by rule and variable.
pub fn in_force<'s>(
    settings: &'s [Setting],
    place: &Place<'_>,
) -> BTreeMap<(&'s str, &'s str), InForce<'s>> {
    let mut found: BTreeMap<(&str, &str), Vec<&Setting>> = BTreeMap::new();
    for setting in settings
        .iter()
        .filter(|setting| setting.scope.holds_for(place))
    {
        let which = (setting.rule.as_str(), setting.variable.as_str());
        found.entry(which).or_default().push(setting);
    }
    found
        .into_iter()
        .map(|(which, mut all)| {
            all.sort_by(|a, b| a.scope.strength().cmp(&b.scope.strength()));
            let first = all[0];
            let overruled = all
                .into_iter()
                .skip(1)
                .filter(|other| {
                    other.scope.kind() == first.scope.kind() && other.value != first.value
                })
                .collect();
            let setting = first;
            (which, InForce { setting, overruled })
        })
        .collect()
}

/// The rules as they are for one host.
#[derive(Clone, Debug)]
pub struct Tuned {
    pub rules: Vec<Rule>,
    /// Settings that their rule does not take any more: left out.
    pub stale: Vec<Setting>,
}

/// `rules` as they are for the host `name`, by what `store` holds of settings and inventory.
pub fn rules_for(store: &Store, rules: &[Rule], name: &str) -> Result<Tuned, Error> {
    let settings = Settings::new(store.clone())?.list()?;
    let host = Inventory::new(store.clone())
        .and_then(|inventory| inventory.get(name))
        .map_err(|error| {
            Error::new(
                error.to_string(),
                "run `holdfast doctor` to check the record",
            )
        })?;
    Ok(tune(rules, &settings, &Place::of(name, host.as_ref())))
}

/// `rules` with the values of the site for the host at `place`, in the same order.
pub fn tune(rules: &[Rule], settings: &[Setting], place: &Place<'_>) -> Tuned {
    let mut values: BTreeMap<&str, Variables> = BTreeMap::new();
    let mut stale = Vec::new();
    let by_id: BTreeMap<&str, &Rule> = rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    for ((rule, variable), held) in in_force(settings, place) {
        let Some(known) = by_id.get(rule) else {
            continue; // a rule that left the pack judges nothing
        };
        if check(known, held.setting).is_err() {
            stale.push(held.setting.clone());
            continue;
        }
        let value = held.setting.value.clone();
        values
            .entry(rule)
            .or_default()
            .insert(variable.to_owned(), value);
    }
    let rules = rules
        .iter()
        .map(|rule| match values.get(rule.id.as_str()) {
            // Each value was taken alone, and values of one rule do not look at each other.
            Some(values) => rule.with_variables(values).unwrap_or_else(|_| rule.clone()),
            None => rule.clone(),
        })
        .collect();
    Tuned { rules, stale }
}

/// By rule and variable, so that one rule's settings are together; parts are joined by a zero byte,
/// which none of them holds.
fn key(setting: &Setting) -> Vec<u8> {
    [
        setting.rule.as_str(),
        setting.variable.as_str(),
        setting.scope.kind(),
        setting.scope.of(),
    ]
    .join("\0")
    .into_bytes()
}

fn encode(setting: &Setting) -> Vec<u8> {
    serde_json::to_vec(setting).expect("rows are plain structs with string keys")
}

fn decode(bytes: &[u8]) -> Result<Setting, Error> {
    serde_json::from_slice(bytes).map_err(|_| {
        Error::new(
            "a setting in the store does not decode",
            "run `holdfast doctor`; nothing was changed",
        )
    })
}

#[cfg(test)]
mod tests;
