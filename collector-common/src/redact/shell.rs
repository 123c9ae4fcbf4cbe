//! As much of a shell's grammar as tells where a word of its command begins and ends.

use std::ops::Range;

/// `-c` and clusters that end in it, which many shells and `su` take their command by.
pub fn is_shell_option(text: &[u8]) -> bool {
    matches!(text, [b'-', flags @ .., b'c'] if flags.len() < 4 && flags.iter().all(u8::is_ascii_alphabetic))
        || text == b"--command"
}

/// Whether short options that were written together end in this one, as `-sSu` in `-u`.
pub fn ends_cluster(text: &[u8], flag: &[u8]) -> bool {
    let [b'-', letter] = flag else { return false };
    matches!(text, [b'-', flags @ .., last] if last == letter
        && (1..=5).contains(&flags.len()) && flags.iter().all(u8::is_ascii_alphabetic))
}

/// The name of an option whose value is the next argument.
pub fn option_name(text: &[u8]) -> Option<&[u8]> {
    let name = text.strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    let is_name = name.len() > 2
        && !name.starts_with(b"no-")
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    is_name.then_some(name)
}

/// The words of a shell's command with their quotes; `None` where a new command begins.
pub fn shell_words(text: &[u8]) -> impl Iterator<Item = Option<Range<usize>>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        // Whatever ends a word is passed over here or begins a command: a byte that did neither would be looked at for ever.
        while text.get(at).is_some_and(|byte| byte.is_ascii_whitespace() && *byte != b'\n') {
            at += 1;
        }
        let is_separator = |byte: u8| matches!(byte, b';' | b'|' | b'&' | b'\n' | b'(' | b')');
        if is_separator(*text.get(at)?) {
            at += 1;
            return Some(None);
        }
        let begin = at;
        let mut quote = None;
        while let Some(byte) = text.get(at).copied() {
            match (quote, byte) {
                (None, b'\'' | b'"') => quote = Some(byte),
                (Some(open), _) if open == byte => quote = None,
                (None | Some(b'"'), b'\\') => at += 1,
                (None, byte) if byte.is_ascii_whitespace() || is_separator(byte) => break,
                _ => {}
            }
            at += 1;
        }
        at = at.min(text.len());
        Some(Some(begin..at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_between_words_is_passed_over() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte, byte, b'b'];
            let words: Vec<_> = shell_words(&text).flatten().collect();
            assert!((1..=2).contains(&words.len()), "{byte:#04x}: {words:?}");
        }
    }
}
