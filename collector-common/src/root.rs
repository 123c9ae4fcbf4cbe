//! The machine a collector looks at: the real one, or a directory with the same shape in a test.

use std::path::{Path, PathBuf};

/// Where `/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The machine this process runs on.
    pub fn host() -> Root {
        Root(PathBuf::from("/"))
    }

    /// A directory that is laid out like a machine.
    pub fn at(directory: impl Into<PathBuf>) -> Root {
        Root(directory.into())
    }

    /// Where an absolute path of the machine really lies.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether this is the machine the process runs on, so that kernel interfaces without a path speak of it too.
    pub fn is_host(&self) -> bool {
        self.0 == Path::new("/")
    }
}
