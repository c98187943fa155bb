//! `holdfast events`.

use crate::{
    cli::events::Action,
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
};

mod append;
mod bridge;
mod dead_letter;
mod drain;
mod export;
mod import;
mod read;
pub(crate) mod serve;

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Append(append) => append::run(append, config, screen),
        Action::Tail(tail) => read::tail(tail, config, screen),
        Action::Query(query) => read::query(query, config, screen),
        Action::Export(export) => export::run(export, config, screen),
        Action::Import(import) => import::run(import, config, screen),
        Action::Serve(serve) => serve::run(serve, config, screen),
        Action::Drain(drain) => drain::run(drain, config, screen),
        Action::DeadLetter(letters) => dead_letter::run(&letters.action, config, screen),
        Action::Bridge(bridge) => bridge::run(bridge, screen),
    }
}
