//! The findings of `doctor`. Input: the results of checks. Output: a line for each as soon as it is known, or JSON at the end.

use std::fmt::Display;

use laravel_echo_server::checks::Finding;
pub(super) use laravel_echo_server::checks::Status;

use crate::cli::output::{self, BAD, CAUTION, FAINT, GOOD, paint};

/// All findings so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    as_json: bool,
}

impl Report {
    pub(super) fn new(as_json: bool) -> Self {
        Self { findings: Vec::new(), as_json }
    }

    pub(super) fn ok(&mut self, check: &'static str, message: impl Display) {
        self.add(check, Status::Ok, message, "");
    }

    pub(super) fn warning(&mut self, check: &'static str, message: impl Display, fix: impl Display) {
        self.add(check, Status::Warning, message, fix);
    }

    pub(super) fn problem(&mut self, check: &'static str, message: impl Display, fix: impl Display) {
        self.add(check, Status::Problem, message, fix);
    }

    pub(super) fn add(&mut self, check: &'static str, status: Status, message: impl Display, fix: impl Display) {
        let finding = Finding { check, status, message: message.to_string(), fix: fix.to_string() };
        if !self.as_json {
            print(&finding);
        }
        self.findings.push(finding);
    }

    /// The number of problems so far.
    pub(super) fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.status == Status::Problem).count()
    }

    #[cfg(test)]
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// All findings, to be shown elsewhere.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Prints the totals, or everything as JSON. `true` if there are no problems.
    pub(super) fn finish(self) -> bool {
        let count = |status| self.findings.iter().filter(|finding| finding.status == status).count();
        let (problems, warnings) = (count(Status::Problem), count(Status::Warning));
        if self.as_json {
            output::line(format!("{:#}", serde_json::json!({"ok": problems == 0, "findings": self.findings})));
        } else {
            output::line(format!("\nproblems: {problems}, warnings: {warnings}"));
        }
        problems == 0
    }
}

fn print(finding: &Finding) {
    let mark = match finding.status {
        Status::Ok => paint(GOOD, "✔ ok     "),
        Status::Unknown => paint(FAINT, "? unknown"),
        Status::Warning => paint(CAUTION, "! warning"),
        Status::Problem => paint(BAD, "✖ problem"),
    };
    output::line(format!("{mark} {:8} {}", finding.check, finding.message));
    for line in finding.fix.lines() {
        output::line(format!("                   {} {line}", paint(FAINT, "→")));
    }
}
