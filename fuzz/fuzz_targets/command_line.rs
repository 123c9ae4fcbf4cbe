//! Arguments become one line that fits, and that a POSIX shell takes apart into the same arguments again.
#![no_main]

use collector_common::parse::cmdline::{ArgumentArea, escaped_bytes, to_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u64, Vec<u8>, Vec<u8>)| {
    let (limit, unread_bytes, head, tail) = input;
    let limit = usize::from(limit % 512) + 64;
    let part = ArgumentArea { head: head.clone(), unread_bytes, tail };
    for text in [part.to_command_line(limit), to_text(&head, limit)] {
        assert!(escaped_bytes(&text.text) <= limit, "{} > {limit}", escaped_bytes(&text.text));
        assert_eq!(serde_json::to_string(&text.text).expect("a string is JSON").len(), escaped_bytes(&text.text) + 2);
    }
    let whole = ArgumentArea::whole(head);
    let text = whole.to_command_line(usize::MAX);
    assert!(!text.cut);
    if !text.undecodable {
        let expected: Vec<String> =
            whole.arguments().iter().map(|bytes| String::from_utf8_lossy(bytes).into()).collect();
        assert_eq!(words(&text.text), expected, "{}", text.text);
    }
});

/// The words of a line by the POSIX rules for single quotes and backslashes, the only ones the line may need.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quoted, mut chars) = (None::<String>, false, line.chars());
    while let Some(char) = chars.next() {
        match char {
            '\'' => (quoted, word) = (!quoted, Some(word.unwrap_or_default())),
            ' ' if !quoted => words.extend(word.take()),
            '\\' if !quoted => word.get_or_insert_default().extend(chars.next()),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    assert!(!quoted, "an open quote: {line}");
    words.extend(word);
    words
}
