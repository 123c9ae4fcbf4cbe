//! The argument area of a process as one line of text.
//!
//! `/proc/PID/cmdline` is the memory the kernel put the arguments into at exec: each followed by a NUL byte
//! (`proc_pid_cmdline(5)`). A process may write over it later (`setproctitle(3)`), then it holds whatever it likes.
//!
//! ```text
//! s h \0 - c \0 e c h o   h i \0        becomes        sh -c 'echo hi'
//! ```

/// How much is read of the beginning and of the end of an argument area of up to 2 MiB or more: more than an event
/// can show, and as much as `bpf/exec.bpf.c` reads. Long arguments must not cost more than short ones.
pub const HEAD_BYTES: usize = 6144;
/// See [`HEAD_BYTES`].
pub const TAIL_BYTES: usize = 2048;

/// How many empty arguments at the end are believed. More are the padding a process leaves that rewrote its area.
const MAX_TRAILING_EMPTY: usize = 8;

/// Room for the mark that stands where something was cut out.
const MARK_BYTES: usize = 48;

/// What was read of an argument area.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgumentArea {
    /// Its beginning, or all of it.
    pub head: Vec<u8>,
    /// How many bytes behind the head were not read.
    pub unread_bytes: u64,
    /// Its end, when something was not read.
    pub tail: Vec<u8>,
}

/// Text made of foreign bytes, short enough to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Some bytes were no UTF-8 and are U+FFFD now.
    pub undecodable: bool,
    /// Something was cut out of the middle.
    pub cut: bool,
}

impl ArgumentArea {
    /// The whole area as it was at exec.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> ArgumentArea {
        ArgumentArea { head: bytes.into(), ..ArgumentArea::default() }
    }

    /// Length of the area in bytes.
    pub fn total_bytes(&self) -> u64 {
        let read = self.head.len().saturating_add(self.tail.len());
        self.unread_bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX))
    }

    /// The arguments in the head; the last may be cut.
    pub fn arguments(&self) -> Vec<&[u8]> {
        split(&self.head)
    }

    /// The arguments joined by a space, each quoted where a POSIX shell would take it apart differently. Arguments
    /// that are not UTF-8 cannot be written as they are; the text says so.
    ///
    /// Not longer than `max_escaped_bytes` inside a JSON string; what is longer loses its middle.
    pub fn to_command_line(&self, max_escaped_bytes: usize) -> Text {
        let (head, head_bad) = join(&split(&self.head), true);
        let (tail, tail_bad) = join(&split(&self.tail), false);
        let undecodable = head_bad || tail_bad;
        if self.unread_bytes == 0 && self.tail.is_empty() && escaped_bytes(&head) <= max_escaped_bytes {
            return Text { text: head, undecodable, cut: false };
        }
        let text = if self.unread_bytes == 0 && self.tail.is_empty() {
            cut_middle(&head, &head, max_escaped_bytes, |front, back| head.len() - front - back)
        } else {
            let unread = usize::try_from(self.unread_bytes).unwrap_or(usize::MAX);
            cut_middle(&head, &tail, max_escaped_bytes, |front, back| {
                unread.saturating_add(head.len() - front).saturating_add(tail.len() - back)
            })
        };
        Text { text, undecodable, cut: true }
    }
}

/// A path or name of foreign bytes, not longer than `max_escaped_bytes` inside a JSON string.
pub fn to_text(bytes: &[u8], max_escaped_bytes: usize) -> Text {
    let text = String::from_utf8_lossy(bytes);
    let undecodable = std::str::from_utf8(bytes).is_err();
    if escaped_bytes(&text) <= max_escaped_bytes {
        return Text { text: text.into_owned(), undecodable, cut: false };
    }
    let text = cut_middle(&text, &text, max_escaped_bytes, |front, back| text.len() - front - back);
    Text { text, undecodable, cut: true }
}

/// Length of a text inside a JSON string, in bytes, as `serde_json` escapes it.
pub fn escaped_bytes(text: &str) -> usize {
    text.chars().map(escaped_char_bytes).sum()
}

fn escaped_char_bytes(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => char.len_utf8(),
    }
}

/// Two thirds of the room go to the beginning, because it says what runs; the rest to the end.
fn cut_middle(head: &str, tail: &str, max_escaped_bytes: usize, missing: impl Fn(usize, usize) -> usize) -> String {
    let room = max_escaped_bytes.saturating_sub(MARK_BYTES);
    let front = fitting(head.chars(), room / 3 * 2);
    let back = fitting(tail.chars().rev(), room / 3);
    let mark = format!(" [...{} bytes cut...] ", missing(front, back));
    format!("{}{mark}{}", &head[..front], &tail[tail.len() - back..])
}

/// How many bytes of text can be taken until `room` escaped bytes are full.
fn fitting(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let (mut taken, mut used) = (0, 0);
    for char in chars {
        used += escaped_char_bytes(char);
        if used > room {
            break;
        }
        taken += char.len_utf8();
    }
    taken
}

/// Takes an area apart at its NUL bytes. The last one ends the last argument and begins none.
fn split(area: &[u8]) -> Vec<&[u8]> {
    if area.is_empty() {
        return Vec::new();
    }
    let mut arguments: Vec<&[u8]> = area.strip_suffix(b"\0").unwrap_or(area).split(|byte| *byte == 0).collect();
    let empty = arguments.iter().rev().take_while(|argument| argument.is_empty()).count();
    if empty > MAX_TRAILING_EMPTY {
        arguments.truncate(arguments.len() - empty);
    }
    arguments
}

fn join(arguments: &[&[u8]], from_the_start: bool) -> (String, bool) {
    let mut line = String::new();
    let mut undecodable = false;
    for (index, bytes) in arguments.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        undecodable |= std::str::from_utf8(bytes).is_err();
        quote(&String::from_utf8_lossy(bytes), from_the_start && index == 0, &mut line);
    }
    (line, undecodable)
}

