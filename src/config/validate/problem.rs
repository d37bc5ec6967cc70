//! [`Problem`]: a value that cannot stay. Input: what a rule found. Output: lines for people, with key, value and remedy.

use std::fmt;

use serde_json::Value;

use crate::config::schema;

/// Value of a key that has to be set and is not.
pub(super) const UNSET: &str = "unset";

/// One value that cannot stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, with lists counted from 0.
    pub key: String,
    /// What the entry of a list that it stands in is known by, such as its pattern.
    pub entry: Option<String>,
    /// The value as text.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// What to write instead, if that is not plain from what was expected.
    pub remedy: Option<String>,
    /// The file or variable that set it, where that is known.
    pub source: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", schema::numbered(&self.key))?;
        if let Some(entry) = &self.entry {
            write!(f, " ({entry})")?;
        }
        write!(f, " is {}, expected {}", self.value, self.expected)?;
        if let Some(source) = &self.source {
            let set = if self.value == UNSET { "" } else { "set " };
            write!(f, "\n    {set}in {source}")?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n    {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Names the entries of lists that keys stand in.
    #[must_use]
    pub(in crate::config) fn with_entries(mut self, tree: &Value) -> Self {
        for problem in &mut self.0 {
            problem.entry = schema::entry_name(tree, &problem.key);
        }
        self
    }

    /// Says of each key where it was set, if `source` knows.
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
    /// Says what to write instead.
    pub(super) fn fix(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }
}
