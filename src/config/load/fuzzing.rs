//! Invariants for any config file and `.env`. Input: bytes. Output: a panic when one is violated.

use std::path::Path;

use super::{Environment, parse, resolve};
use crate::config::{Config, validate};

/// The separator between the file and the `.env`.
const BETWEEN: &str = "\n--- .env ---\n";

/// Loads a file, TOML or JSON by its first character, and a `.env` after a separator line. Accepted settings are valid, and
/// equal after serialising and parsing them; a refusal has a message.
pub fn config_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (file, variables) = text.split_once(BETWEEN).unwrap_or((text, ""));
    let mut environment = Environment::default();
    environment.push_file(".env".into(), variables);
    let path = Path::new("config");
    let loaded = parse(path, file).and_then(|(tree, format)| resolve(Some((path.to_owned(), tree, format)), Vec::new(), &environment));
    match loaded {
        Ok(loaded) => {
            assert!(validate::check(&loaded.config).is_ok());
            let written = serde_json::to_string(&loaded.config).expect("settings serialise");
            let again: Config = serde_json::from_str(&written).expect("what was written can be read");
            assert_eq!(again, loaded.config, "{written}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