/// Words a shell does not take for a command where a command is expected (POSIX shell language, 2.4).
const RESERVED: [&str; 14] =
    ["if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in", "function"];

/// Appends an argument as a POSIX shell would need it. Inside single quotes nothing is special but the quote itself.
fn quote(argument: &str, is_command: bool, line: &mut String) {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-+=:,./%@".contains(char) || is_plain_unicode(char);
    let misread = is_command && (argument.contains('=') || RESERVED.contains(&argument));
    if !argument.is_empty() && !misread && argument.chars().all(plain) {
        line.push_str(argument);
        return;
    }
    line.push('\'');
    line.push_str(&argument.replace('\'', r"'\''"));
    line.push('\'');
}

/// A shell splits at blanks of the locale, and a reader cannot see where an unusual blank begins.
fn is_plain_unicode(char: char) -> bool {
    !char.is_ascii() && char.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn area(arguments: &[&str]) -> ArgumentArea {
        ArgumentArea::whole(
            arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn only_what_is_ambiguous_is_quoted() {
        let cases: [(&[&str], &str); 10] = [
            (
                &["/usr/bin/curl", "-o", "/tmp/x", "http://a.example:80/?"],
                "/usr/bin/curl -o /tmp/x 'http://a.example:80/?'",
            ),
            (&["sh", "-c", "echo hi"], "sh -c 'echo hi'"),
            (&["a", "", "b"], "a '' b"),
            (&["a", ""], "a ''"),
            (&["A=b", "A=b"], "'A=b' A=b"),
            (&["if", "if"], "'if' if"),
            (&["a", "it's"], r"a 'it'\''s'"),
            (&["caf\u{e9}", "a\u{a0}b"], "caf\u{e9} 'a\u{a0}b'"),
            (&[""], "''"),
            (&[], ""),
        ];
        for (arguments, expected) in cases {
            assert_eq!(area(arguments).to_command_line(4096).text, expected);
        }
    }

    #[test]
    fn a_shell_takes_the_line_apart_the_same_way() {
        let mut random = fastrand::Rng::with_seed(11);
        let alphabet: Vec<char> = "ab'\"\\ \n\t$`!*?[]{}()<>|&;#~=%^-\u{e9}\u{1}\u{7f}".chars().collect();
        for _ in 0..60 {
            let arguments: Vec<String> = (0..random.usize(1..6))
                .map(|_| (0..random.usize(..6)).map(|_| alphabet[random.usize(..alphabet.len())]).collect())
                .collect();
            let mut all = vec!["printf", r"%s\0"];
            all.extend(arguments.iter().map(String::as_str));
            let line = area(&all).to_command_line(4096).text;
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            let expected: Vec<u8> = arguments.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect();
            assert_eq!(output.stdout, expected, "{line}");
        }
    }

    #[test]
    fn a_rewritten_area_has_no_hundred_empty_arguments() {
        let mut bytes = b"nginx: worker process".to_vec();
        bytes.resize(200, 0);
        assert_eq!(ArgumentArea::whole(bytes).to_command_line(4096).text, "'nginx: worker process'");
    }

    #[test]
    fn undecodable_bytes_are_replaced_and_said() {
        let text = ArgumentArea::whole(*b"a\0\xff\xfe\0").to_command_line(4096);
        assert_eq!(text, Text { text: "a '\u{fffd}\u{fffd}'".to_owned(), undecodable: true, cut: false });
    }

    #[test]
    fn the_cap_holds_on_the_escaped_length_whatever_the_bytes() {
        let mut random = fastrand::Rng::with_seed(3);
        for max in [64, 500, 4096] {
            for fill in [b"a", b"\x01", b"\"", b"'", b"\xff", b"\0"] {
                let long = ArgumentArea { head: fill.repeat(9000), unread_bytes: 1 << 40, tail: fill.repeat(5000) };
                let short = ArgumentArea::whole(fill.repeat(random.usize(..9000)));
                for case in [long, short] {
                    let text = case.to_command_line(max).text;
                    let json = serde_json::to_string(&text).unwrap();
                    assert_eq!(json.len() - 2, escaped_bytes(&text));
                    assert!(json.len() - 2 <= max, "{} of {max}", json.len());
                }
            }
        }
    }

    #[test]
    fn a_cut_line_keeps_both_ends_and_says_how_much_is_missing() {
        let whole = area(&["/bin/true", &"x".repeat(20_000), "--last"]).to_command_line(1000);
        assert!(whole.cut && whole.text.starts_with("/bin/true xxx") && whole.text.ends_with("xxx --last"));
        let shown = whole.text.split(" [...").next().unwrap().len() + whole.text.split("...] ").nth(1).unwrap().len();
        assert!(whole.text.contains(&format!(" [...{} bytes cut...] ", 20_017 - shown)), "{}", whole.text);

        let parts = ArgumentArea { head: b"/bin/true\0aaaa".to_vec(), unread_bytes: 77, tail: b"bb\0c\0".to_vec() };
        assert_eq!(parts.to_command_line(1000).text, "/bin/true aaaa [...77 bytes cut...] bb c");
        assert_eq!(parts.total_bytes(), 14 + 77 + 5);
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            let mut bytes = |most: usize| (0..random.usize(..most)).map(|_| random.u8(..)).collect::<Vec<u8>>();
            let area =
                ArgumentArea { head: bytes(300), unread_bytes: u64::from(bytes(2).len() as u32), tail: bytes(90) };
            assert!(escaped_bytes(&area.to_command_line(100).text) <= 100);
            assert!(escaped_bytes(&to_text(&area.head, 60).text) <= 60);
        }
    }
}
