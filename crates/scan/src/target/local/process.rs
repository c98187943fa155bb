//! One program of the host, run to its end or to its deadline.
//!
//! The program gets an empty environment, no input and a process group of its own, which is killed
//! before the program is reaped: while it is a zombie its group id cannot belong to anybody else.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use world::Clock;

use super::{refusal, unknown};
use crate::{
    facts::{Reason, Unknown},
    target::{Command, Ran},
};

/// Enough of a complaint to name the fault.
const STDERR_BYTES_MAX: usize = 4 << 10;

const PIPE_READ_BYTES: usize = 64 << 10;

pub(super) fn run(command: &Command<'_>, clock: &dyn Clock) -> Result<Ran, Unknown> {
    let (program, mut child) = start(command)?;
    let outcome = listen(program, &mut child, command, clock);
    let status = end(&mut child, program)?;
    outcome.map(|(stdout, stderr)| Ran {
        status: status.code(),
        stdout,
        stderr,
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where collectors start a program; bounded in time and output"
)]
fn start<'a>(command: &Command<'a>) -> Result<(&'a str, Child), Unknown> {
    for program in command.programs {
        let started = std::process::Command::new(program)
            .args(command.args)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        match started {
            Ok(child) => return Ok((program, child)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => {}
                Some(errno) => return Err(refusal(program, errno)),
                None => return Err(unknown(Reason::Unreadable, program, error)),
            },
        }
    }
    let names = command.programs.join(", ");
    Err(unknown(Reason::ToolMissing, &names, "not installed"))
}

/// Kills what is left of the group, then reaps.
fn end(child: &mut Child, program: &str) -> Result<ExitStatus, Unknown> {
    // Usually the group is gone with the program: then there is nobody to kill, which is no fault.
    if let Some(pid) = pid(child) {
        kill_process_group(pid, Signal::KILL).ok();
    }
    child
        .wait()
        .map_err(|error| unknown(Reason::Unreadable, program, error))
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Collects output until the program has ended. A grandchild that keeps a pipe open after the
/// program's end is not waited for.
fn listen(
    program: &str,
    child: &mut Child,
    command: &Command<'_>,
    clock: &dyn Clock,
) -> Result<(Vec<u8>, Vec<u8>), Unknown> {
    let fault = |errno| refusal(program, errno);
    let ended = pid(child)
        .ok_or(Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(fault)?;
    let mut stdout = Pipe::new(child.stdout.take().map(OwnedFd::from)).map_err(fault)?;
    let mut stderr = Pipe::new(child.stderr.take().map(OwnedFd::from)).map_err(fault)?;
    let deadline = clock.monotonic() + command.deadline;
    loop {
        let left = deadline.saturating_sub(clock.monotonic());
        if left.is_zero() {
            let after = format!("still running after {:?}", command.deadline);
            return Err(unknown(Reason::Timeout, program, after));
        }
        let over = wait(&ended, &[&stdout, &stderr], left).map_err(fault)?;
        if !stdout.drain(command.output_bytes_max).map_err(fault)? {
            let cap = format!("printed more than {} bytes", command.output_bytes_max);
            return Err(unknown(Reason::Truncated, program, cap));
        }
        // What is said beyond the beginning is read, so that the program is not blocked, and
        // dropped.
        if !stderr.drain(STDERR_BYTES_MAX).map_err(fault)? {
            stderr.bytes.truncate(STDERR_BYTES_MAX);
        }
        if over {
            return Ok((stdout.bytes, stderr.bytes));
        }
    }
}

/// True once the program has ended.
fn wait(ended: &OwnedFd, pipes: &[&Pipe], left: Duration) -> Result<bool, Errno> {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
    for fd in pipes.iter().filter_map(|pipe| pipe.fd.as_ref()) {
        fds.push(PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
    }
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

struct Pipe {
    /// `None` once the other end is closed.
    fd: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new(fd: Option<OwnedFd>) -> Result<Self, Errno> {
        if let Some(fd) = &fd {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self {
            fd,
            bytes: Vec::new(),
        })
    }

    /// Takes what is there. False once there was more than `cap`.
    fn drain(&mut self, cap: usize) -> Result<bool, Errno> {
        let mut chunk = vec![0; PIPE_READ_BYTES];
        while let Some(fd) = &self.fd {
            match rustix::io::read(fd, &mut chunk) {
                Ok(0) => self.fd = None,
                Ok(count) => {
                    self.bytes.extend_from_slice(&chunk[..count]);
                    if self.bytes.len() > cap {
                        return Ok(false);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}
