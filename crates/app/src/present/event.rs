//! An event as a line for people.

use anstyle::Style;
use events::{Class, Event};

use super::{Palette, safe};
use crate::{moment, screen};

/// Width of the column of sources: longer ones push their own line only.
const SOURCE_WIDTH: usize = 16;
const CLASS_WIDTH: usize = 9;

/// When, what about, from whom, and as much of the body as the terminal's line holds; all of it
/// when standard output is no terminal.
pub(crate) fn line(event: &Event) -> String {
    let time = moment::local_millis(event.event.time);
    let source = safe(&event.event.source);
    let class = event.event.class;
    let before = time.len() + 2 + CLASS_WIDTH + 2 + source.chars().count().max(SOURCE_WIDTH) + 2;
    let body = safe(&event.event.body);
    let body = match screen::width() {
        Some(width) => shortened(&body, usize::from(width).saturating_sub(before)),
        None => body,
    };
    let (style, faint) = (class_style(class), Palette::FAINT);
    format!(
        "{faint}{time}{faint:#}  {style}{class:CLASS_WIDTH$}{style:#}  {source:SOURCE_WIDTH$}  {body}\n"
    )
}

fn class_style(class: Class) -> Style {
    match class {
        Class::Error => Palette::BAD,
        Class::Decision => Palette::NOTE,
        Class::Action => Palette::STRONG,
        Class::Lifecycle => Palette::GOOD,
        Class::Other => Style::new(),
    }
}

/// Below this many columns cutting would leave nothing to read.
const BODY_WIDTH_MIN: usize = 20;

fn shortened(text: &str, width: usize) -> String {
    let width = width.max(BODY_WIDTH_MIN);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}
