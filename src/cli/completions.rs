//! `completions`: a completion script for a shell. Input: the shell's name. Output: the script on stdout.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
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
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "laravel-echo-server", &mut script);
        let mut script = String::from_utf8(script).context("reading the script")?;
        if self.shell == Shell::Bash {
            // For a program name with a hyphen, clap_complete uses two different names for its commands (clap-rs/clap#6421).
            script = script.replace("laravel__subcmd__echo__subcmd__server", "laravel__echo__server");
        }
        std::io::stdout().write_all(script.as_bytes()).context("writing the script")?;
        Ok(ExitCode::SUCCESS)
    }
}
