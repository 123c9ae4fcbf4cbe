//! `authorized_keys`, which says who may log in as its owner (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
//!
//! ```text
//! [options ]type base64 comment          options: name,name="value with blanks and \" in it",...
//! ```
//!
//! A key leaves this module as its type and its bytes, of which a fingerprint is made; options and comments stay here,
//! but for whether the key is an authority that vouches for others.

use base64ct::{Base64, Base64Unpadded, Encoding};

/// A line that lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Such as `ssh-ed25519`.
    pub kind: String,
    /// What the fingerprint is made of.
    pub blob: Vec<u8>,
    /// Whether it lets in whoever has a certificate by it.
    pub is_authority: bool,
}

/// A file's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The first so many as were asked for.
    pub keys: Vec<Key>,
    /// How many there are, those included.
    pub count: usize,
    /// Lines that are neither empty nor a comment nor a key; the server passes over them too.
    pub nonsense: usize,
}

/// Reads a file. At most so many keys are kept, and all are counted.
pub fn keys(bytes: &[u8], keep_at_most: usize) -> Keys {
    let mut found = Keys::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        // The server ends a line at a NUL, as C does.
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match key(line) {
            Some(key) => {
                found.count += 1;
                if found.keys.len() < keep_at_most {
                    found.keys.push(key);
                }
            }
            None => found.nonsense += 1,
        }
    }
    found
}

/// A line is tried without options first, as the server does it.
fn key(line: &[u8]) -> Option<Key> {
    bare_key(line, false).or_else(|| {
        let (options, rest) = line.split_at(end_of_options(line));
        bare_key(rest.trim_ascii_start(), names_authority(options))
    })
}

fn bare_key(text: &[u8], is_authority: bool) -> Option<Key> {
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (kind, base64) = (words.next()?, words.next()?);
    let kind = std::str::from_utf8(kind).ok()?;
    let base64 = std::str::from_utf8(base64).ok()?;
    let blob = Base64::decode_vec(base64).or_else(|_| Base64Unpadded::decode_vec(base64)).ok()?;
    // The type stands in the key again: a length of four bytes, and the text (RFC 4253, 6.6).
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let inner = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    (inner == kind.as_bytes() && !kind.is_empty() && rest.len() > inner.len()).then(|| Key {
        kind: kind.to_owned(),
        is_authority,
        blob,
    })
}

/// Where the blank is that ends the options: the first outside quotes.
fn end_of_options(line: &[u8]) -> usize {
    let (mut is_quoted, mut at) = (false, 0);
    while let Some(byte) = line.get(at) {
        match byte {
            b'\\' if line.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => is_quoted = !is_quoted,
            b' ' | b'\t' if !is_quoted => break,
            _ => {}
        }
        at += 1;
    }
    at.min(line.len())
}

fn names_authority(options: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut escaped = false;
    let names = options.split(|byte| {
        if *byte == b'"' && !escaped {
            is_quoted = !is_quoted;
        }
        escaped = *byte == b'\\';
        *byte == b',' && !is_quoted
    });
    names.map(<[u8]>::trim_ascii).any(|name| name.eq_ignore_ascii_case(b"cert-authority"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIPmh0BxFm9bJDlz7oNH1tHvUUdtuAz2jHbIDh9ZyxLMU";

    #[test]
    fn keys_are_found_behind_options_and_nonsense_is_counted() {
        let text = format!(
            "# comment\n\
            ssh-ed25519 {ED25519} pi@board\r\n\
            \n\
            \tno-pty,command=\"echo \\\"ssh-ed25519 x, \\\" \" ssh-ed25519   {ED25519}\n\
            from=\"*.example, cert-authority\",restrict ssh-ed25519 {ED25519} a b c\n\
            restrict,CERT-AUTHORITY ssh-ed25519 {ED25519}\n\
            ssh-rsa {ED25519}\n\
            ssh-ed25519\n\
            ssh-ed25519 not base64\n\
            command=\"unfinished ssh-ed25519 {ED25519}\n\
            ssh-ed25519 {ED25519}\0hidden"
        );
        let found = keys(text.as_bytes(), 100);
        assert_eq!((found.count, found.nonsense), (5, 4), "{found:?}");
        let authorities: Vec<_> = found.keys.iter().map(|key| key.is_authority).collect();
        assert_eq!(authorities, [false, false, false, true, false]);
        assert_eq!(found.keys[0].kind, "ssh-ed25519");
        let few = keys(text.as_bytes(), 2);
        assert_eq!((few.keys.len(), few.count), (2, 5));
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_line_counts_once() {
        let line = format!("restrict,command=\"a \\\" b\" ssh-ed25519 {ED25519} pi\n");
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let mut bytes = line.repeat(3).into_bytes();
            for _ in 0..random.usize(1..12) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let found = keys(&bytes, 2);
            assert!(found.count + found.nonsense <= bytes.split(|byte| *byte == b'\n').count());
            assert!(found.keys.len() <= 2 && found.keys.len() <= found.count);
        }
    }
}
