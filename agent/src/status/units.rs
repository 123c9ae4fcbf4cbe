//! Times and sizes as people say them.

/// Seconds: `42 s`, `3 min`, `3 h 12 min`, `2 days`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 if seconds % 3600 < 60 => format!("{} h", seconds / 3600),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes: `812 bytes`, `11.2 MiB`, `64 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return count(bytes, "byte");
    };
    let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
    if tenths == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
}

/// `1 event`, `2 events`.
pub fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_said_as_people_say_them() {
        let times = [0, 59, 60, 3599, 3600, 11_520, 172_799, 172_800, u64::MAX].map(duration);
        assert_eq!(
            times,
            ["0 s", "59 s", "1 min", "59 min", "1 h", "3 h 12 min", "47 h 59 min", "2 days", "213503982334601 days"]
        );
        let sizes = [0, 1, 1023, 1024, 1_536, 11_744_051, 64 << 20, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 bytes", "1 byte", "1023 bytes", "1 KiB", "1.5 KiB", "11.1 MiB", "64 MiB", "17179869183.9 GiB"]
        );
    }
}
