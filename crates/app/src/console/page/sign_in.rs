//! The door: a token opens it.

use maud::{Markup, html};

use crate::{
    console::{
        frame::{self, Theme},
        link::Link,
    },
    node::Stand,
};

/// `back` is where to go afterwards; `refused` why the last attempt came to nothing.
pub(in crate::console) fn sign_in(
    theme: Theme,
    back: &str,
    refused: Option<&str>,
    stand: Option<&Stand>,
) -> Markup {
    let content = html! {
        div class="card" {
            (frame::brand(Link::to("/sign-in")))
            h1 { "Sign in" }
            p class="soft" { "With a token. The first one lies in the data directory, in " code { "keys/admin.token" } "; with it, others are made in Administration." }
            @if let Some(stand) = stand { div class="group" { (frame::stands_by(stand, "/sign-in")) } }
            @if let Some(why) = refused {
                div class="note bad group" role="alert" { p { strong { (why) } } }
            }
            form method="post" action="/sign-in" {
                input type="hidden" name="back" value=(back);
                div class="field" {
                    label for="token" { "Token" }
                    input id="token" name="token" type="password" required autofocus autocomplete="current-password" spellcheck="false" placeholder="hf_…";
                }
                button class="first" { "Sign in" }
            }
        }
    };
    frame::door("Sign in", theme, &content)
}
