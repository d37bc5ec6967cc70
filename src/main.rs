//! The command `laravel-echo-server`. Input: the command line. Output: what the command prints, and an exit code.

use std::process::ExitCode;

mod cli;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: system::memory::Allocator = system::memory::Allocator;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            cli::output::error(&error);
            ExitCode::FAILURE
        }
    }
}
