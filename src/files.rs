//! Reads the files named in settings. Input: a path. Output: its bytes, or an error. "Permission denied" errors name the
//! file's owner and mode, because a key of root, or a config file in a container, is the usual case. Windows has neither
//! numeric owners nor modes; there errors are unchanged.

use std::io;
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

#[cfg(unix)]
use rustix::process::{getegid, geteuid};

/// Reads a file.
///
/// # Errors
/// I/O errors; "Permission denied" with the owner, the mode and the command to fix it.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|error| explained(path, error))
}

/// Adds owner and mode to "Permission denied"; other errors are unchanged.
#[cfg(unix)]
#[must_use]
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // The file itself, or the innermost folder whose metadata can be read.
    let Some((barrier, metadata)) = absolute.ancestors().find_map(|place| Some((place, place.metadata().ok()?))) else { return error };
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let (mode, wanted) = (metadata.permissions().mode() & 0o7777, if metadata.is_dir() { "g+rx" } else { "g+r" });
    let text = format!(
        "Permission denied: `{shown}` belongs to user {} and group {} with mode {mode:04o}, and this process is user {user}, group {group}; \
         `chgrp {group} {shown} && chmod {wanted} {shown}` gives it access",
        metadata.uid(),
        metadata.gid(),
        shown = barrier.display()
    );
    io::Error::new(error.kind(), text)
}

/// Returns the error unchanged.
#[cfg(not(unix))]
#[must_use]
pub const fn explained(_path: &Path, error: io::Error) -> io::Error {
    error
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_owner_mode_and_process() {
        let folder = std::env::temp_dir().join(format!("echo-files-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("key.pem");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let denied = |path: &Path| explained(path, io::ErrorKind::PermissionDenied.into()).to_string();
        let (of_file, of_folder) = (denied(&path), denied(&path.join("inside/it")));
        assert_eq!(read(&path).unwrap(), b"secret");
        std::fs::remove_dir_all(&folder).unwrap();

        let me = format!("this process is user {}, group {}", geteuid().as_raw(), getegid().as_raw());
        for part in ["key.pem` belongs to user", "with mode 0600", "chmod g+r ", &me] {
            assert!(of_file.contains(part), "{of_file}");
        }
        assert!(of_folder.contains("key.pem` belongs"), "{of_folder}");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
