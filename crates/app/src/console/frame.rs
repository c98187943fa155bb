//! What is around every page: head, ways to the other pages, the moment, who is signed in, the keys.

use maud::{DOCTYPE, Markup, html};
use scan::token::Role;
use world::Timestamp;

use super::{
    assets, badge,
    link::Link,
    slider::{self, Span},
    when,
};
use crate::{
    node::{self, Primary, Stand},
    present::counted,
    server::Reach,
};

/// Seconds after which a page on a wall is asked for anew. Scans end minutes apart.
const WALL_REFRESH_SECONDS: u64 = 60;

/// What a page is and who looks at it.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Of the browser's window, without the product's name.
    pub(super) title: String,
    pub(super) path: &'a str,
    /// What else was asked, without the moment: kept when that is moved.
    pub(super) query: Vec<(&'static str, String)>,
    /// `None`: now.
    pub(super) at: Option<Timestamp>,
    pub(super) now: Timestamp,
    pub(super) viewer: &'a Viewer,
    pub(super) is_wall: bool,
    /// Alerts that nobody has taken notice of.
    pub(super) alerts: u64,
    /// `None` for a page that does not show a state.
    pub(super) span: Option<Span>,
    /// Where another node writes.
    pub(super) stand: Option<&'a Stand>,
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    pub(super) name: String,
    pub(super) role: Role,
    /// What each of the viewer's forms brings along.
    pub(super) form: String,
    pub(super) theme: Theme,
    /// The token is not for some hosts only.
    pub(super) sees_everything: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the viewer's system has it.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub(super) const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|theme| theme.name() == name);
        found.unwrap_or_default()
    }
}

/// A page of the head's list: its address, its name, the key after `g`, who may see it.
pub(super) struct Place {
    path: &'static str,
    name: &'static str,
    key: char,
    role: Role,
    reach: Reach,
}

const fn place(path: &'static str, name: &'static str, key: char, role: Role) -> Place {
    Place {
        path,
        name,
        key,
        role,
        reach: Reach::Hosts,
    }
}

const fn of_site(place: Place) -> Place {
    Place {
        reach: Reach::Site,
        ..place
    }
}

impl Place {
    fn is_for(&self, viewer: &Viewer) -> bool {
        self.role <= viewer.role && (self.reach == Reach::Hosts || viewer.sees_everything)
    }
}

const PLACES: [Place; 9] = [
    place("/", "Fleet", 'f', Role::Viewer),
    place("/rules", "Rules", 'r', Role::Viewer),
    place("/changes", "Changes", 'c', Role::Viewer),
    place("/alerts", "Alerts", 'a', Role::Viewer),
    place("/schedule", "Schedule", 's', Role::Viewer),
    place("/waivers", "Waivers", 'w', Role::Viewer),
    of_site(place("/policy", "Policy", 'p', Role::Viewer)),
    of_site(place("/audit", "Audit", 'u', Role::Auditor)),
    place("/admin", "Administration", 'd', Role::Operator),
];

/// Below which address of the list a page is.
fn home(path: &str) -> &str {
    if path.starts_with("/hosts") {
        return "/";
    }
    let places = PLACES.iter().skip(1).map(|place| place.path);
    places
        .into_iter()
        .find(|place| path.starts_with(place))
        .unwrap_or("/")
}

pub(super) fn page(page: &Page<'_>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme(page.viewer.theme)] class=[page.is_wall.then_some("wall")] {
            head {
                (head(&page.title))
                @if page.is_wall { meta http-equiv="refresh" content=(WALL_REFRESH_SECONDS); }
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                (badge::shapes())
                header class="head" {
                    div class="head-in" {
                        (brand(Link::to("/").at(page.at)))
                        @if !page.is_wall { (places(page)) }
                        (who(page))
                    }
                }
                @if let Some(span) = &page.span { (slider::slider(page, span)) }
                main id="main" tabindex="-1" {
                    @if let Some(stand) = page.stand { (stands_by(stand, page.path)) }
                    (content)
                }
                (foot(page))
                (keys())
            }
        }
    }
}

