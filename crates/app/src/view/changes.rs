//! What changed: the feed over all hosts, the history of one rule, and the difference of two moments.

use std::{collections::BTreeSet, sync::Arc};

use scan::{
    judge::Outcome,
    ledger::{Cause, ChangeKind, Cursor, Entry, Filter, Heads, Page, Recording},
    rule::Severity,
};
use serde::{Deserialize, Serialize};
use store::Order;
use utoipa::{IntoParams, ToSchema};
use world::Timestamp;

use super::{Error, Kind, Moment, Reader, moment, page_len};

/// Changes of one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// One change of one rule's verdict or severity on one host.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Change {
    /// Its place in the feed; what `cursor` takes, and `Last-Event-ID` of whoever has no id of the stream. After
    /// such an id nothing is missed; after a place what was committed late and stands before it is.
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
    fn of(reader: &Reader<'_>, entry: Entry) -> Self {
        let Entry {
            host,
            change,
            cursor,
        } = entry;
        Self {
            cursor: cursor.to_string(),
            host,
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

impl ChangePage {
    fn of(reader: &Reader<'_>, page: Page<Entry>) -> Self {
        let rows = page.rows.into_iter();
        Self {
            changes: rows.map(|entry| Change::of(reader, entry)).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
        }
    }
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
    if let Some(host) = asked.host.as_deref().filter(|host| !host.is_empty()) {
        reader.must_see(host)?;
    }
    // The ledger takes the last moment, and this the first that is left out.
    let before = |at: Timestamp| Timestamp::from_nanos(at.nanos().saturating_sub(1));
    let filter = Filter {
        host: asked.host.clone(),
        hosts: match asked.host {
            Some(_) => None,
            None => seen(reader)?,
        },
        rule: asked.rule.clone(),
        since: moment(&asked.since)?,
        until: moment(&asked.until)?.map(before),
    };
    let order = if is_oldest_first {
        Order::Ascending
    } else {
        Order::Descending
    };
    let after = asked
        .cursor
        .as_deref()
        .map(str::parse::<Cursor>)
        .transpose()?;
    let limit = page_len(asked.limit, PAGE, PAGE_MAX)?;
    let ledger = reader.ledger()?;
    let found = ledger.changes(&filter, order, after.as_ref(), limit)?;
    Ok(ChangePage::of(reader, found))
}

/// Which changes somebody follows, and how far.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) host: Option<String>,
    pub(crate) rule: Option<String>,
    /// Up to here everything was told.
    pub(crate) told: Arc<Heads>,
    /// Up to here it is told.
    pub(crate) to: Arc<Heads>,
    /// Of what is between, everything up to here was told.
    pub(crate) after: Option<String>,
}

/// Changes that were committed between two positions, wherever they stand among all changes.
pub(crate) fn followed(reader: &Reader<'_>, asked: &Followed) -> Result<ChangePage, Error> {
    let filter = Filter {
        host: asked.host.clone(),
        hosts: match &asked.host {
            Some(_) => None,
            None => seen(reader)?,
        },
        rule: asked.rule.clone(),
        ..Filter::default()
    };
    if let Some(host) = asked.host.as_deref().filter(|host| !host.is_empty()) {
        reader.must_see(host)?;
    }
    let after = asked.after.as_deref().map(str::parse::<Cursor>);
    let after = after.transpose()?;
    let ledger = reader.ledger()?;
    let found = ledger.recorded_since(&asked.told, &asked.to, &filter, after.as_ref(), PAGE_MAX)?;
    Ok(ChangePage::of(reader, found))
}

/// The hosts that may be seen, where those are not all.
fn seen(reader: &Reader<'_>) -> Result<Option<Arc<BTreeSet<String>>>, Error> {
    if reader.scope.is_everything() {
        return Ok(None);
    }
    let visible = reader.visible(None)?.into_iter();
    Ok(Some(Arc::new(visible.map(|host| host.name).collect())))
}

/// When something was recorded.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// `None`: nothing was.
    pub(crate) from: Option<Timestamp>,
    /// Newest first.
    pub(crate) newest: Vec<Recording>,
}

/// When changes were recorded of the hosts that may be seen, the newest `limit` times.
pub(crate) fn recorded(reader: &Reader<'_>, limit: usize) -> Result<Recorded, Error> {
    let (ledger, seen) = (reader.ledger()?, seen(reader)?);
    let newest = ledger.recordings(seen.as_deref(), limit)?;
    // A host is known from its first scan on, and that may have been dated by another clock.
    let oldest_of_newest = newest.last().map(|it| it.at);
    let from = ledger.beginning(seen.as_deref())?;
    Ok(Recorded {
        from: from.into_iter().chain(oldest_of_newest).min(),
        newest,
    })
}

/// How much of a history.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryAsked {
    /// At most this many; 1000 unless given.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<usize>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Changes of one rule on one host, oldest first.
pub(crate) fn history(
    reader: &Reader<'_>,
    host: &str,
    rule: &str,
    asked: &HistoryAsked,
) -> Result<ChangePage, Error> {
    reader.must_see(host)?;
    if host.is_empty() || rule.is_empty() {
        return Err(Error::missing("history of that rule on host", host));
    }
    let after = asked
        .cursor
        .as_deref()
        .map(str::parse::<Cursor>)
        .transpose()?;
    let limit = page_len(asked.limit, PAGE_MAX, PAGE_MAX)?;
    let ledger = reader.ledger()?;
    let found = ledger.history_page(host, rule, after.as_ref(), limit)?;
    if found.rows.is_empty() && after.is_none() {
        return Err(Error::missing("history of that rule on host", host));
    }
    Ok(ChangePage::of(reader, found))
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
