//! The packages under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::device::succeed;
use crate::machine::folder;

/// The agent's package for an architecture, as `make deb` left it.
pub fn of(architecture: &str) -> PathBuf {
    let folder = folder("DEVICE_PACKAGES");
    let ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("edgewarden_") && name.ends_with(&format!("_{architecture}.deb"))
    };
    let found: Vec<PathBuf> = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| ours(path))
        .collect();
    let [package] = &found[..] else { panic!("in {} are {found:?} for {architecture}", folder.display()) };
    package.clone()
}

/// The same package with a version that sorts below: what was there before. Beside the version, the old one's binary
/// is the new one's.
pub fn earlier(package: &Path, dir: &TempDir) -> PathBuf {
    let tree = dir.path().join("earlier");
    succeed(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let older: String = text
        .lines()
        .map(|line| if line.starts_with("Version:") { "Version: 0.0.1-1\n".to_owned() } else { format!("{line}\n") })
        .collect();
    std::fs::write(control, older).unwrap();
    let out = dir.path().join("earlier.deb");
    succeed(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "-b"]).arg(&tree).arg(&out));
    out
}

/// The version in a package.
pub fn version(package: &Path) -> String {
    succeed(Command::new("dpkg-deb").arg("-f").arg(package).arg("Version")).trim().to_owned()
}
