//! `completions`: a completion script for a shell. Input: the shell's name. Output: the script on stdout.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell; for bash: laravel-echo-server completions bash > /etc/bash_completion.d/laravel-echo-server
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, command: &mut Command) -> anyhow::Result<ExitCode> {
        clap_complete::generate(self.shell, command, "laravel-echo-server", &mut std::io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}
