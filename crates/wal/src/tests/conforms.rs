//! The conformance suite on both disks.

use std::sync::Arc;

use world::sim;

use super::options;
use crate::{Journal, Local, Options, Upkeep, conformance};

/// Proves: JRN-4, JRN-18
#[test]
fn local_conforms_on_a_simulated_disk() {
    conformance::check(|| {
        let disk = sim::Disk::new(1);
        Box::new(move || {
            let (journal, _) = Local::open(options(&disk)).unwrap();
            Box::new(journal) as Box<dyn Journal>
        })
    });
}

/// Proves: JRN-4, JRN-18
#[test]
fn local_conforms_on_this_machines_disk_with_its_upkeep_thread() {
    conformance::check(|| {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Box::new(move || {
            let options = Options {
                segment_bytes: 16 << 10,
                upkeep: Upkeep::Thread,
                ..Options::on_this_machine(dir.path().join("journal"))
            };
            let (journal, _) = Local::open(options).unwrap();
            Box::new(journal) as Box<dyn Journal>
        })
    });
}
