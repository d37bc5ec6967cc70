//! Builds the browser's `socket.io.js` into the server: from `SOCKET_IO_CLIENT_DIST`, the `dist` folder of the npm package
//! `socket.io-client`, or else from that package in a `node_modules` here or above. A build fetches nothing. Without the
//! package it says so, and the server looks for the files when they are asked for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOCKET_IO_CLIENT_DIST");
    let mut files = String::from("/// Files built in: name and content.\nstatic BUILT_IN: &[(&str, &[u8])] = &[\n");
    if let Some(folder) = named().or_else(installed) {
        println!("cargo:rerun-if-changed={}", folder.display());
        for name in ["socket.io.js", "socket.io.js.map", "socket.io.min.js", "socket.io.min.js.map"] {
            let file = folder.join(name);
            if file.is_file() {
                writeln!(files, "    ({name:?}, include_bytes!({:?})),", file.display().to_string()).expect("writing to a String");
            }
        }
    } else {
        println!(
            "cargo:warning=/socket.io/socket.io.js is not built in, for pages that load it from the server: \
             `npm i --no-save --no-package-lock socket.io-client` here and `touch build.rs`, or set SOCKET_IO_CLIENT_DIST"
        );
    }
    files.push_str("];\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("client_files.rs"), files).expect("OUT_DIR can be written to");
}

/// The folder that the environment names; it has to have the file.
fn named() -> Option<PathBuf> {
    let folder = env::var("SOCKET_IO_CLIENT_DIST").ok().filter(|folder| !folder.is_empty())?;
    let folder = fs::canonicalize(&folder).unwrap_or_else(|error| panic!("SOCKET_IO_CLIENT_DIST={folder}: {error}"));
    assert!(folder.join("socket.io.js").is_file(), "SOCKET_IO_CLIENT_DIST={}: there is no socket.io.js in it", folder.display());
    Some(folder)
}

/// The package as npm puts it here or above.
fn installed() -> Option<PathBuf> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let mut folders = here.ancestors().map(|folder| folder.join("node_modules/socket.io-client/dist"));
    folders.find(|folder| folder.join("socket.io.js").is_file())
}
