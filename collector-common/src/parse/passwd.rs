//! The account files: `passwd(5)`, `group(5)` and `shadow(5)`.
//!
//! ```text
//! passwd   name:password:uid:gid:comment:home:shell         password `x` means: see shadow
//! group    name:password:gid:member,member
//! shadow   name:password:last change:min:max:warn:inactive:expire:
//! ```
//!
//! A line counts when the C library counts it (glibc `nss/nss_files`): blanks before it, empty lines and lines that
//! begin with `#` are passed over, and fields that are missing at the end of a passwd line are empty. Every other line
//! that gives no entry is a fault with its number, and never costs the lines around it. No password hash leaves this
//! module.

use std::collections::BTreeMap;

/// The entries of a file, and what was odd about it: `line N: ...` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// In the file's order, duplicates included.
    pub entries: Vec<T>,
    /// In the file's order.
    pub faults: Vec<String>,
}

/// A line of passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell; empty means `/bin/sh`.
    pub shell: String,
    /// What the file itself says about the password; `None` when it points to shadow.
    pub password: Option<PasswordLogin>,
}

/// A line of group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Login names of those for whom it is not the primary group.
    pub members: Vec<String>,
}

/// A line of shadow, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Login name.
    pub name: String,
    /// What the password field allows.
    pub password: PasswordLogin,
}

/// Whether an account can be entered with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordLogin {
    /// There is a password.
    Yes,
    /// No password can match.
    No,
    /// There is a password, with a `!` before it that locks it.
    Locked,
    /// No password is needed.
    Empty,
}

impl PasswordLogin {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            PasswordLogin::Yes => "yes",
            PasswordLogin::No => "no",
            PasswordLogin::Locked => "locked",
            PasswordLogin::Empty => "empty",
        }
    }

    /// What a password field allows.
    fn of(field: &str) -> PasswordLogin {
        let unlocked = field.trim_start_matches('!');
        match (field.is_empty(), unlocked.len() < field.len(), is_hash(unlocked)) {
            (true, ..) => PasswordLogin::Empty,
            (_, true, true) => PasswordLogin::Locked,
            (_, false, true) => PasswordLogin::Yes,
            (_, _, false) => PasswordLogin::No,
        }
    }
}

/// Reads passwd.
pub fn users(bytes: &[u8]) -> Parsed<User> {
    let mut parsed = entries(bytes, user);
    note_duplicates(&mut parsed, |user| &user.name);
    parsed.without_lines()
}

/// Reads group.
pub fn groups(bytes: &[u8]) -> Parsed<Group> {
    let mut parsed = entries(bytes, group);
    note_duplicates(&mut parsed, |group| &group.name);
    parsed.without_lines()
}

/// Reads shadow.
pub fn shadows(bytes: &[u8]) -> Parsed<Shadow> {
    let mut parsed = entries(bytes, shadow);
    note_duplicates(&mut parsed, |shadow| &shadow.name);
    parsed.without_lines()
}

fn user(line: &str) -> Result<User, String> {
    let mut fields = line.splitn(7, ':');
    let name = name(fields.next())?;
    let password = fields.next().ok_or("no password field")?;
    let password = (password != "x").then(|| PasswordLogin::of(password));
    let uid = id(fields.next(), "user id")?;
    let gid = id(fields.next(), "group id")?;
    let mut text = || fields.next().unwrap_or_default().to_owned();
    let (_comment, home, shell) = (text(), text(), text());
    Ok(User { name, uid, gid, home, shell, password })
}

fn group(line: &str) -> Result<Group, String> {
    let mut fields = line.splitn(4, ':');
    let name = name(fields.next())?;
    fields.next().ok_or("no password field")?;
    let gid = id(fields.next(), "group id")?;
    let members = fields.next().unwrap_or_default().split(',').map(str::trim).filter(|member| !member.is_empty());
    Ok(Group { name, gid, members: members.map(str::to_owned).collect() })
}

fn shadow(line: &str) -> Result<Shadow, String> {
    let mut fields = line.split(':');
    let name = name(fields.next())?;
    let password = PasswordLogin::of(fields.next().ok_or("no password field")?);
    Ok(Shadow { name, password })
}

fn name(field: Option<&str>) -> Result<String, String> {
    match field {
        None | Some("") => Err("no name".to_owned()),
        Some(nis) if nis.starts_with(['+', '-']) => Err(format!("{nis:?} refers to NIS, which is not asked")),
        Some(name) => Ok(name.to_owned()),
    }
}

fn id(field: Option<&str>, what: &str) -> Result<u32, String> {
    let field = field.ok_or_else(|| format!("no {what}"))?;
    let digits_only = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits_only.then(|| field.parse().ok()).flatten();
    number.ok_or_else(|| format!("{field:?} is no {what}"))
}

/// Whether a text can be what `crypt(5)` gives: `$id$...`, `_` and 19 characters, or the 13 of DES. Any other text
/// matches no password.
fn is_hash(text: &str) -> bool {
    let in_alphabet = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    match text.strip_prefix('$') {
        Some(rest) => rest.contains('$'),
        None => match text.strip_prefix('_') {
            Some(rest) => rest.len() == 19 && in_alphabet(rest),
            None => text.len() == 13 && in_alphabet(text),
        },
    }
}

