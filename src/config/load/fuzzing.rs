//! What must hold for any config file and `.env`. Input: bytes. Output: a panic when it does not.

use std::path::Path;

use super::{Environment, parse, resolve};
use crate::config::{Config, validate};

/// What stands between the file and the `.env`.
const BETWEEN: &str = "\n--- .env ---\n";

/// A file, TOML or JSON by its first character, and a `.env` after a line that says so. Settings that are taken are
/// valid, and written down they are read as the same; what is refused can be told.
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