/// What a page of a node says that follows another one: what it shows, how old that may be, and where
/// something can be done. `path` is of the page.
pub(super) fn stands_by(stand: &Stand, path: &str) -> Markup {
    let (behind, begins) = (&stand.behind, stand.role == node::Role::Primary);
    html! {
        aside class="note doubt" aria-label="Role of this node" {
            p {
                strong { "For reading: " (stand.node) (if begins { " does not write yet. " } else { " stands by. " }) }
                @match &stand.primary {
                    _ if begins => { "It is to write, and does as soon as enough other nodes have what is recorded." }
                    Some(Primary { name, url: Some(url) }) => {
                        (name) " is the node that writes: " a href=(format!("{url}{path}")) { (url) } "."
                    }
                    Some(Primary { name, url: None }) => {
                        (name) " is the node that writes; it did not say where it is found."
                    }
                    None => { "It knows no node that writes at present." }
                }
            }
            p class="small" {
                "Shown is what was recorded until " (when::full(stand.newest)) ". "
                @if behind.records > 0 {
                    (counted(behind.records, "record")) ", " (counted(behind.bytes, "byte")) ", are still to be taken over. "
                }
                "Whatever was recorded more than " (format!("{:.1}", behind.time.as_secs_f64())) " s before this page is here."
            }
        }
    }
}

/// A page for somebody who is not signed in.
pub(super) fn door(title: &str, theme_chosen: Theme, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme(theme_chosen)] {
            head { (head(title)) }
            body {
                (badge::shapes())
                main id="main" { div class="door" { (content) } }
            }
        }
    }
}

fn theme(theme: Theme) -> Option<&'static str> {
    (theme != Theme::System).then(|| theme.name())
}

fn head(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        title { (title) " · Holdfast" }
        link rel="icon" href=(assets::icon());
        link rel="stylesheet" href=(assets::style());
        script src=(assets::script()) {}
    }
}

pub(super) fn brand(to: Link) -> Markup {
    html! { a class="brand" href=(to) { (badge::glyph("mark")) "Holdfast" } }
}

fn places(page: &Page<'_>) -> Markup {
    let here = home(page.path);
    html! {
        nav aria-label="Pages" { ul {
            @for place in PLACES.iter().filter(|place| place.is_for(page.viewer)) {
                li {
                    a href=(Link::to(place.path).at(page.at)) data-place=(place.path)
                        aria-current=[(place.path == here).then_some("page")] {
                        (place.name)
                        @if place.path == "/alerts" && page.alerts > 0 {
                            span class="count" { (page.alerts) span class="unseen" { " open" } }
                        }
                    }
                }
            }
        } }
    }
}

fn who(page: &Page<'_>) -> Markup {
    let viewer = page.viewer;
    html! {
        div class="who" {
            span class="name" { (viewer.name) ", " (viewer.role.name()) }
            form method="post" action="/sign-out" {
                (form_field(viewer))
                button class="plain" { "Sign out" }
            }
        }
    }
}

fn foot(page: &Page<'_>) -> Markup {
    let viewer = page.viewer;
    html! {
        footer {
            div class="foot-in" {
                span { "Holdfast " (env!("CARGO_PKG_VERSION")) }
                span { "Times are in " span id="zone" { "UTC" } }
                button id="show-keys" class="plain" type="button" hidden { "Keys " kbd { "?" } }
                @if page.is_wall {
                    a href=(Link::to(page.path).at(page.at)) { "Leave the wall view" }
                } @else if page.path == "/" {
                    a href=(Link::to("/").with("wall", "yes")) { "Wall view" }
                }
                form class="aside actions" method="post" action="/theme" aria-label="Colours" {
                    (form_field(viewer))
                    input type="hidden" name="back" value=(here(page));
                    @for theme in Theme::ALL {
                        button class="plain" name="theme" value=(theme.name())
                            aria-pressed=(theme == viewer.theme) { (theme.name()) }
                    }
                }
            }
        }
    }
}

/// The address of the page, as a form sends it to come back.
pub(super) fn here(page: &Page<'_>) -> Link {
    page.query
        .iter()
        .fold(Link::to(page.path), |link, (name, value)| {
            link.with(name, value)
        })
        .with_any("wall", page.is_wall.then_some("yes"))
        .at(page.at)
}

pub(super) fn form_field(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name="form" value=(viewer.form); }
}

fn keys() -> Markup {
    html! {
        dialog id="keys" aria-labelledby="keys-title" {
            h2 id="keys-title" { "Keys" }
            dl class="keys" {
                @for (key, does) in [
                    ("?", "this list"), ("t", "to the moment shown; then"), ("← →", "the recorded change before and after"),
                    ("Page Down / Page Up", "a day back and forward"), ("n", "back to now"), ("/", "to the filter of the page"),
                ] {
                    dt { kbd { (key) } } dd { (does) }
                }
                @for place in &PLACES {
                    dt { kbd { "g" } " " kbd { (place.key) } } dd { (place.name) }
                }
            }
            form method="dialog" { button { "Close" } }
        }
    }
}
