//! Events as text: the message for the hub, and the rows an investigator reads.
//!
//! Items arrive as compact JSON and are spliced, never parsed again, so that what was stored is what is sent.

use jiff::Timestamp;
use jiff::tz::Offset;
use uuid::Uuid;

use super::kind::Kind;

/// Version of the published message schema.
pub const MESSAGE_SCHEMA_VERSION: &str = "1.0";

/// When an event happened, as the two texts of the schema: RFC 3339 with milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// With the local offset, `2026-11-24T06:12:01.123+01:00`.
    pub local: String,
    /// In UTC, `2026-11-24T05:12:01.123Z`.
    pub utc: String,
}

impl Stamps {
    /// Renders a wall time (microseconds since the Unix epoch) for a place `offset_seconds` east of Greenwich.
    ///
    /// A time outside the years -9999 to 9999 or an impossible offset is clamped rather than refused: it came from
    /// somebody's record, and the event is worth more than its date.
    pub fn new(wall_us: i64, offset_seconds: i32) -> Stamps {
        let at =
            Timestamp::from_microsecond(wall_us).unwrap_or(if wall_us < 0 { Timestamp::MIN } else { Timestamp::MAX });
        let offset = Offset::from_seconds(offset_seconds).unwrap_or(Offset::UTC);
        let local = offset.to_datetime(at);
        let sign = if offset.seconds() < 0 { '-' } else { '+' };
        let minutes = offset.seconds().abs() / 60;
        Stamps {
            local: format!("{}{sign}{:02}:{:02}", clock_face(local), minutes / 60, minutes % 60),
            utc: format!("{}Z", clock_face(Offset::UTC.to_datetime(at))),
        }
    }
}

fn clock_face(at: jiff::civil::DateTime) -> String {
    let (date, time) = (at.date(), at.time());
    let (Ok(year), Ok(milliseconds)) = (u32::try_from(date.year()), u32::try_from(time.millisecond())) else {
        return format!("{:05}-{:02}-{:02}T{:.3}", date.year(), date.month(), date.day(), time);
    };
    let mut text = String::with_capacity(23);
    // By hand, because a replayed log has hundreds of thousands of them.
    let mut put = |number: u32, digits: u32, behind: &str| {
        for place in (0..digits).rev() {
            text.push(char::from_digit(number / 10_u32.pow(place) % 10, 10).unwrap_or('0'));
        }
        text.push_str(behind);
    };
    let two = i8::unsigned_abs;
    put(year, 4, "-");
    put(two(date.month()).into(), 2, "-");
    put(two(date.day()).into(), 2, "T");
    put(two(time.hour()).into(), 2, ":");
    put(two(time.minute()).into(), 2, ":");
    put(two(time.second()).into(), 2, ".");
    put(milliseconds, 3, "");
    text
}

/// One event ready to be written: everything but the message around it.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// One id for life, so that a second delivery is recognised.
    pub id: Uuid,
    /// What it is.
    pub kind: Kind,
    /// When it happened.
    pub stamps: &'a Stamps,
    /// Compact JSON objects.
    pub items: &'a [String],
}

impl Event<'_> {
    /// The event object of the published schema: nine keys, nothing else.
    pub fn to_envelope(&self) -> String {
        format!(
            r#"{{"Id":"{}","TimestampLocal":"{}","TimestampUTC":"{}","Category":"{}","Name":"{}","EventType":"{}","IsEmpty":{},"PayloadSchemaVersion":"1.0","Payload":[{}]}}"#,
            self.id,
            self.stamps.local,
            self.stamps.utc,
            self.kind.category().name(),
            self.kind.name(),
            self.kind.event_type().name(),
            self.items.is_empty(),
            self.items.join(",")
        )
    }

    /// The `EventDetails` objects of the rows this event becomes: one per item, or one for an empty snapshot.
    pub fn to_details(&self) -> Vec<String> {
        let id = self.id.to_string();
        if self.items.is_empty() {
            return vec![details("{}", &self.stamps.local, &self.stamps.utc, &id)];
        }
        self.items.iter().map(|item| details(item, &self.stamps.local, &self.stamps.utc, &id)).collect()
    }
}

