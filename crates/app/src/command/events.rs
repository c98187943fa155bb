//! `holdfast events`.

use crate::{
    cli::events::Action,
    config::Config,
    exit::{Exit, Refusal},
    screen::Screen,
};

mod append;
mod export;
mod read;
pub(crate) mod serve;

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match action {
        Action::Append(append) => append::run(append, config, screen),
        Action::Tail(tail) => read::tail(tail, config, screen),
        Action::Query(query) => read::query(query, config, screen),
        Action::Export(export) => export::run(export, config, screen),
        Action::Serve(serve) => serve::run(serve, config, screen),
    }
}
