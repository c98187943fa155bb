//! `holdfast collect`: facts of a host that cannot be reached, for `scan --replay` elsewhere.
//!
//! Nothing is judged or recorded here, and the data directory is not touched: the host may have none.

use std::sync::{Arc, atomic::Ordering};

use scan::{
    capture,
    collect::{Progress, collect_only},
};
use world::{Clock, RealClock};

use super::scan::{facts_file, write_facts};
use crate::{
    cli::collect::Collect,
    config::Config,
    exit::{Exit, Refusal},
    fleet,
    progress::Watch,
    ruleset::Ruleset,
    screen::Screen,
    site,
};

pub(crate) fn run(asked: &Collect, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let rules = Ruleset::load(config, asked.scope.rules_dir.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let Some(file) = &asked.out else {
        screen.result(&capture::printed_script(&rules.needs(), &clock))?;
        return Ok(Exit::Clean);
    };
    // Before the work; where it leads is looked at again when it is written.
    facts_file(file)?;
    let stop = site::stop_flag()?;
    let watch = Arc::new(Watch::new(screen, Arc::clone(&stop)));
    let facts = collect_only(
        &fleet::collectors(&asked.scope, config),
        super::this_machine()?,
        Arc::new(rules.needs()),
        Arc::clone(&watch) as Arc<dyn Progress>,
        clock,
    );
    watch.clear();
    if stop.load(Ordering::Relaxed) {
        return Err(
            Refusal::new("stopped before the facts were complete; nothing was written")
                .next("collect again"),
        );
    }
    write_facts(file, &facts)?;
    screen.remark(format_args!(
        "facts of {} written to {}; judge them with `holdfast scan --replay {}`",
        facts.host.hostname,
        file.display(),
        file.display()
    ));
    Ok(Exit::Clean)
}
