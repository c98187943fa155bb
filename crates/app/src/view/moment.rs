//! Moments in answers: RFC 3339 in UTC for programs, the time itself for whoever renders pages.

use std::{borrow::Cow, fmt};

use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};
use world::Timestamp;

use super::{Error, Kind};
use crate::moment;

/// A moment that is written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Moment {
    pub(crate) const fn nanos(nanos: u64) -> Self {
        Self(Timestamp::from_nanos(nanos))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&moment::rfc3339(self.0))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for Moment {
    fn name() -> Cow<'static, str> {
        "Moment".into()
    }
}

/// Reads a moment that has been: an RFC 3339 time, or what people write on a command line, in UTC.
pub(crate) fn past(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let at = parse(text, now)?;
    if at > now {
        let detail = format!("`{}` is in the future", shown(text));
        return Err(Error::new(Kind::Invalid, detail));
    }
    Ok(at)
}

/// Whether a text names the same moment whenever it is read: not `now`, nor a span back from it. A day or
/// hour without a zone is taken for one that does not.
pub(crate) fn stands(text: &str) -> bool {
    text.trim().parse::<jiff::Timestamp>().is_ok()
}

/// Reads a moment, to come or past.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let zoned = jiff::Timestamp::from_nanosecond(i128::from(now.nanos()))
        .map(|now| now.to_zoned(jiff::tz::TimeZone::UTC));
    zoned
        .ok()
        .and_then(|now| moment::parse(text, &now).ok())
        .ok_or_else(|| {
            let detail = format!(
                "`{}` is no moment; write one as 2026-01-15T08:00:00Z",
                shown(text)
            );
            Error::new(Kind::Invalid, detail)
        })
}

fn shown(text: &str) -> String {
    text.escape_debug().take(60).collect()
}
