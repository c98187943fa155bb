//! Hosts and tokens, for those who may change them.

use maud::{Markup, html};
use scan::token::Role;

use crate::{
    console::{badge, frame, link::Link, visit::Visit, when},
    present::counted,
    view::{self, HostRow, HostsAsked, TokenRow},
};

use super::words;

/// Hosts of one page; the filter of the fleet finds the others.
const HOSTS_SHOWN: usize = 200;

pub(in crate::console) fn administration(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let asked = HostsAsked {
        limit: Some(HOSTS_SHOWN),
        retired: Some(true),
        ..HostsAsked::default()
    };
    let hosts = view::hosts(&visit.reader, &asked, None)?;
    let tokens = match visit.at_least(Role::Admin) && visit.sees_everything() {
        true => Some(view::tokens(&visit.reader)?),
        false => None,
    };
    let content = html! {
        div class="title" { h1 { "Administration" } p class="soft" { "Everything done here is in the audit log, under the name of your token." } }
        @if visit.stand.is_none() {
            div class="grid" {
                (add_host(visit))
                @if tokens.is_some() { (make_token(visit)) }
            }
        }
        @if let Some(tokens) = &tokens { (token_table(visit, tokens)) }
        (host_table(visit, &hosts.hosts, hosts.total))
    };
    visit.page("Administration").show(&content)
}

/// A field of a form with its label.
fn field(id: &str, name: &str, label: &str, hint: &str, is_required: bool) -> Markup {
    html! {
        div class="field" {
            label for=(id) { (label) }
            input id=(id) name=(name) required[is_required] autocomplete="off" aria-describedby=[(!hint.is_empty()).then(|| format!("{id}-hint"))];
            @if !hint.is_empty() { span id=(format!("{id}-hint")) class="hint" { (hint) } }
        }
    }
}

fn add_host(visit: &Visit<'_>) -> Markup {
    html! {
        section class="card w6" aria-labelledby="add" {
            h2 id="add" { "Add a host" }
            form class="form" method="post" action="/admin/hosts" {
                (frame::form_field(&visit.viewer))
                div class="row" {
                    (field("host-name", "name", "Name", "its own for ever", true))
                    (field("host-address", "address", "Address", "empty: facts are brought by hand", false))
                }
                div class="row" {
                    (field("host-port", "port", "Port", "22 unless given", false))
                    (field("host-user", "user", "User", "the credential's unless given", false))
                    (field("host-credential", "credential", "Credential", "the default one unless given", false))
                }
                div class="row" {
                    (field("host-site", "site", "Site", "", false))
                    (field("host-groups", "groups", "Groups", "with commas between", false))
                    (field("host-tags", "tags", "Tags", "", false))
                }
                p class="small soft" { "With an address it is scanned at once. Its key must be trusted first, with " code { "holdfast host trust NAME" } ", where the policy asks for that." }
                div { button class="first" { "Add host" } }
            }
        }
    }
}

fn make_token(visit: &Visit<'_>) -> Markup {
    html! {
        section class="card w6" aria-labelledby="make" {
            h2 id="make" { "Make a token" }
            form class="form" method="post" action="/admin/tokens" {
                (frame::form_field(&visit.viewer))
                div class="row" {
                    (field("token-name", "name", "Name", "whom or what it is for", true))
                    div class="field" {
                        label for="role" { "Role" }
                        select id="role" name="role" aria-describedby="role-hint" { @for role in Role::ALL { option value=(role.name()) { (role.name()) } } }
                        span id="role-hint" class="hint" { "each may do what those before it may" }
                    }
                    div class="field" { label for="token-until" { "Until the end of" } input id="token-until" name="until" type="date" aria-describedby="token-until-hint"; span id="token-until-hint" class="hint" { "empty: until it is revoked" } }
                }
                fieldset class="row choices" {
                    legend class="small soft" { "For these hosts only; all empty: for everything" }
                    (field("token-sites", "sites", "Sites", "", false))
                    (field("token-groups", "groups", "Groups", "", false))
                    (field("token-hosts", "hosts", "Hosts", "", false))
                }
                dl class="facts small" { @for role in Role::ALL { dt { (role.name()) } dd { (role.about()) } } }
                div { button class="first" { "Make token" } }
            }
        }
    }
}

fn standing(word: &str) -> Markup {
    match word {
        "valid" => badge::badge("good", "tick", "valid"),
        "revoked" => badge::badge("idle", "cross", "revoked"),
        _ => badge::badge("idle", "dash", "expired"),
    }
}

