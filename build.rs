//! Builds the browser's `socket.io.js` into the server when `SOCKET_IO_CLIENT_DIST` names the `dist` folder of the npm
//! package `socket.io-client`. Without it the server looks for the files when they are asked for.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOCKET_IO_CLIENT_DIST");
    let mut files = String::from("/// Files built in: name and content.\nstatic BUILT_IN: &[(&str, &[u8])] = &[\n");
    if let Ok(folder) = env::var("SOCKET_IO_CLIENT_DIST") {
        println!("cargo:rerun-if-changed={folder}");
        let folder = fs::canonicalize(&folder).unwrap_or_else(|error| panic!("SOCKET_IO_CLIENT_DIST={folder}: {error}"));
        assert!(folder.join("socket.io.js").is_file(), "SOCKET_IO_CLIENT_DIST={}: there is no socket.io.js in it", folder.display());
        for name in ["socket.io.js", "socket.io.js.map", "socket.io.min.js", "socket.io.min.js.map"] {
            let file = folder.join(name);
            if file.is_file() {
                writeln!(files, "    ({name:?}, include_bytes!({:?})),", file.display().to_string()).expect("writing to a String");
            }
        }
    }
    files.push_str("];\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("client_files.rs"), files).expect("OUT_DIR can be written to");
}