fn entries<T>(bytes: &[u8], parse: impl Fn(&str) -> Result<T, String>) -> Parsed<(usize, T)> {
    let mut parsed = Parsed { entries: Vec::new(), faults: Vec::new() };
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let line = line.trim_ascii_start();
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if bare.is_empty() || bare.starts_with(b"#") {
            continue;
        }
        if bare.len() < line.len() {
            parsed.faults.push(format!("line {number}: ends in a carriage return, which was taken off"));
        }
        let text = String::from_utf8_lossy(bare);
        match parse(&text) {
            Ok(entry) => {
                if matches!(text, std::borrow::Cow::Owned(_)) {
                    parsed.faults.push(format!("line {number}: is not UTF-8, bad bytes were replaced"));
                }
                parsed.entries.push((number, entry));
            }
            Err(fault) => parsed.faults.push(format!("line {number}: {fault}")),
        }
    }
    parsed
}

/// Lookups by name find the first line only, so a second one is either a mistake or a trick.
fn note_duplicates<T>(parsed: &mut Parsed<(usize, T)>, name: impl Fn(&T) -> &String) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (line, entry) in &parsed.entries {
        let known = *first.entry(name(entry)).or_insert(*line);
        if known != *line {
            parsed.faults.push(format!("line {line}: {:?} is on line {known} already, which counts", name(entry)));
        }
    }
}

impl<T> Parsed<(usize, T)> {
    fn without_lines(self) -> Parsed<T> {
        Parsed { entries: self.entries.into_iter().map(|(_, entry)| entry).collect(), faults: self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        \n\
        short:*:5:6\n\
        broken:x:minus:0::/:/bin/sh\n\
        +@netgroup::::::\n\
        \t  toor::0:0:spare:/root:/bin/sh:with:colons\n\
        dos:x:7:7::/home/dos:/bin/sh\r\n\
        caf\xe9:x:8:8::/home/caf\xe9:/bin/sh\n\
        root:x:1:1::/:/bin/false\n\
        big:x:4294967296:0::/:\n\
        last:x:9:9::/last:/bin/sh";

    #[test]
    fn good_lines_survive_bad_neighbours() {
        let parsed = users(PASSWD);
        let names: Vec<_> = parsed.entries.iter().map(|user| (user.name.as_str(), user.uid)).collect();
        let expected =
            [("root", 0), ("short", 5), ("toor", 0), ("dos", 7), ("caf\u{fffd}", 8), ("root", 1), ("last", 9)];
        assert_eq!(names, expected);
        assert_eq!(
            parsed.faults,
            [
                "line 5: \"minus\" is no user id",
                "line 6: \"+@netgroup\" refers to NIS, which is not asked",
                "line 8: ends in a carriage return, which was taken off",
                "line 9: is not UTF-8, bad bytes were replaced",
                "line 11: \"4294967296\" is no user id",
                "line 10: \"root\" is on line 1 already, which counts",
            ]
        );
        assert_eq!(parsed.entries[1].shell, "");
        assert_eq!(parsed.entries[1].password, Some(PasswordLogin::No));
        assert_eq!(parsed.entries[2].shell, "/bin/sh:with:colons");
        assert_eq!(parsed.entries[2].password, Some(PasswordLogin::Empty));
        assert_eq!(parsed.entries[3].shell, "/bin/sh");
    }

    #[test]
    fn groups_have_members() {
        let parsed = groups(b"root:x:0:\nadm:x:4:syslog, pi,,root\nhalf:x\n-x:::\nvideo:*:44");
        assert_eq!(parsed.entries.len(), 3);
        assert_eq!(parsed.entries[1].members, ["syslog", "pi", "root"]);
        assert_eq!(parsed.faults, ["line 3: no group id", "line 4: \"-x\" refers to NIS, which is not asked"]);
    }

    #[test]
    fn a_password_field_says_whether_a_password_can_match() {
        let cases = [
            ("$y$j9T$salt$hash", PasswordLogin::Yes),
            ("abJnggxhB/yWI", PasswordLogin::Yes),
            ("_J9..rasmBYk8r9AiWNc", PasswordLogin::Yes),
            ("!$6$salt$hash", PasswordLogin::Locked),
            ("!!$6$salt$hash", PasswordLogin::Locked),
            ("", PasswordLogin::Empty),
            ("*", PasswordLogin::No),
            ("!", PasswordLogin::No),
            ("!*", PasswordLogin::No),
            ("!!", PasswordLogin::No),
            ("x", PasswordLogin::No),
            ("*NP*", PasswordLogin::No),
        ];
        for (field, expected) in cases {
            let parsed = shadows(format!("pi:{field}:19000:0:99999:7:::").as_bytes());
            assert_eq!(parsed.entries, [Shadow { name: "pi".to_owned(), password: expected }], "{field}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_each_line_is_an_entry_or_a_fault() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..3_000 {
            let mut bytes = PASSWD.to_vec();
            for _ in 0..random.usize(1..12) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let lines = bytes
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::trim_ascii_start)
                .filter(|line| !matches!(line.first(), None | Some(b'#')));
            let parsed = users(&bytes);
            assert!(parsed.entries.len() + parsed.faults.len() >= lines.count());
            groups(&bytes);
            shadows(&bytes);
        }
    }
}