fn token_table(visit: &Visit<'_>, tokens: &[TokenRow]) -> Markup {
    html! {
        section class="card" aria-labelledby="tokens" {
            h2 id="tokens" { "Tokens" }
            div class="scroll" { table class="stacked" {
                caption { (counted(tokens.len() as u64, "token")) ", revoked ones too: a name is never given twice" }
                thead { tr { th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "Stands" } th scope="col" { "For" } th scope="col" { "Until" } th scope="col" { "Last used" } th scope="col" { "Made" } th scope="col" { span class="unseen" { "Revoke" } } } }
                tbody {
                    @for token in tokens {
                        tr {
                            td class="name" { (token.name) }
                            td data-label="Role" { (token.role.name()) }
                            td { (standing(token.standing)) }
                            td class="words small" data-label="For" { (scope(token)) }
                            td class="nowrap" data-label="Until" { @match token.expires { Some(at) => (when::short(at.0, visit.now)), None => "no end" } }
                            td class="nowrap" data-label="Last used" { @match token.last_used { Some(at) => (when::age(at.0, visit.now)), None => "never" } }
                            td class="small" data-label="Made" { (when::short(token.made.0, visit.now)) " by " (token.made_by) }
                            td {
                                @if token.standing == "valid" && token.name != visit.viewer.name {
                                    (asked_again(visit, "Revoke", &token.name, "It opens nothing from then on, and its name is not given again.", visit.link("/admin/tokens").segment(&token.name).segment("revoke")))
                                }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// What cannot be taken back: the first button says what it comes to, the second does it. Without script
/// too.
fn asked_again(visit: &Visit<'_>, does: &str, name: &str, comes_to: &str, to: Link) -> Markup {
    if visit.stand.is_some() {
        return html! {};
    }
    html! {
        details class="sure" {
            summary class="plain" { (does) span class="unseen" { " " (name) } }
            form method="post" action=(to) {
                (frame::form_field(&visit.viewer))
                p class="small" { (comes_to) }
                button class="dire" { (does) " " (name) }
            }
        }
    }
}

fn scope(token: &TokenRow) -> String {
    let parts = [
        ("sites", &token.scope.sites),
        ("groups", &token.scope.groups),
        ("hosts", &token.scope.hosts),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", names.join(", ")))
        .collect();
    if told.is_empty() {
        "everything".to_owned()
    } else {
        told.join("; ")
    }
}

fn host_table(visit: &Visit<'_>, hosts: &[HostRow], total: u64) -> Markup {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    html! {
        section class="card" aria-labelledby="hosts" {
            h2 id="hosts" { "Hosts" }
            @if hosts.is_empty() { p class="empty" { strong { "None yet." } " Add the first above." } }
            @else { div class="scroll" { table class="stacked" {
                caption { (words::shown(hosts.len(), total, "host")) "; a host with a history is retired, never deleted" }
                thead { tr { th scope="col" { "Name" } th scope="col" { "Address" } th scope="col" { "Site" } th scope="col" { "Groups" } th scope="col" { "Credential" } th scope="col" { "Added" } th scope="col" { span class="unseen" { "Retire" } } } }
                tbody {
                    @for row in hosts {
                        tr {
                            td class="name" { a href=(visit.host(&row.host)) { (row.host) } }
                            td data-label="Address" { @match &row.address { Some(address) => code { (address) }, None => (row.via) } }
                            td data-label="Site" { (row.site) }
                            td class="words small" data-label="Groups" { (row.groups.join(", ")) }
                            td data-label="Credential" { (row.credential.as_deref().unwrap_or("default")) }
                            td class="nowrap" data-label="Added" { (when::short(row.added.0, visit.now)) }
                            td {
                                @match row.retired {
                                    Some(at) => span class="soft small" { "retired " (when::short(at.0, visit.now)) },
                                    None => (asked_again(visit, "Retire", &row.host, "It takes no more scans, ever. Its history stays, and its name is not given again.", visit.link("/admin/hosts").segment(&row.host).segment("retire"))),
                                }
                            }
                        }
                    }
                }
            } } }
        }
    }
}

/// A token that was made a moment ago: its text, this once.
pub(in crate::console) fn made(
    visit: &Visit<'_>,
    name: &str,
    text: &str,
) -> Result<Markup, view::Error> {
    let content = html! {
        div class="title" { h1 { "Token " (name) " is made" } }
        section class="card" aria-label="The token" {
            p { strong { "Copy it now." } " It is shown this once; what is kept is only what it is recognised by." }
            code class="secret" { (text) }
            p class="group" { a class="button first" href="/admin" { "Done" } }
        }
    };
    visit.page("Token made").show(&content)
}
