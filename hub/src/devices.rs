//! Which devices may log in with a password: a file that `device add` and `device remove` edit and `serve` re-reads.
//!
//! ```text
//! press-17:$7$101$SALT$DIGEST        PBKDF2-HMAC-SHA512, 101 rounds, salt and digest in base64
//! ```
//!
//! It is the password file of mosquitto (`$7$` entries, mosquitto_passwd(1)), so that one can move to or from it. So few
//! rounds are sound because the passwords are made here, from 160 random bits: nobody guesses those, however fast a
//! guess is. In return ten thousand boards that come back at once cost the hub a second or two, not minutes. The device
//! is what stands before the last colon of a line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

use crate::secret;

pub mod command;

/// The longest id of a device; it is a level of an MQTT topic.
pub const MAX_DEVICE_BYTES: usize = 128;

const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
const DIGEST_BYTES: usize = 64;
const SALT_BYTES: usize = 16;
const PASSWORD_BYTES: usize = 20;

/// What mosquitto_passwd takes as well.
const ROUNDS: NonZeroU32 = NonZeroU32::new(101).expect("101 is not 0");

/// More would let strangers keep the hub busy with wrong passwords: these take some milliseconds each.
const MAX_ROUNDS: u32 = 10_000;

/// Whether a text can be the id of a device: it is a topic level and a client id.
///
/// # Errors
///
/// What was expected.
pub fn check_id(id: &str) -> Result<(), String> {
    let is_bad = |c: char| matches!(c, '/' | '\\' | '+' | '#') || c.is_control();
    if id.is_empty() || id.trim() != id || id.len() > MAX_DEVICE_BYTES || id.contains(is_bad) {
        return Err(format!(
            "a device id has 1 to {MAX_DEVICE_BYTES} bytes, no blanks around it, and no / \\ + # or control characters"
        ));
    }
    Ok(())
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Hash {
    fn of(password: &[u8], salt: Vec<u8>) -> Hash {
        let mut digest = vec![0; DIGEST_BYTES];
        pbkdf2::derive(ALGORITHM, ROUNDS, &salt, password, &mut digest);
        Hash { rounds: ROUNDS, salt, digest }
    }

    /// Whether this is the password, in a time that does not tell how much of it is right.
    pub fn is_of(&self, password: &[u8]) -> bool {
        pbkdf2::verify(ALGORITHM, self.rounds, &self.salt, password, &self.digest).is_ok()
    }

    fn parse(text: &str) -> Result<Hash, String> {
        let wrong =
            || "expected DEVICE:$7$ROUNDS$SALT$DIGEST, as `device add` and mosquitto_passwd write it".to_owned();
        let fields: Vec<&str> = text.split('$').collect();
        let ["", "7", rounds, salt, digest] = fields[..] else { return Err(wrong()) };
        let rounds: NonZeroU32 = rounds.parse().map_err(|_| wrong())?;
        if rounds.get() > MAX_ROUNDS {
            return Err(format!("{rounds} rounds are more than the {MAX_ROUNDS} the hub has time for at each login"));
        }
        let salt = Base64::decode_vec(salt).map_err(|_| wrong())?;
        let digest = Base64::decode_vec(digest).map_err(|_| wrong())?;
        if salt.is_empty() || digest.len() != DIGEST_BYTES { Err(wrong()) } else { Ok(Hash { rounds, salt, digest }) }
    }

    fn text(&self) -> String {
        format!("$7${}${}${}", self.rounds, Base64::encode_string(&self.salt), Base64::encode_string(&self.digest))
    }
}

/// The devices of a file.
type Entries = HashMap<String, Hash>;

fn parse(path: &Path, text: &str) -> Result<Entries, String> {
    let mut entries = Entries::new();
    for (number, line) in text.lines().enumerate() {
        let at = |why: &str| format!("{}:{}: {why}", path.display(), number + 1);
        if is_comment(line) {
            continue;
        }
        let (device, hash) = line.rsplit_once(':').ok_or_else(|| at("expected DEVICE:$7$ROUNDS$SALT$DIGEST"))?;
        check_id(device).map_err(|why| at(&why))?;
        let hash = Hash::parse(hash.trim_end()).map_err(|why| at(&why))?;
        if entries.insert(device.to_owned(), hash).is_some() {
            return Err(at(&format!("{device} has an entry further up")));
        }
    }
    Ok(entries)
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#') || line.trim().is_empty()
}

/// What tells one content of a file from another without reading it.
type Stamp = (u64, u64, i64, i64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let seen = fs::metadata(path).ok()?;
    Some((seen.ino(), seen.size(), seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec()))
}

/// The file as `serve` sees it: always the last content that could be used.
pub struct Devices {
    path: PathBuf,
    stamp: Option<Stamp>,
    entries: Entries,
}

impl Devices {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// The file, the line, and what is wrong with it.
    pub fn open(path: &Path) -> Result<Devices, String> {
        let stamp = stamp(path);
        Ok(Devices { path: path.to_owned(), stamp, entries: parse(path, &read(path)?)? })
    }

    /// The entry of a device now: the file is read again when it has changed.
    pub fn find(&mut self, device: &str) -> Option<&Hash> {
        self.refresh();
        self.entries.get(device)
    }

    fn refresh(&mut self) {
        // Taken before reading, so that a change while we read is seen the next time.
        let stamp = stamp(&self.path);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match read(&self.path).and_then(|text| parse(&self.path, &text)) {
            Ok(entries) => {
                tracing::info!(devices = entries.len(), "{} read again", self.path.display());
                self.entries = entries;
            }
            Err(error) => {
                tracing::error!("{error}; the {} devices of before stay in force", self.entries.len());
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = secret::read("the devices file", path)?;
    String::from_utf8(bytes).map_err(|_| format!("{}: the devices file is not UTF-8", path.display()))
}

/// Adds a device and gives its password, which is kept nowhere.
///
/// # Errors
///
/// A sentence, when the id cannot be used, the device is there already or the file cannot be written.
pub fn add(path: &Path, device: &str) -> Result<String, String> {
    check_id(device).map_err(|why| format!("{device:?} cannot be added: {why}"))?;
    let mut password = String::new();
    for byte in random::<PASSWORD_BYTES>()? {
        // Writing to a String cannot fail.
        let _always_ok = write!(password, "{byte:02x}");
    }
    let hash = Hash::of(password.as_bytes(), random::<SALT_BYTES>()?.to_vec());
    edit(path, |text, entries| {
        if entries.contains_key(device) {
            return Err(format!("{device} is in {} already; for a new password remove it first", path.display()));
        }
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Ok(format!("{text}{end}{device}:{}\n", hash.text()))
    })?;
    Ok(password)
}

/// Removes a device.
///
/// # Errors
///
/// A sentence, when it is not there or the file cannot be written.
pub fn remove(path: &Path, device: &str) -> Result<(), String> {
    edit(path, |text, entries| {
        if !entries.contains_key(device) {
            return Err(format!("{device} is not in {}", path.display()));
        }
        let is_other =
            |line: &&str| is_comment(line) || line.rsplit_once(':').is_none_or(|(present, _)| present != device);
        Ok(text.split_inclusive('\n').filter(is_other).collect())
    })
}

/// The devices of a file, in order.
///
/// # Errors
///
/// The file, the line, and what is wrong with it.
pub fn list(path: &Path) -> Result<Vec<String>, String> {
    let mut devices: Vec<_> = parse(path, &read(path)?)?.into_keys().collect();
    devices.sort_unstable();
    Ok(devices)
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes)
}

/// Replaces the file as a whole, so that a hub that reads it now sees either the old or the new one.
fn edit(path: &Path, change: impl FnOnce(&str, &Entries) -> Result<String, String>) -> Result<(), String> {
    let fault = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| fault(&error))?;
    // Two commands at once would each write without the other's device.
    let locked = File::open(directory).map_err(|error| fault(&error))?;
    locked.lock().map_err(|error| fault(&error))?;
    let present = fs::metadata(path).ok();
    let text = if present.is_some() { read(path)? } else { String::new() };
    let changed = change(&text, &parse(path, &text)?)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|error| fault(&error))?;
    file.write_all(changed.as_bytes()).map_err(|error| fault(&error))?;
    // Run by root, this must stay a file that the user of the hub can read.
    let (owner, mode) = match &present {
        Some(present) => ((present.uid(), present.gid()), present.mode() & 0o640),
        None => {
            fs::metadata(directory).map(|there| ((there.uid(), there.gid()), 0o600)).map_err(|error| fault(&error))?
        }
    };
    let ours = file.as_file().metadata().map_err(|error| fault(&error))?;
    if (ours.uid(), ours.gid()) != owner && ours.uid() == 0 {
        fchown(file.as_file(), Some(owner.0), Some(owner.1)).map_err(|error| fault(&error))?;
    }
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(|error| fault(&error))?;
    file.as_file().sync_all().map_err(|error| fault(&error))?;
    file.persist(path).map_err(|error| fault(&error.error))?;
    locked.sync_all().map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests;
