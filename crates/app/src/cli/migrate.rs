//! `holdfast migrate`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The database: postgres://USER@HOST/DATABASE, empty or with this move begun; its password comes in
    /// PGPASSWORD or a file
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// File that holds the password and nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}
