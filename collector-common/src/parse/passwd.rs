//! The account files: `passwd(5)`, `group(5)` and `shadow(5)`.
//!
//! ```text
//! passwd   name:password:uid:gid:comment:home:shell         password `x` means: see shadow
//! group    name:password:gid:member,member
//! shadow   name:password:last change:min:max:warn:inactive:expire:
//! ```
//!
//! A line counts when the C library counts it (glibc `nss/nss_files`): blanks before it, empty lines and lines that
//! begin with `#` are passed over, a line ends at a NUL, and fields that are missing at the end of a passwd line are
//! empty. Every other line that gives no entry is a fault with its number, and never costs the lines around it. No
//! password hash leaves this module, only what a function of the caller's makes of it.

use std::collections::BTreeMap;

/// The entries of a file, and what was odd about it: `line N: ...` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// In the file's order, duplicates included.
    pub entries: Vec<T>,
    /// The first [`FAULTS_KEPT`].
    pub faults: Vec<String>,
    /// How many more there are.
    pub more_faults: usize,
}

/// So many faults of a file are told one by one, or a file of nothing but nonsense would fill the memory.
pub const FAULTS_KEPT: usize = 64;

/// Makes something of a password field that does not give it away.
pub type Digest<'a> = &'a dyn Fn(&str) -> String;

/// What a password field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// Whether it lets somebody in.
    pub login: PasswordLogin,
    /// What the caller's function made of it.
    pub digest: String,
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
    pub password: Option<Password>,
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
    pub password: Password,
    /// The day since 1970 on which the password was changed; 0 means that it has to be at the next login.
    pub changed: Option<i64>,
    /// How many days after that it has to be changed.
    pub max_days: Option<i64>,
    /// How many days later nobody gets in by it any more.
    pub inactive_days: Option<i64>,
    /// The day since 1970 from which nobody gets in.
    pub expires: Option<i64>,
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

impl Shadow {
    /// What has run out on a day since 1970: the account, the password so long ago that it is refused, or the password
    /// so that it has to be changed.
    pub fn expired(&self, today: i64) -> Option<&'static str> {
        let over = |days: Option<i64>| match (self.changed, self.max_days, days) {
            (Some(changed), Some(max), Some(more)) => today > changed.saturating_add(max).saturating_add(more),
            _ => false,
        };
        if self.expires.is_some_and(|day| today >= day) {
            Some("account")
        } else if over(self.inactive_days) {
            Some("inactive")
        } else if self.changed == Some(0) || over(Some(0)) {
            Some("password")
        } else {
            None
        }
    }
}

/// Reads passwd.
pub fn users(bytes: &[u8], digest: Digest) -> Parsed<User> {
    let mut parsed = entries(bytes, |line| user(line, digest));
    note_duplicates(&mut parsed, |user| &user.name, |name| format!("{name:?}"), "which counts");
    note_duplicates(&mut parsed, |user| &user.uid, |uid| format!("user id {uid}"), "they are one to the kernel");
    parsed.without_lines()
}

/// Reads group.
pub fn groups(bytes: &[u8]) -> Parsed<Group> {
    let mut parsed = entries(bytes, group);
    note_duplicates(&mut parsed, |group| &group.name, |name| format!("{name:?}"), "which counts");
    parsed.without_lines()
}

/// Reads shadow.
pub fn shadows(bytes: &[u8], digest: Digest) -> Parsed<Shadow> {
    let mut parsed = entries(bytes, |line| shadow(line, digest));
    note_duplicates(&mut parsed, |shadow| &shadow.name, |name| format!("{name:?}"), "which counts");
    parsed.without_lines()
}

fn user(line: &str, digest: Digest) -> Result<User, String> {
    let mut fields = line.splitn(7, ':');
    let name = name(fields.next())?;
    let password = fields.next().ok_or("no password field")?;
    let password = (password != "x").then(|| Password::of(password, digest));
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

fn shadow(line: &str, digest: Digest) -> Result<Shadow, String> {
    let mut fields = line.split(':');
    let name = name(fields.next())?;
    let password = Password::of(fields.next().ok_or("no password field")?, digest);
    // Empty and negative mean: none (shadow(5)).
    let mut days = || fields.next().and_then(|field| field.trim().parse::<i64>().ok()).filter(|days| *days >= 0);
    let (changed, _min, max_days, _warn, inactive_days, expires) = (days(), days(), days(), days(), days(), days());
    Ok(Shadow { name, password, changed, max_days, inactive_days, expires })
}

impl Password {
    pub(super) fn of(field: &str, digest: Digest) -> Password {
        Password { login: PasswordLogin::of(field), digest: digest(field) }
    }
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
    let mut parsed = Parsed { entries: Vec::new(), faults: Vec::new(), more_faults: 0 };
    let mut number = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        number += 1;
        let line = line.trim_ascii_start();
        let (line, behind_nul) = line.split_at(line.iter().position(|byte| *byte == 0).unwrap_or(line.len()));
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if !behind_nul.is_empty() {
            parsed.fault(number, "has a NUL, behind which the C library reads nothing");
        }
        if bare.is_empty() || bare.starts_with(b"#") {
            continue;
        }
        if bare.len() < line.len() {
            parsed.fault(number, "ends in a carriage return, which was taken off");
        }
        let text = String::from_utf8_lossy(bare);
        match parse(&text) {
            Ok(entry) => {
                if matches!(text, std::borrow::Cow::Owned(_)) {
                    parsed.fault(number, "is not UTF-8, bad bytes were replaced");
                }
                parsed.entries.push((number, entry));
            }
            Err(fault) => parsed.fault(number, &fault),
        }
    }
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        parsed.fault(number, "the last one has no newline, so what is appended becomes part of it");
    }
    parsed
}

