//! What changed: the feed over all hosts, the history of one rule, and the difference of two moments.

use scan::{
    judge::Outcome,
    ledger::{self, Cause, ChangeKind},
    rule::Severity,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Error, Kind, Moment, Reader, moment};

/// Changes of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
pub(crate) const PAGE_MAX: usize = 1000;

/// One change of one rule's verdict or severity on one host.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Change {
    /// Its place in the feed; what `cursor` and `Last-Event-ID` take.
    pub(crate) cursor: String,
    pub(crate) host: String,
    pub(crate) rule: String,
    pub(crate) title: String,
    #[schema(value_type = String, example = "state_changed")]
    pub(crate) kind: ChangeKind,
    /// Null: it was not judged before.
    #[schema(value_type = Option<String>, example = "pass")]
    pub(crate) from: Option<Outcome>,
    #[schema(value_type = String, example = "fail")]
    pub(crate) to: Outcome,
    #[schema(value_type = String, example = "high")]
    pub(crate) severity: Severity,
    #[schema(value_type = Option<String>)]
    pub(crate) severity_before: Option<Severity>,
    pub(crate) reason: String,
    /// SHA-256 of the evidence, hexadecimal.
    pub(crate) evidence: String,
    /// What changed: `host`, `rule`, `variables`.
    #[schema(value_type = Vec<String>)]
    pub(crate) because: Vec<Cause>,
    pub(crate) scan: String,
    pub(crate) occurred: Moment,
}

impl Change {
    fn of(reader: &Reader<'_>, host: &str, change: ledger::Change) -> Self {
        Self {
            cursor: format!("{:020}.{}.{host}", change.occurred, change.rule),
            host: host.to_owned(),
            title: reader.title(&change.rule),
            rule: change.rule,
            kind: change.kind,
            from: change.from,
            to: change.to,
            severity: change.severity,
            severity_before: change.severity_before,
            reason: change.reason,
            evidence: change.evidence,
            because: change.because,
            scan: change.scan_id,
            occurred: Moment::nanos(change.occurred),
        }
    }
}

/// Which changes.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesAsked {
    /// Of this host.
    pub(crate) host: Option<String>,
    /// Of this rule.
    pub(crate) rule: Option<String>,
    /// At this moment or later: RFC 3339.
    pub(crate) since: Option<String>,
    /// Before this moment.
    pub(crate) until: Option<String>,
    /// `newest` (the default) or `oldest` first.
    pub(crate) order: Option<String>,
    /// At most this many.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Some of the changes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ChangePage {
    pub(crate) changes: Vec<Change>,
    /// The cursor of the next page; null: this was the last.
    pub(crate) next: Option<String>,
}

/// Changes by time.
pub(crate) fn changes(reader: &Reader<'_>, asked: &ChangesAsked) -> Result<ChangePage, Error> {
    let is_oldest_first = match asked.order.as_deref() {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(_) => return Err(Error::new(Kind::Invalid, "order is `newest` or `oldest`")),
    };
    let moment = |text: &Option<String>| {
        let read = text.as_deref().map(|text| moment::parse(text, reader.now));
        read.transpose()
    };
    let (since, until) = (moment(&asked.since)?, moment(&asked.until)?);
    let mut all = everything(reader, asked)?;
    all.retain(|change| {
        since.is_none_or(|since| change.occurred.0 >= since)
            && until.is_none_or(|until| change.occurred.0 < until)
    });
    all.sort_by(|one, other| one.cursor.cmp(&other.cursor));
    if !is_oldest_first {
        all.reverse();
    }
    if let Some(cursor) = &asked.cursor {
        all.retain(|change| match is_oldest_first {
            true => change.cursor > *cursor,
            false => change.cursor < *cursor,
        });
    }
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let more = all.len() > limit;
    all.truncate(limit);
    Ok(ChangePage {
        next: all
            .last()
            .filter(|_| more)
            .map(|change| change.cursor.clone()),
        changes: all,
    })
}

fn everything(reader: &Reader<'_>, asked: &ChangesAsked) -> Result<Vec<Change>, Error> {
    let ledger = reader.ledger()?;
    let names: Vec<String> = match &asked.host {
        Some(host) => {
            reader.must_see(host)?;
            vec![host.clone()]
        }
        None if reader.scope.is_everything() => {
            ledger.hosts()?.into_iter().map(|host| host.name).collect()
        }
        None => reader
            .visible(None)?
            .into_iter()
            .map(|host| host.name)
            .collect(),
    };
    let mut all = Vec::new();
    for host in names.iter().filter(|name| !name.is_empty()) {
        let status = ledger.status(host, None)?;
        for state in status.iter().flat_map(|status| &status.states) {
            if asked.rule.as_ref().is_none_or(|rule| *rule == state.rule) {
                let changes = ledger.history(host, &state.rule)?;
                all.extend(
                    changes
                        .into_iter()
                        .map(|change| Change::of(reader, host, change)),
                );
            }
        }
    }
    Ok(all)
}

/// Every change of one rule on one host, oldest first.
pub(crate) fn history(reader: &Reader<'_>, host: &str, rule: &str) -> Result<Vec<Change>, Error> {
    reader.must_see(host)?;
    let found = match host.is_empty() || rule.is_empty() {
        true => Vec::new(),
        false => reader.ledger()?.history(host, rule)?,
    };
    if found.is_empty() {
        return Err(Error::missing("history of that rule on host", host));
    }
    let found = found.into_iter();
    Ok(found
        .map(|change| Change::of(reader, host, change))
        .collect())
}

/// Which two moments.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffAsked {
    pub(crate) host: String,
    /// RFC 3339.
    pub(crate) from: String,
    /// RFC 3339; now unless given.
    pub(crate) to: Option<String>,
}

/// A rule that is not the same at two moments.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Difference {
    pub(crate) rule: String,
    pub(crate) title: String,
    /// Null: it was not judged then.
    #[schema(value_type = Option<String>)]
    pub(crate) from: Option<Outcome>,
    #[schema(value_type = Option<String>)]
    pub(crate) to: Option<Outcome>,
    #[schema(value_type = Option<String>)]
    pub(crate) severity_from: Option<Severity>,
    #[schema(value_type = Option<String>)]
    pub(crate) severity_to: Option<Severity>,
    pub(crate) reason: String,
    #[schema(value_type = Vec<String>)]
    pub(crate) because: Vec<Cause>,
}

/// Rules of one host that differ between two moments.
pub(crate) fn diff(reader: &Reader<'_>, asked: &DiffAsked) -> Result<Vec<Difference>, Error> {
    reader.must_see(&asked.host)?;
    let from = moment::past(&asked.from, reader.now)?;
    let to = match &asked.to {
        Some(text) => moment::past(text, reader.now)?,
        None => reader.now,
    };
    if asked.host.is_empty() {
        return Err(Error::no_host(&asked.host));
    }
    let ledger = reader.ledger()?;
    if ledger.status(&asked.host, None)?.is_none() {
        return Err(Error::no_host(&asked.host));
    }
    let found = ledger.diff(&asked.host, from, to)?;
    let seen = |side: Option<(Outcome, Severity)>| side.unzip();
    Ok(found
        .into_iter()
        .map(|difference| {
            let (from, severity_from) = seen(difference.from);
            let (to, severity_to) = seen(difference.to);
            Difference {
                title: reader.title(&difference.rule),
                rule: difference.rule,
                from,
                to,
                severity_from,
                severity_to,
                reason: difference.reason,
                because: difference.because,
            }
        })
        .collect())
}
