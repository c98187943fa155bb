//! One look at one page: what was asked, of which moment, and by whom.

use std::{cell::OnceCell, collections::BTreeMap};

use maud::Markup;
use scan::token::Role;
use world::Timestamp;

use super::{
    frame::{self, Page, Viewer},
    link::Link,
    slider::Span,
    trend::{self, Scores, Spans},
};
use crate::{moment, node::Stand, view};

/// Everything that a page is made from.
pub(super) struct Visit<'a> {
    pub(super) reader: view::Reader<'a>,
    pub(super) viewer: Viewer,
    pub(super) scores: &'a Scores,
    pub(super) spans: &'a Spans,
    pub(super) path: String,
    pub(super) asked: BTreeMap<String, String>,
    /// `None`: now.
    pub(super) at: Option<Timestamp>,
    pub(super) now: Timestamp,
    pub(super) is_wall: bool,
    pub(super) alerts: u64,
    /// Where another node writes: nothing can be changed here.
    pub(super) stand: Option<Stand>,
    /// Read once, for the slider and the charts.
    pub(super) span: OnceCell<Span>,
}

impl<'a> Visit<'a> {
    /// The moment that is shown.
    pub(super) fn moment(&self) -> Timestamp {
        self.at.unwrap_or(self.now)
    }

    /// The first moment that is not shown any more, as views take it.
    pub(super) fn until(&self) -> Option<String> {
        const MILLISECOND: u64 = 1_000_000;
        let at = self.at?;
        let after = Timestamp::from_nanos(at.nanos().saturating_add(MILLISECOND));
        Some(moment::rfc3339(after))
    }

    pub(super) fn at_least(&self, role: Role) -> bool {
        self.viewer.role >= role
    }

    /// The page shows what is now, on the node that writes, to somebody of this role.
    pub(super) fn may_change(&self, role: Role) -> bool {
        self.at.is_none() && self.stand.is_none() && self.at_least(role)
    }

    /// What is about the whole site is for these eyes too.
    pub(super) fn sees_everything(&self) -> bool {
        self.viewer.sees_everything
    }

    /// The same, or the last moment that can be asked about before it: on a node that stands by something
    /// may still come that was recorded after it.
    pub(super) fn readable(&self) -> Timestamp {
        let newest = self.stand.as_ref().map_or(self.now, |stand| stand.newest);
        self.moment().min(newest)
    }

    /// What the query says under a name.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        self.asked.get(name).map(String::as_str)
    }

    /// The same where it is not empty: an empty field of a form asks for everything.
    pub(super) fn filled(&self, name: &str) -> Option<String> {
        self.asked(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    pub(super) fn link(&self, path: &str) -> Link {
        Linked { path, at: self.at }.into()
    }

    pub(super) fn host(&self, name: &str) -> Link {
        Link::to("/hosts").segment(name).at(self.at)
    }

    pub(super) fn rule(&self, id: &str) -> Link {
        Link::to("/rules").segment(id).at(self.at)
    }

    pub(super) fn page(&self, title: &str) -> Framed<'_, 'a> {
        Framed {
            visit: self,
            title: title.to_owned(),
            kept: &[],
            span: None,
        }
    }

    /// What the slider spans.
    pub(super) fn span(&self) -> Result<Span, view::Error> {
        if let Some(span) = self.span.get() {
            return Ok(span.clone());
        }
        let span = trend::span(self)?;
        Ok(self.span.get_or_init(|| span).clone())
    }
}

struct Linked<'p> {
    path: &'p str,
    at: Option<Timestamp>,
}

impl From<Linked<'_>> for Link {
    fn from(linked: Linked<'_>) -> Self {
        Self::to(linked.path).at(linked.at)
    }
}

/// A page on its way into its frame.
pub(super) struct Framed<'v, 'a> {
    visit: &'v Visit<'a>,
    title: String,
    kept: &'static [&'static str],
    span: Option<Span>,
}

impl Framed<'_, '_> {
    /// What is asked under these names is asked again when the moment is moved.
    pub(super) fn keeping(self, kept: &'static [&'static str]) -> Self {
        Self { kept, ..self }
    }

    pub(super) fn spanning(self, span: Span) -> Self {
        Self {
            span: Some(span),
            ..self
        }
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "the last word of a page, which may have none"
    )]
    pub(super) fn show(self, content: &Markup) -> Result<Markup, view::Error> {
        let visit = self.visit;
        let query = self
            .kept
            .iter()
            .filter_map(|name| Some((*name, visit.filled(name)?)));
        let page = Page {
            title: self.title,
            path: &visit.path,
            query: query.collect(),
            at: visit.at,
            now: visit.now,
            viewer: &visit.viewer,
            is_wall: visit.is_wall,
            alerts: visit.alerts,
            span: self.span,
            stand: visit.stand.as_ref(),
        };
        Ok(frame::page(&page, content))
    }
}
