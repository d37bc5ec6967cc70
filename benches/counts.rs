//! Counts the instructions that the server executes for an event, a client's message and a poll:
//! `cargo bench --profile counts --bench counts`. `./test counts` does the same.
//!
//! Input: the works of `works.rs`, and `counts.toml`, which has the counts of the last record and the compiler that they are of;
//! `-- --record` writes it. Output: a table. Fails when a count has changed by more than 5 %; with another compiler than that of
//! the record, whose counts differ by more than that, by more than 50 %.
//!
//! valgrind counts, so other programs on the machine make no difference. The kernel and the C library are left out, and so are
//! functions that choose their code by the processor: with one compiler, counts are the same on every machine. callgrind's profiles
//! stay in target/tmp.

#![expect(clippy::print_stdout, reason = "the table is the output")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

mod works;
mod world;

/// How often a work is done for its count, which is the mean.
const TIMES: u64 = 30;

/// Change that is not accepted, in percent, with the compiler of the record and with another one.
const MOST_CHANGE: f64 = 5.0;
const MOST_CHANGE_OTHERWISE: f64 = 50.0;

/// Functions that choose their code by the processor.
const BY_PROCESSOR: [&str; 4] = ["memchr::arch::", "httparse::simd::", "ring_core_", "std_detect::"];

/// Where the profiles are left.
const PROFILES: &str = env!("CARGO_TARGET_TMPDIR");

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.toml");
const PROFILE: &str = "counts";
const CHECK: &str = "cargo bench --profile counts --bench counts";
const TO_RECORD: &str = "cargo bench --profile counts --bench counts -- --record";

/// `counts.toml`.
#[derive(Deserialize)]
struct Record {
    /// Release and host of the compiler.
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> Result<ExitCode> {
    let program = std::env::current_exe()?;
    let profile = program.ancestors().nth(2).and_then(Path::file_name);
    ensure!(profile.is_some_and(|profile| profile == PROFILE), "the counts are of another build: {CHECK}");
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--record"] => record(),
        ["--work", name] => work(name),
        _ => bail!("unknown arguments {args:?}; expected none, or --record"),
    }
}

/// Does one work. valgrind counts inside of [`counted_by_valgrind`].
fn work(name: &str) -> Result<ExitCode> {
    let (_, work) = works::WORKS.into_iter().find(|(known, _)| *known == name).context("no such work")?;
    let mut work = work();
    work.warm_up();
    for _ in 0..TIMES {
        (work.prepare)();
        counted_by_valgrind(&mut *work.run);
    }
    Ok(ExitCode::SUCCESS)
}

#[inline(never)]
fn counted_by_valgrind(run: &mut dyn FnMut()) {
    run();
}

fn check() -> Result<ExitCode> {
    let text = std::fs::read_to_string(RECORD).with_context(|| format!("{RECORD} has the counts to compare with"))?;
    let record: Record = toml::from_str(&text).with_context(|| format!("{RECORD}: record it anew with `{TO_RECORD}`"))?;
    let compiler = compiler()?;
    let is_same = compiler == record.compiler;
    let most = if is_same { MOST_CHANGE } else { MOST_CHANGE_OTHERWISE };
    let mut changed = Vec::new();
    println!("{:<14} {:>12} {:>12} {:>8}", "instructions", "recorded", "now", "change");
    for (name, _) in works::WORKS {
        let now = count(name)?;
        let before = *record.instructions.get(name).with_context(|| format!("{RECORD} has no count of {name}: `{TO_RECORD}`"))?;
        let change = (now as f64 / before as f64 - 1.0) * 100.0;
        println!("{name:<14} {before:>12} {now:>12} {change:>+7.2}%");
        if change.abs() > most {
            changed.push(format!("{name} takes {now} instructions instead of {before} ({change:+.1} %)"));
        }
    }
    if !changed.is_empty() {
        println!(
            "\n{}\nMore than {most} % is refused. What executes them: callgrind_annotate {PROFILES}/NAME.callgrind",
            changed.join("\n")
        );
        println!("If the change is meant, or a gain to keep, record it: {TO_RECORD}");
        return Ok(ExitCode::FAILURE);
    }
    if !is_same {
        println!("\nrecorded with {}, this is {compiler}: only more than {most} % is refused. To record the counts", record.compiler);
        println!("of this one, on a commit where those of the other one were right: {TO_RECORD}");
    }
    Ok(ExitCode::SUCCESS)
}

fn record() -> Result<ExitCode> {
    let mut text = format!("# Instructions per work: `{TO_RECORD}`\ncompiler = \"{}\"\n\n[instructions]\n", compiler()?);
    for (name, _) in works::WORKS {
        writeln!(text, "{name} = {}", count(name)?)?;
    }
    std::fs::write(RECORD, &text).with_context(|| format!("cannot write {RECORD}"))?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Release and host of the compiler.
fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("rustc -vV has no {name}"));
    Ok(format!("rustc {}, {}", field("release: ")?, field("host: ")?))
}

/// Instructions of one work.
fn count(name: &str) -> Result<u64> {
    let program = std::env::current_exe()?;
    let profile = format!("{PROFILES}/{name}.callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_by_valgrind*", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={profile}"))
        .args([program.as_os_str(), "--work".as_ref(), name.as_ref()])
        .output()
        .context("cannot run valgrind: apt-get install valgrind")?;
    ensure!(output.status.success(), "{name} failed under valgrind:\n{}", String::from_utf8_lossy(&output.stderr));
    let total = total(&std::fs::read_to_string(&profile)?, &program);
    ensure!(total > 0, "valgrind counted nothing for {name}");
    Ok(total / TIMES)
}

/// Instructions of a profile of callgrind that are counted.
fn total(profile: &str, program: &Path) -> u64 {
    let (mut total, mut is_ours, mut function) = (0, false, "");
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_ours = Path::new(object) == program;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            // What the called function took.
            lines.next();
        } else if let Some((position, cost)) = line.split_once(' ')
            && position.parse::<u64>().is_ok()
            && is_ours
            && !BY_PROCESSOR.iter().any(|part| function.contains(part))
        {
            total += cost.parse::<u64>().unwrap_or(0);
        }
    }
    total
}