/// Lookups find the first line only, so a second one is either a mistake or a trick.
fn note_duplicates<T, K: Ord>(
    parsed: &mut Parsed<(usize, T)>,
    key: impl Fn(&T) -> &K,
    words: impl Fn(&K) -> String,
    consequence: &str,
) {
    let mut first: BTreeMap<&K, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (line, entry) in &parsed.entries {
        let known = *first.entry(key(entry)).or_insert(*line);
        if known != *line {
            found.push((*line, format!("{} is on line {known} already, {consequence}", words(key(entry)))));
        }
    }
    for (line, fault) in found {
        parsed.fault(line, &fault);
    }
}

impl<T> Parsed<(usize, T)> {
    fn fault(&mut self, line: usize, what: &str) {
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(format!("line {line}: {what}"));
        } else {
            self.more_faults += 1;
        }
    }

    fn without_lines(self) -> Parsed<T> {
        let entries = self.entries.into_iter().map(|(_, entry)| entry).collect();
        Parsed { entries, faults: self.faults, more_faults: self.more_faults }
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

    fn plain(_: &str) -> String {
        String::new()
    }

    #[test]
    fn good_lines_survive_bad_neighbours() {
        let parsed = users(PASSWD, &plain);
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
                "line 12: the last one has no newline, so what is appended becomes part of it",
                "line 10: \"root\" is on line 1 already, which counts",
                "line 7: user id 0 is on line 1 already, they are one to the kernel",
            ]
        );
        assert_eq!(parsed.entries[1].shell, "");
        assert_eq!(parsed.entries[1].password.as_ref().map(|it| it.login), Some(PasswordLogin::No));
        assert_eq!(parsed.entries[2].shell, "/bin/sh:with:colons");
        assert_eq!(parsed.entries[2].password.as_ref().map(|it| it.login), Some(PasswordLogin::Empty));
        assert_eq!(parsed.entries[3].shell, "/bin/sh");
    }

    #[test]
    fn groups_have_members() {
        let parsed = groups(b"root:x:0:\nadm:x:4:syslog, pi,,root\nhalf:x\n-x:::\nvideo:*:44\n");
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
            let parsed = shadows(format!("pi:{field}:19000:0:99999:7:::").as_bytes(), &|field| field.len().to_string());
            let password = Password { login: expected, digest: field.len().to_string() };
            let (changed, max_days) = (Some(19_000), Some(99_999));
            let name = "pi".to_owned();
            let pi = Shadow { name, password, changed, max_days, inactive_days: None, expires: None };
            assert_eq!(parsed.entries, [pi], "{field}");
        }
    }

    #[test]
    fn what_has_run_out_on_a_day() {
        let cases = [
            ("pi:x:100:0:99999:7:::", None),
            ("pi:x:100:0:30:7:5::", Some("password")),
            ("pi:x:100:0:130:7:::", None),
            ("pi:x:90:0:30:7:5::", Some("inactive")),
            ("pi:x:0:0:99999:7:::", Some("password")),
            ("pi:x:100:0:99999:7::132:", Some("account")),
            ("pi:x:100:0:99999:7::133:", None),
            ("pi:x:::::-1::", None),
            ("pi:x:9223372036854775807:0:9223372036854775807:7:9223372036854775807:9223372036854775807:", None),
        ];
        for (line, expected) in cases {
            assert_eq!(shadows(line.as_bytes(), &plain).entries[0].expired(132), expected, "{line}");
        }
    }

    #[test]
    fn a_nul_ends_a_line_and_nonsense_is_counted() {
        let parsed = users(b"pi:x:7:7::/:/bin/sh\0:more\n\0\n", &plain);
        assert_eq!((parsed.entries[0].shell.as_str(), parsed.faults.len()), ("/bin/sh", 2));
        let parsed = users("x\n".repeat(10_000).as_bytes(), &plain);
        assert_eq!((parsed.faults.len(), parsed.more_faults), (FAULTS_KEPT, 10_000 - FAULTS_KEPT));
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
            let parsed = users(&bytes, &plain);
            assert!(parsed.entries.len() + parsed.faults.len() + parsed.more_faults >= lines.count());
            groups(&bytes);
            shadows(&bytes, &plain);
        }
    }
}
