//! Files that prove who we are, and the certificates beside them.
//!
//! ```text
//! /etc/edgewarden/key.pem     an absolute path
//! credential:NAME             $CREDENTIALS_DIRECTORY/NAME, which systemd fills       systemd.exec(5), Credentials
//! ```
//!
//! A file is read anew whenever it is needed, so that a renewed one is used. A secret that everybody can read is
//! refused. The group may read: that is somebody's decision, and systemd shows the access list of a credential in the
//! bits of the group (acl(5)).

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use collector_common::root::Root;
use nix::libc::O_NONBLOCK;

/// No key, password or bundle of certificates is larger: bytes.
const MAX_BYTES: u64 = 1024 * 1024;

const PREFIX: &str = "credential:";

/// Where such a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An absolute path.
    Path(PathBuf),
    /// The name of a credential that systemd hands over.
    Credential(String),
}

impl Source {
    /// Reads it as it is written in the configuration.
    ///
    /// # Errors
    /// What was expected and what was found, which never shows the text.
    pub fn parse(text: &str) -> Result<Source, (String, String)> {
        let Some(name) = text.strip_prefix(PREFIX) else {
            let path = PathBuf::from(text);
            if path.is_absolute() && !text.contains('\0') {
                return Ok(Source::Path(path));
            }
            return Err(("an absolute path or credential:NAME".to_owned(), "something else".to_owned()));
        };
        let is_name = !name.is_empty() && name.len() < 256 && !matches!(name, "." | "..");
        if is_name && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
            Ok(Source::Credential(name.to_owned()))
        } else {
            Err(("the name of a credential: one file name".to_owned(), "something else".to_owned()))
        }
    }

    /// The content of a file that everybody may know. `what` names it in an error.
    ///
    /// # Errors
    /// A sentence: it cannot be read, is no regular file or is too large.
    pub fn read(&self, what: &str, root: &Root) -> Result<Vec<u8>, String> {
        self.read_as(what, root, false)
    }

    /// The content of a file that nobody else may know.
    ///
    /// # Errors
    /// As [`Source::read`], and when everybody may read or change it.
    pub fn read_secret(&self, what: &str, root: &Root) -> Result<Vec<u8>, String> {
        self.read_as(what, root, true)
    }

    /// The text of a secret, without the line end that an editor leaves.
    ///
    /// # Errors
    /// As [`Source::read_secret`], and when it is empty or no UTF-8.
    pub fn read_secret_text(&self, what: &str, root: &Root) -> Result<String, String> {
        let text = String::from_utf8(self.read_secret(what, root)?);
        let text = text.map_err(|_| format!("{what} {self} is no UTF-8 text"))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("{what} {self} is empty")),
            text => Ok(text.to_owned()),
        }
    }

    fn read_as(&self, what: &str, root: &Root, is_secret: bool) -> Result<Vec<u8>, String> {
        let path = root.path(self.locate(std::env::var_os("CREDENTIALS_DIRECTORY"))?);
        let fault = |reason: &dyn fmt::Display| format!("cannot read {what} {self}: {reason}");
        // Opening a pipe would wait for somebody to write into it.
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(|error| fault(&error))?;
        let metadata = file.metadata().map_err(|error| fault(&error))?;
        if !metadata.is_file() {
            return Err(fault(&"it is no regular file"));
        }
        if is_secret && metadata.mode() & 0o007 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(format!(
                "{what} {self} is open to everybody (mode {mode:04o}) and is not used: chmod o= {self}"
            ));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| fault(&error))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(fault(&"it is larger than 1 MiB"));
        }
        Ok(bytes)
    }

    fn locate(&self, credentials: Option<OsString>) -> Result<PathBuf, String> {
        match (self, credentials) {
            (Source::Path(path), _) => Ok(path.clone()),
            (Source::Credential(name), Some(directory)) => Ok(Path::new(&directory).join(name)),
            (Source::Credential(name), None) => Err(format!(
                "cannot read credential:{name}: $CREDENTIALS_DIRECTORY is not set, which systemd does for a unit with \
                 LoadCredential={name}:PATH"
            )),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Path(path) => path.display().fmt(f),
            Source::Credential(name) => write!(f, "{PREFIX}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_source_is_a_path_or_the_name_of_a_credential() {
        for text in ["/etc/edgewarden/key.pem", "credential:hub-key", "credential:a.b"] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        for text in ["key.pem", "", "credential:", "credential:..", "credential:a/b", "credential:a b", "/a\0b"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
        let credential = Source::parse("credential:key").unwrap();
        assert_eq!(credential.locate(Some("/run/c".into())), Ok(PathBuf::from("/run/c/key")));
        assert!(credential.locate(None).unwrap_err().contains("LoadCredential=key:PATH"));
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        fs::write(root.path("/key"), "hunter2\r\n").unwrap();
        let source = Source::parse("/key").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o440, true), (0o640, true), (0o604, false), (0o642, false)] {
            fs::set_permissions(root.path("/key"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(source.read_secret_text("the key", &root).is_ok(), is_taken, "{mode:o}");
        }
        assert_eq!(
            source.read_secret_text("the key", &root).unwrap_err(),
            "the key /key is open to everybody (mode 0642) and is not used: chmod o= /key"
        );
        assert_eq!(source.read("the key", &root).unwrap(), b"hunter2\r\n");
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        assert!(std::process::Command::new("mkfifo").arg(root.path("/pipe")).status().unwrap().success());
        fs::write(root.path("/large"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
        fs::write(root.path("/empty"), "\n").unwrap();
        fs::set_permissions(root.path("/empty"), Permissions::from_mode(0o600)).unwrap();
        for (path, words) in [
            ("/pipe", "cannot read the key /pipe: it is no regular file"),
            ("/", "cannot read the key /: it is no regular file"),
            ("/large", "cannot read the key /large: it is larger than 1 MiB"),
            ("/none", "cannot read the key /none: No such file or directory (os error 2)"),
        ] {
            assert_eq!(Source::parse(path).unwrap().read("the key", &root).unwrap_err(), words);
        }
        let empty = Source::parse("/empty").unwrap().read_secret_text("the key", &root);
        assert_eq!(empty.unwrap_err(), "the key /empty is empty");
    }
}
