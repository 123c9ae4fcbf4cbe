//! Makes what is recorded fit into a message: a long snapshot becomes several events, a long text is cut in the middle.

use serde_json::{Map, Value};

/// Bytes of a message that are not payload: the message, one event around its items, and some air.
const AROUND_ITEMS_BYTES: usize = 768;

/// Bytes of a message that are not in its events, and some air.
pub const AROUND_EVENT_BYTES: usize = 256;

/// Bytes the renderer may add to an item whose time is doubtful, and the comma.
const AROUND_ITEM_BYTES: usize = 160;

/// Shares items out to as many events as are needed for each to fit into a message of `max_message_bytes`.
///
/// No items is one empty event: an empty snapshot is news too.
pub fn into_events(items: Vec<String>, max_message_bytes: usize) -> Vec<Vec<String>> {
    let room = max_message_bytes.saturating_sub(AROUND_ITEMS_BYTES);
    let mut events = vec![Vec::new()];
    let mut used = 0;
    for item in items {
        let item = cut(item, room.saturating_sub(AROUND_ITEM_BYTES));
        let size = item.len() + AROUND_ITEM_BYTES;
        if used + size > room && used > 0 {
            events.push(Vec::new());
            used = 0;
        }
        used += size;
        if let Some(event) = events.last_mut() {
            event.push(item);
        }
    }
    events
}

/// Cuts the longest texts of an item until it fits, and says so in `ExtraDetails.Truncated`: the bytes the item had.
fn cut(item: String, max_bytes: usize) -> String {
    if item.len() <= max_bytes {
        return item;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&item) else { return item };
    let extra = fields.entry("ExtraDetails").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(extra) = extra {
        extra.entry("Truncated").or_insert_with(|| Value::String(item.len().to_string()));
    }
    let mut fields = Value::Object(fields);
    let mut text = fields.to_string();
    // Each round makes the longest text shorter, until it fits or there is nothing left to shorten.
    while text.len() > max_bytes {
        let excess = text.len() - max_bytes;
        match longest_text(&mut fields) {
            Some(longest) if longest.len() > MARK.len() => *longest = cut_middle(longest, unescaped(longest, excess)),
            _ => break,
        }
        text = fields.to_string();
    }
    text
}

/// About how many bytes of a text make so many bytes of JSON, at least one: a control character becomes six.
fn unescaped(text: &str, json_bytes: usize) -> usize {
    let escaped = Value::from(text).to_string().len().max(text.len());
    (json_bytes.saturating_mul(text.len()) / escaped).max(1)
}

const MARK: &str = "[...]";

/// Takes at least `excess` bytes out of the middle, or everything but the mark.
fn cut_middle(text: &str, excess: usize) -> String {
    let keep = text.len().saturating_sub(excess + MARK.len());
    let head = floor_char_boundary(text, keep.div_ceil(2));
    let tail = text.len() - keep / 2;
    let tail = (tail..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{}{MARK}{}", &text[..head], &text[tail..])
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn longest_text(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(fields) => fields.values_mut().filter_map(longest_text).max_by_key(|text| text.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_snapshot_becomes_several_events_in_order() {
        let items: Vec<String> =
            (0..100).map(|n| format!(r#"{{"LocalPort":"{n}","Pad":"{}"}}"#, "x".repeat(200))).collect();
        let events = into_events(items.clone(), 8192);
        assert!(events.len() > 3);
        assert!(events.iter().all(|event| event.join(",").len() + AROUND_ITEMS_BYTES <= 8192));
        assert_eq!(events.concat(), items);
    }

    #[test]
    fn an_empty_snapshot_is_one_empty_event() {
        assert_eq!(into_events(Vec::new(), 8192), [Vec::<String>::new()]);
    }

    #[test]
    fn a_long_text_is_cut_in_the_middle_and_marked_even_when_escapes_make_it_longer() {
        for filler in ["x", "\u{1}", "ä", "\\", "\u{10348}"] {
            let long = format!("head {} tail", filler.repeat(30_000));
            let item = serde_json::json!({"CommandLine": long, "UserId": "0"}).to_string();
            let events = into_events(vec![item.clone()], 8192);
            let cut: Value = serde_json::from_str(&events[0][0]).unwrap();
            assert!(events[0][0].len() <= 8192 - AROUND_ITEMS_BYTES, "{filler:?}: {}", events[0][0].len());
            let text = cut["CommandLine"].as_str().unwrap();
            assert!(text.starts_with("head ") && text.ends_with(" tail") && text.contains(MARK), "{filler:?}: {text}");
            assert_eq!(cut["ExtraDetails"]["Truncated"], item.len().to_string());
            assert_eq!(cut["UserId"], "0");
        }
    }
}
