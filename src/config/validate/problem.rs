//! [`Problem`]: an invalid value. Input: the findings of rules. Output: messages with key, value and fix.

use std::fmt;

use serde_json::Value;

use crate::config::{schema, secrets};

/// Value of a key that has to be set and is not.
pub(super) const UNSET: &str = "unset";

/// One invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, with lists counted from 0.
    pub key: String,
    /// What identifies the list entry that it is in, such as its pattern.
    pub entry: Option<String>,
    /// The value as text.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// How to fix it, if `expected` does not make that clear.
    pub remedy: Option<String>,
    /// The file or variable that set it, if known.
    pub source: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", schema::numbered(&self.key))?;
        if let Some(entry) = &self.entry {
            write!(f, " ({entry})")?;
        }
        write!(f, " is {}, expected {}", secrets::without_secrets(&self.value), self.expected)?;
        if let Some(source) = &self.source {
            // For a rule the source is a whole phrase, `taken from …`.
            match source.starts_with("taken from ") {
                true => write!(f, "\n    {source}")?,
                false if self.value == UNSET => write!(f, "\n    in {source}")?,
                false => write!(f, "\n    set in {source}")?,
            }
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n    {remedy}"),
            None => Ok(()),
        }
    }
}

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds what identifies the list entries.
    #[must_use]
    pub(in crate::config) fn with_entries(mut self, tree: &Value) -> Self {
        for problem in &mut self.0 {
            problem.entry = schema::entry_name(tree, &problem.key);
        }
        self
    }

    /// Adds where each key was set, if `source` knows.
    #[must_use]
    pub(in crate::config) fn with_sources(mut self, source: impl Fn(&str) -> Option<String>) -> Self {
        for problem in &mut self.0 {
            problem.source = source(&problem.key);
        }
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot work:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

impl Problem {
    /// Sets how to fix it.
    pub(super) fn fix(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }
}