/// One payload item with the event's two timestamps and its id beside it, flat.
///
/// `item` must be a compact JSON object. The texts are written between quotes as they are, so a caller with texts it
/// did not make itself escapes them first.
pub fn details(item: &str, local: &str, utc: &str, id: &str) -> String {
    let body = item.strip_suffix('}').unwrap_or(item);
    let comma = if body.ends_with('{') { "" } else { "," };
    format!(r#"{body}{comma}"TimestampLocal":"{local}","TimestampUTC":"{utc}","EventId":"{id}"}}"#)
}

/// The message of the published schema around events that [`Event::to_envelope`] wrote.
pub fn message(agent_version: &str, agent_id: Uuid, events: &[String]) -> String {
    format!("{}{}{MESSAGE_END}", message_start(agent_version, agent_id), events.join(","))
}

/// What stands before the first event of a message.
pub fn message_start(agent_version: &str, agent_id: Uuid) -> String {
    format!(
        r#"{{"AgentVersion":"{agent_version}","AgentId":"{agent_id}","MessageSchemaVersion":"{MESSAGE_SCHEMA_VERSION}","Events":["#
    )
}

/// What stands behind the last event of a message.
pub const MESSAGE_END: &str = "]}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_carry_the_offset_and_milliseconds() {
        let stamps = Stamps::new(1_795_497_121_123_999, 3600);
        assert_eq!(stamps.local, "2026-11-24T06:12:01.123+01:00");
        assert_eq!(stamps.utc, "2026-11-24T05:12:01.123Z");
        assert_eq!(Stamps::new(0, -12_600).local, "1969-12-31T20:30:00.000-03:30");
    }

    #[test]
    fn an_impossible_time_is_clamped() {
        assert!(Stamps::new(i64::MAX, 0).utc.starts_with("9999-12-"));
        assert!(Stamps::new(i64::MIN, i32::MAX).utc.starts_with("-9999-01-"));
    }

    #[test]
    fn an_event_has_nine_keys_and_a_row_is_flat() {
        let stamps = Stamps::new(0, 0);
        let items = [r#"{"LocalPort":"80","Protocol":"TCP"}"#.to_owned()];
        let id = Uuid::from_u128(0x072f_3eca_3db0_45ba_8174_fa38_3bc9_3caf);
        let event = Event { id, kind: Kind::ListeningPorts, stamps: &stamps, items: &items };
        let envelope: serde_json::Value = serde_json::from_str(&event.to_envelope()).unwrap();
        let keys: Vec<_> = envelope.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "Id",
                "TimestampLocal",
                "TimestampUTC",
                "Category",
                "Name",
                "EventType",
                "IsEmpty",
                "PayloadSchemaVersion",
                "Payload"
            ]
        );
        assert_eq!(
            event.to_details(),
            [
                r#"{"LocalPort":"80","Protocol":"TCP","TimestampLocal":"1970-01-01T00:00:00.000+00:00","TimestampUTC":"1970-01-01T00:00:00.000Z","EventId":"072f3eca-3db0-45ba-8174-fa383bc93caf"}"#
            ]
        );
    }

    #[test]
    fn an_empty_snapshot_is_one_row_without_a_leading_comma() {
        let stamps = Stamps::new(0, 0);
        let event = Event { id: Uuid::nil(), kind: Kind::LocalUsers, stamps: &stamps, items: &[] };
        assert!(event.to_envelope().contains(r#""IsEmpty":true,"PayloadSchemaVersion":"1.0","Payload":[]"#));
        assert!(event.to_details()[0].starts_with(r#"{"TimestampLocal":"#));
    }
}
