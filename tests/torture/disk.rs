//! A file system of a few megabytes as the state directory, which can be filled. Mounting needs root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait;

/// Enough for the spool's default quota, and little to fill.
const SIZE: &str = "size=4m,mode=700";

/// The mount; it ends with this value.
pub struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// Mounts one, or says why that cannot be.
    pub fn mount(on: &Path) -> Result<Disk, String> {
        let mut command = Command::new("mount");
        let out = wait::output("mount", command.args(["-t", "tmpfs", "-o", SIZE, "torture"]).arg(on));
        match out.status.success() {
            true => Ok(Disk { mount: on.to_owned() }),
            false => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
        }
    }

    /// Takes what room there is.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because an agent may still have its files open.
        Command::new("umount").arg("-l").arg(&self.mount).status().ok();
    }
}
