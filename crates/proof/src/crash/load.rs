//! Rounds of a writing load: `load run` killed, its directory compared with what it told.

use std::{path::PathBuf, time::Duration};

use world::{Disk, RealDisk};

use super::{
    acks::{Acks, Checked},
    breach::Fault,
    dice::Dice,
    process::{Ended, Product},
    site,
    tally::{Phase, Tally},
};

/// Writers of a run. 64 fill commit groups and make segments and checkpoints within seconds.
const WRITERS: [u8; 4] = [1, 4, 16, 64];

/// Acknowledgements after which a directory is given up: a check of more takes too long.
const ACKS_MAX: u64 = 150_000;

/// Runs in one directory. Some see their first start only, some many recoveries.
const RUNS: [u64; 3] = [2, 8, 40];

/// A start is killed up to this many times as late as a first acknowledgement was last seen.
const LATE: u32 = 2;

/// Most runs are killed this soon after their first acknowledgement.
const BURST_MAX: Duration = Duration::from_millis(300);

/// A few are killed this late: flushes and checkpoints begin about there.
const STRETCH_MAX: Duration = Duration::from_secs(2);

/// A data directory under a writing load.
#[derive(Debug)]
pub(super) struct LoadSite {
    dir: PathBuf,
    acks_file: String,
    acks: Acks,
    runs: u64,
    runs_max: u64,
    /// How long the last start took until the first acknowledgement.
    opened_in: Duration,
    /// How long the last check took.
    checked_in: Duration,
}

impl LoadSite {
    pub(super) fn new(product: &Product, number: u64, dice: &mut Dice) -> Self {
        Self {
            dir: product.sandbox.join(format!("load-{number}")),
            acks_file: format!("acks-{number}"),
            acks: Acks::default(),
            runs: 0,
            runs_max: dice.pick(&RUNS).copied().unwrap_or(1),
            opened_in: Duration::from_millis(100),
            checked_in: Duration::from_millis(100),
        }
    }

    pub(super) fn is_worn(&self) -> bool {
        self.runs >= self.runs_max || self.acks.count() > ACKS_MAX
    }

    /// Starts a load, kills it, and takes in what it told.
    pub(super) fn run(
        &mut self,
        product: &Product,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let writers = dice.pick(&WRITERS).copied().unwrap_or(1);
        let count = writers.to_string();
        // The first runs of a directory are killed while they make it more often than not.
        let opening = dice.one_in(if self.runs < 2 { 2 } else { 4 });
        let stretch = if dice.one_in(8) {
            STRETCH_MAX
        } else {
            BURST_MAX
        };
        let mut run = product.start(&self.dir, &["load", "run", "--quiet", "--writers", &count])?;
        let limit = if opening {
            self.opened_in * LATE
        } else {
            self.opened_in = run.first_line()?;
            stretch
        };
        let delay = dice.between(Duration::ZERO, limit);
        self.runs += 1;
        if dice.one_in(10) {
            let ended = run.stop_after(delay)?;
            ended.has_stopped()?;
            tally.stops += 1;
            // Whoever stops in order tells of everything that was written.
            tally.records_told += self.acks.take_in(0, &ended.stdout)?;
            return self.check(product, tally);
        }
        let ended = run.kill_after(delay)?;
        if !ended.was_killed() {
            return Err(ended.breach("writes until it is stopped").into());
        }
        let told = self.acks.take_in(writers, &ended.stdout)?;
        tally.records_told += told;
        tally.kill(if told > 0 { Phase::Load } else { Phase::Open });
        Ok(())
    }

    /// Compares what is there with what was told.
    pub(super) fn check(&mut self, product: &Product, tally: &mut Tally) -> Result<(), Fault> {
        self.write_acks(product)?;
        let ended = product.run(&self.dir, &self.check_words())?;
        self.compare(&ended, tally)
    }

    /// Kills a check; it recovers and reads, and must leave everything as it was.
    pub(super) fn kill_check(
        &mut self,
        product: &Product,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        self.write_acks(product)?;
        let check = product.start(&self.dir, &self.check_words())?;
        let ended = check.kill_after(dice.between(Duration::ZERO, self.checked_in))?;
        if ended.was_killed() {
            tally.kill(Phase::Check);
            return Ok(());
        }
        tally.late += 1;
        ended.is_orderly()?;
        self.compare(&ended, tally)
    }

    fn check_words(&self) -> [&str; 5] {
        ["load", "check", &self.acks_file, "--output", "json"]
    }

    fn write_acks(&self, product: &Product) -> Result<(), Fault> {
        let path = product.sandbox.join(&self.acks_file);
        Ok(RealDisk.replace(&path, self.acks.text())?)
    }

    fn compare(&mut self, ended: &Ended, tally: &mut Tally) -> Result<(), Fault> {
        self.checked_in = ended.took;
        if self.acks.text().is_empty() && ended.stderr.contains("nothing is recorded") {
            // Killed before the directory was made, and nothing was told: there is nothing to lose.
            // With a single acknowledgement the same answer is a loss.
            return Ok(());
        }
        let checked: Checked = serde_json::from_slice(&ended.stdout)
            .map_err(|_| ended.breach("compares the records with their acknowledgements"))?;
        self.acks.compare(&checked)?;
        tally.checks += 1;
        Ok(())
    }

    /// A last check, after which the directory is removed.
    pub(super) fn close(mut self, product: &Product, tally: &mut Tally) -> Result<(), Fault> {
        if self.runs > 0 {
            self.check(product, tally)?;
        }
        site::give_up(&self.dir, tally)
    }
}
