//! `man`: the manual page. Input: the definitions of commands and flags. Output: the page on stdout, for `man -l -`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

/// Flags of `man`.
#[derive(Debug, Args)]
pub(super) struct ManPage {}

impl ManPage {
    pub(super) fn run(self, command: Command) -> anyhow::Result<ExitCode> {
        let mut page = Vec::new();
        render(command, &mut page).context("writing the manual page")?;
        std::io::stdout().write_all(&page).context("writing the manual page")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The page of the program, then the flags of each command, so that everything is on one page.
fn render(mut command: Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    command.build();
    let man = Man::new(command.clone()).section("1");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        writeln!(page, ".SH \"{}\"", sub.get_name().to_uppercase())?;
        let man = Man::new(sub.clone());
        for part in [Man::render_description_section, Man::render_options_section] {
            let mut text = Vec::new();
            part(&man, &mut text)?;
            // Parts of a command become subsections.
            page.extend_from_slice(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes());
        }
    }
    page.extend_from_slice(FILES.as_bytes());
    man.render_version_section(page)
}

/// Sections that cannot be generated from the commands.
const FILES: &str = r#".SH FILES
.TP
laravel\-echo\-server.toml, laravel\-echo\-server.json
The settings, in the working directory unless \fB\-\-config\fR or \fB\-\-dir\fR say otherwise.
.SH SIGNALS
.TP
SIGTERM, SIGINT
Clients are disconnected in small groups, then the server exits; a second signal makes it exit at once.
.TP
SIGHUP
Clients, limits, origins, proxies, certificates and headers are reloaded.
"#;
