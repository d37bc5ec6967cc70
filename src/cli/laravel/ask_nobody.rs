//! In place of `ask.rs` on Windows: whose the project's code is cannot be known there, so none of it is run.

use std::path::Path;

use serde_json::Value as Json;

/// Why not.
pub(super) fn ask(_dir: &Path) -> Result<Json, String> {
    Err("code of the project is not run on Windows".to_owned())
}
