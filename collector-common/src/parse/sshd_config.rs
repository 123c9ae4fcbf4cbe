//! `sshd_config(5)`: where sshd looks for the keys of an account.
//!
//! ```text
//! keyword value "value with blanks"      keyword in any case; a `=` may stand between; `#` begins a comment
//! Match ...                              what follows holds for some only
//! ```
//!
//! The first value of a keyword counts. A file that is included stands in place of its `Include`.

/// A line that matters here, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `AuthorizedKeysFile`: patterns with `%h`, `%u`, `%U` and `%%`, or `none`.
    KeyFiles(Vec<String>),
    /// `Include`: paths with `*`, `?` and the like.
    Include(Vec<String>),
    /// `Match`: what follows holds for some accounts or addresses, or for all again.
    Match {
        /// `Match all`.
        is_all: bool,
    },
    /// A way for keys that stand in no file: `AuthorizedKeysCommand` or `TrustedUserCAKeys`.
    Elsewhere(&'static str),
}

/// Reads a file.
pub fn lines(bytes: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let text = text.trim_matches(|char: char| char.is_ascii_whitespace() || char == '\u{c}');
    let end = text.find(|char: char| char.is_ascii_whitespace() || char == '=').unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let values = words(rest.strip_prefix('=').unwrap_or(rest));
    let is_set = values.first().is_some_and(|value| !value.eq_ignore_ascii_case("none"));
    match keyword.to_ascii_lowercase().as_str() {
        "authorizedkeysfile" if !values.is_empty() => Some(Line::KeyFiles(values)),
        "include" if !values.is_empty() => Some(Line::Include(values)),
        "match" => {
            let is_all = matches!(values.as_slice(), [only] if only.eq_ignore_ascii_case("all"));
            Some(Line::Match { is_all })
        }
        "authorizedkeyscommand" if is_set => Some(Line::Elsewhere("AuthorizedKeysCommand")),
        "trustedusercakeys" if is_set => Some(Line::Elsewhere("TrustedUserCAKeys")),
        _ => None,
    }
}

/// Words, in double quotes where they hold blanks.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(|char: char| char.is_ascii_whitespace()).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    words
}

/// A pattern of `AuthorizedKeysFile` for an account: what does not begin with `/` lies in the home directory. `None`
/// when the pattern is `none` or has a `%` nobody knows.
pub fn key_file(pattern: &str, name: &str, uid: &str, home: &str) -> Option<String> {
    if pattern.eq_ignore_ascii_case("none") {
        return None;
    }
    let mut path = String::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '%' { chars.next()? } else { ' ' }) {
            ('%', 'h') => path.push_str(home),
            ('%', 'u') => path.push_str(name),
            ('%', 'U') => path.push_str(uid),
            ('%', '%') => path.push('%'),
            ('%', _) => return None,
            (char, _) => path.push(char),
        }
    }
    Some(if path.starts_with('/') { path } else { format!("{}/{path}", home.trim_end_matches('/')) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_found_in_order() {
        let text = "# AuthorizedKeysFile no\n\
            Include /etc/ssh/sshd_config.d/*.conf\r\n\
            PermitRootLogin no\n\
            \tauthorizedkeysfile=.ssh/authorized_keys \"/etc/my keys/%u\" # comment\n\
            AuthorizedKeysCommand none\n\
            AuthorizedKeysCommand /usr/bin/userdbctl ssh-authorized-keys %u\n\
            TrustedUserCAKeys /etc/ssh/ca.pub\n\
            Match User git\n\
            AuthorizedKeysFile /srv/git/%U\n\
            Match all\n";
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = [
            Line::Include(texts(&["/etc/ssh/sshd_config.d/*.conf"])),
            Line::KeyFiles(texts(&[".ssh/authorized_keys", "/etc/my keys/%u"])),
            Line::Elsewhere("AuthorizedKeysCommand"),
            Line::Elsewhere("TrustedUserCAKeys"),
            Line::Match { is_all: false },
            Line::KeyFiles(texts(&["/srv/git/%U"])),
            Line::Match { is_all: true },
        ];
        assert_eq!(lines(text.as_bytes()), expected);
    }

    #[test]
    fn a_pattern_becomes_a_path() {
        let path = |pattern| key_file(pattern, "pi", "1000", "/home/pi/");
        assert_eq!(path(".ssh/authorized_keys").as_deref(), Some("/home/pi/.ssh/authorized_keys"));
        assert_eq!(path("/etc/keys/%u-%U%%").as_deref(), Some("/etc/keys/pi-1000%"));
        assert_eq!(path("%h/keys").as_deref(), Some("/home/pi//keys"));
        assert_eq!((path("none"), path("/a/%z"), path("/a/%")), (None, None, None));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..3_000 {
            let mut bytes = b"Include \"/a b\" *\nAuthorizedKeysFile = %h/x \"\nMatch all #\n".to_vec();
            for _ in 0..random.usize(1..10) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            for line in lines(&bytes) {
                if let Line::KeyFiles(patterns) = line {
                    assert!(!patterns.is_empty());
                    patterns.iter().for_each(|pattern| drop(key_file(pattern, "pi", "1", "/")));
                }
            }
        }
    }
}
