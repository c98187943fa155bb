//! How results look: to people, and as CSV. JSON is [`crate::document`].

pub(crate) mod cause;
pub(crate) mod csv;
pub(crate) mod event;
mod number;
mod style;
mod summary;
pub(crate) mod table;
pub(crate) mod verdicts;
mod wrap;

pub(crate) use number::counted;
pub(crate) use style::{Palette, safe};
pub(crate) use summary::{ChangesSince, Line, Summary, change_line};
pub(crate) use wrap::wrapped;
