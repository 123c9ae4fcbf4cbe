//! The key somebody probably meant.

/// Longer texts are no misspelt key, and comparing them would cost their product.
const LONGEST: usize = 64;

/// The known key that is nearest to what was written, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST {
        return None;
    }
    let (distance, key) =
        known.into_iter().map(|key| (distance(written, key), key)).min_by_key(|(distance, _)| *distance)?;
    (distance <= key.len().div_ceil(3)).then_some(key)
}

/// How many letters have to be inserted, removed or replaced (Levenshtein), case aside.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["deviceId", "moduleId", "connection", "properties"];
        for (written, meant) in [
            ("deviceid", Some("deviceId")),
            ("devicId", Some("deviceId")),
            ("conection", Some("connection")),
            ("propertys", Some("properties")),
            ("colour", None),
            ("", None),
            ("ü", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
