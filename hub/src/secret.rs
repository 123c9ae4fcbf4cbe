//! Files that stand for somebody: the key of a certificate, the hashes of passwords.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Some hundred thousand devices, and far more than any key.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads a file that only its owner and group may see. `what` it is goes into the error.
///
/// # Errors
///
/// A sentence, when it cannot be read, is no regular file, or is open to everybody.
pub fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let (bytes, mode) = read_any(what, path)?;
    if mode & 0o007 != 0 {
        return Err(format!("{what} {shown} is open to everybody (mode {mode:04o}) and is not used: chmod o= {shown}"));
    }
    Ok(bytes)
}

/// Reads a file that is no secret, such as a certificate.
///
/// # Errors
///
/// A sentence, when it cannot be read or is no regular file.
pub fn read_public(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    Ok(read_any(what, path)?.0)
}

fn read_any(what: &str, path: &Path) -> Result<(Vec<u8>, u32), String> {
    let fault = |error: &dyn std::fmt::Display| format!("cannot read {what} {}: {error}", path.display());
    // A pipe must not hold the hub up until somebody writes to it.
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| fault(&error))?;
    let metadata = file.metadata().map_err(|error| fault(&error))?;
    if !metadata.is_file() {
        return Err(fault(&"it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| fault(&error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(fault(&"it is larger than 64 MiB"));
    }
    Ok((bytes, metadata.mode() & 0o7777))
}
