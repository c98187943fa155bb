//! Arming and calling off the timed rollback of this machine.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    fs::{self, Mode, RenameFlags},
    io::Errno,
};
use world::RealClock;

use super::{LocalHands, words};
use crate::{
    fix::{Access, Disarmed, Effect, Fault, timer},
    target::{Command, LocalTarget, Target},
};

/// The script ends within 90 tries of a second, or is told as one that does not.
const SHELL_DEADLINE: Duration = Duration::from_secs(100);
const SHELL: &[&str] = &["/bin/sh", "/usr/bin/sh"];

impl LocalHands {
    pub(super) fn arm_timer(
        &mut self,
        id: &str,
        effects: &[Effect],
        seconds: u64,
    ) -> Result<(), Fault> {
        let own = format!("{}/fix-{id}", timer::DIR);
        let refused = |errno| Fault::refused(&own, words(errno));
        for dir in ["/run", timer::DIR, own.as_str()] {
            let mode = if dir == "/run" { 0o755 } else { 0o700 };
            let (parent, name) = self.parent(dir)?;
            match fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                Ok(()) => {}
                Err(Errno::EXIST) if dir != own => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        let (dir, _) = self.parent(&format!("{own}/armed"))?;
        let script = timer::script(id, effects, &self.root_path);
        let mine = Access {
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        for (name, content) in [("restore", script.as_bytes()), ("armed", b"")] {
            self.write_temporary(&dir, name, content, mine, None)
                .map_err(refused)?;
        }
        self.before("arm").map_err(refused)?;
        let on_host = format!("{}{own}", self.root_path);
        let manager = if self.root_path.is_empty() { "yes" } else { "" };
        shell(timer::START, &[&on_host, &seconds.to_string(), id, manager])
            .map_err(|why| Fault::refused("start the timed rollback", why))
    }

    pub(super) fn disarm_timer(&mut self, id: &str) -> Result<Disarmed, Fault> {
        let own = format!("{}/fix-{id}", timer::DIR);
        let refused = |errno| Fault::refused(&own, words(errno));
        // Not there: never armed, or the host started again since and has nothing left that waits.
        let Ok((dir, _)) = self.parent(&format!("{own}/armed")) else {
            return Ok(Disarmed::InTime);
        };
        match fs::renameat_with(&dir, "armed", &dir, "off", RenameFlags::NOREPLACE) {
            Ok(()) => {
                // Left alone it would find itself called off and end, only later.
                let on_host = format!("{}{own}", self.root_path);
                shell(timer::STOP, &[&on_host])
                    .map_err(|why| Fault::refused("end the timed rollback", why))?;
                return Ok(Disarmed::InTime);
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(errno)),
        }
        if exists(&dir, "off") || !(exists(&dir, "fired") || exists(&dir, "done")) {
            return Ok(Disarmed::InTime);
        }
        let on_host = format!("{}{own}", self.root_path);
        shell(timer::WAIT, &[&on_host])
            .map_err(|why| Fault::refused("wait for the timed rollback", why))?;
        Ok(Disarmed::Fired)
    }
}

#[cfg(test)]
impl LocalHands {
    /// Returns once the script has ended.
    pub(in crate::fix) fn wait_fired(&mut self, id: &str) -> Result<(), Fault> {
        let on_host = format!("{}{}/fix-{id}", self.root_path, timer::DIR);
        shell(timer::WAIT, &[&on_host]).map_err(|why| Fault::refused(&on_host, why))
    }
}

fn exists(dir: &OwnedFd, name: &str) -> bool {
    fs::statat(dir, name, fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A shell of this machine with a fixed script; what differs are its arguments.
fn shell(script: &str, args: &[&str]) -> Result<(), String> {
    let script = format!("{}\n{script}", timer::PATH);
    let machine =
        LocalTarget::new("/", Arc::new(RealClock::new())).map_err(|unknown| unknown.detail)?;
    let args = [&["-c", script.as_str(), "holdfast"], args].concat();
    let command = Command {
        programs: SHELL,
        args: &args,
        deadline: SHELL_DEADLINE,
        output_bytes_max: 4096,
    };
    match machine.run(&command) {
        Ok(ran) if ran.status == Some(0) => Ok(()),
        Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
        Err(unknown) => Err(unknown.detail),
    }
}
