//! The library that is preloaded into the product: compiled when a run begins, from its one file.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use world::{Disk, RealDisk};

const SOURCE: &str = include_str!("interpose.c");

/// Compiles the library into a sandbox, with the C compiler that the build of the product needs too.
#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
pub(super) fn compile(sandbox: &Path) -> io::Result<PathBuf> {
    let (source, library) = (sandbox.join("interpose.c"), sandbox.join("interpose.so"));
    RealDisk.replace(&source, SOURCE.as_bytes())?;
    let output = Command::new("cc")
        .args([
            "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
        ])
        .args([&library, &source])
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cc, the C compiler: {error}")))?;
    if output.status.success() {
        return Ok(library);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("cc: {}\n{words}", output.status)))
}
