//! The command line: its commands and flags. Input: the arguments. Output: one command is run.
//!
//! Command names are those of laravel-echo-server 1.6.3 (`src/cli/index.ts`). Exit codes are 0 for success, 1 for a
//! failure explained on stderr, 2 for an invalid command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use laravel_echo_server::config::load::LoadOptions;

mod client;
mod completions;
mod config_check;
mod config_file;
mod configure;
mod doctor;
mod health;
mod import;
mod laravel;
mod lock_file;
mod man;
pub(crate) mod output;
mod program;
mod prompt;
mod start;
mod stop;
mod welcome;

/// Sends Laravel's events to Laravel Echo clients.
#[derive(Debug, Parser)]
#[command(name = "laravel-echo-server", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    Start(start::Start),
    /// Stop the running server
    Stop(stop::Stop),
    /// Write a config file, with what can be read from the Laravel project around it
    #[command(name = "init", visible_alias = "configure")]
    Configure(Box<configure::Configure>),
    /// Add an application that may use the HTTP API, or give it a new key
    #[command(name = "client:add")]
    ClientAdd(client::Add),
    /// Remove an application
    #[command(name = "client:remove")]
    ClientRemove(client::Remove),
    /// Turn a laravel-echo-server.json into a commented TOML file
    Import(import::Import),
    /// Find out why events do not arrive
    Doctor(doctor::Doctor),
    /// Inspect the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the health of the running server
    Health(health::Health),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page
    Man(man::ManPage),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Validate, and print every value with its source
    Check(config_check::Check),
}

/// The flags that select the config file.
#[derive(Debug, Clone, Default, Args)]
struct ConfigLocation {
    /// The config file [default: laravel-echo-server.toml, else laravel-echo-server.json]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the config file [default: the working directory]
    #[arg(long, short, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ConfigLocation {
    fn options(&self) -> LoadOptions {
        LoadOptions { dir: self.dir.clone(), config: self.config.clone(), defaults: false }
    }
}

/// The flags that select the config file, or none.
#[derive(Debug, Clone, Default, Args)]
struct ConfigSource {
    #[command(flatten)]
    place: ConfigLocation,
    /// Read no config file: use the defaults and the environment
    #[arg(long, conflicts_with = "config")]
    defaults: bool,
}

impl ConfigSource {
    fn options(&self) -> LoadOptions {
        LoadOptions { defaults: self.defaults, ..self.place.options() }
    }
}

/// Runs the command of the process's arguments.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    if std::env::args_os().len() == 1 && welcome::show()? {
        return Ok(ExitCode::SUCCESS);
    }
    match Cli::parse().command {
        Command::Start(command) => command.run(),
        Command::Stop(command) => command.run(),
        Command::Configure(command) => command.run(),
        Command::ClientAdd(command) => command.run(),
        Command::ClientRemove(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Config(ConfigCommand::Check(command)) => command.run(),
        Command::Health(command) => command.run(),
        Command::Completions(command) => command.run(&mut Cli::command()),
        Command::Man(command) => command.run(Cli::command()),
    }
}
