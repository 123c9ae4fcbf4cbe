//! The status for people: facts in, words out, no I/O.
//!
//! The first line says how things are, the list below it what needs attention, most urgent first, and the table
//! everything else.

use std::collections::BTreeMap;

use super::facts::{CollectorFacts, PrivilegeFacts, Status};
use super::units::{count, duration, size};

/// A rate is only worth telling after this time: seconds.
const RATE_AFTER: u64 = 600;

/// A hub may take so long to acknowledge a message before it is called slow: seconds.
const SLOW_AFTER: u64 = 5;

/// So many certificates are named; a bundle of authorities holds many that nobody misses.
const MAX_NAMED: usize = 3;

/// The whole page.
pub fn in_words(status: &Status) -> String {
    let concerns = concerns(status);
    let mut page = Page::default();
    page.say(&verdict(status, concerns.is_empty()));
    for concern in concerns {
        page.say(&format!("  - {concern}"));
    }
    page.say("");
    agent_lines(status, &mut page);
    link_lines(status, &mut page);
    spool_lines(status, &mut page);
    event_lines(status, &mut page);
    for (name, facts) in &status.collectors {
        page.line(name, &collector(facts));
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// What a hub, a log or a file system said may hold anything, and a terminal obeys control characters.
    fn say(&mut self, line: &str) {
        self.text.extend(line.trim_end().chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }));
        self.text.push('\n');
    }

    fn line(&mut self, label: &str, value: &str) {
        self.say(&format!("{label:<14} {value}"));
    }
}

/// How things are, in one sentence.
fn verdict(status: &Status, is_all_well: bool) -> String {
    if status.hub.is_none() {
        return format!("no hub is configured; events are kept here, {}", room(status));
    }
    if !status.connected {
        let (since, trouble) = (duration(status.link.since_seconds), trouble(status));
        // What the system said and what to do about it stands in the table.
        let short = trouble.split("; ").next().and_then(|text| text.split(" (").next()).unwrap_or_default();
        return format!("NOT connected for {since}: {short}; events are kept, {}", room(status));
    }
    let well = if is_all_well { "all well: " } else { "" };
    let unsent: u64 = status.link.unsent.values().sum();
    let under_way = status.link.under_way_messages;
    match held_back(status) {
        Some(why) if unsent > 0 => format!("connected, {} not sent yet: {why}", count(unsent, "event")),
        _ if unsent > 0 => {
            let when = next_send(status).map_or_else(String::new, due);
            format!("{well}connected, {} to be sent{when}", count(unsent, "event"))
        }
        _ if under_way > 0 => format!("{well}connected, {} under way", count(under_way, "message")),
        _ => format!("{well}connected, nothing waits"),
    }
}

/// What needs attention, most urgent first.
fn concerns(status: &Status) -> Vec<String> {
    let spool = &status.spool;
    let mut list = Vec::new();
    for trouble in &spool.troubles {
        list.push(format!("for {} the agent {}", duration(trouble.seconds), trouble.what));
    }
    if spool.full {
        let quota = size(spool.quota_bytes);
        list.push(format!("the spool has reached its quota of {quota} (maxLocalCacheSizeInBytes); {}", goes(status)));
    }
    if spool.disk_short {
        let lacks = match spool.disk_lacks.as_deref() {
            Some("inodes") => "has hardly any inode left: many small files fill it",
            _ => "is nearly full",
        };
        list.push(format!("the file system of the spool {lacks}; the spool does not grow, and {}", goes(status)));
    }
    if !spool.damage.is_empty() {
        let more = if spool.more_damage > 0 { format!("; and {} more", spool.more_damage) } else { String::new() };
        list.push(format!("damage was found: {}{more}", spool.damage.join("; ")));
    }
    if status.events.lost > 0 {
        let by_cause = status.lost.iter().map(|(name, events)| lost(name, *events)).collect::<Vec<_>>();
        list.push(format!("{} lost since the start: {}", count(status.events.lost, "event"), by_cause.join(", ")));
    }
    if status.flood {
        list.push(
            "more programs are started than processFloodRate allows; those of the same command line, program and user \
             are one event"
                .to_owned(),
        );
    }
    if status.clock.is_wrong {
        list.push(format!(
            "the clock is wrong, it says {}; events keep the time since boot and get their date once it is set; while \
             connected they wait for that at most 10 minutes and are then sent marked as doubtful",
            status.clock.wall
        ));
    }
    list.extend(status.expiring.iter().take(MAX_NAMED).cloned());
    let more = status.expiring.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        list.push(format!("{} like these, which --json names", count(more as u64, "more certificate")));
    }
    let troubles = status.privileges.troubles.iter();
    list.extend(troubles.map(|trouble| format!("the agent may do more than it needs: {trouble}")));
    for (name, facts) in status.collectors.iter().filter(|(_, facts)| facts.state == "degraded") {
        list.push(format!("{name} is not collected: {}", facts.reason.as_deref().unwrap_or("nobody says why")));
    }
    list
}

fn agent_lines(status: &Status, page: &mut Page) {
    let before = match status.run_before.as_deref() {
        Some("first") => "; the first run here",
        Some("killed") => "; the run before was killed or crashed",
        Some("powerLost") => "; the run before ended when the machine lost its power or crashed",
        Some(_) => "; the run before was stopped",
        None => "",
    };
    page.line("edgewarden", &format!("{}, up {}{before}", status.version, duration(status.uptime_seconds)));
    page.line("device", status.device.as_deref().unwrap_or("none configured"));
    page.line(
        "clock",
        &format!("{}{}", status.clock.wall, if status.clock.is_wrong { ", which is wrong" } else { "" }),
    );
    if !status.privileges.user.is_empty() {
        let PrivilegeFacts { user, capabilities, .. } = &status.privileges;
        let capabilities = if capabilities.is_empty() { "no capability".to_owned() } else { capabilities.join(" ") };
        page.line("runs as", &format!("{user} with {capabilities}"));
    }
}

fn link_lines(status: &Status, page: &mut Page) {
    let link = &status.link;
    let Some(hub) = &status.hub else { return page.line("hub", "none configured") };
    let since = duration(link.since_seconds);
    if status.connected {
        page.line("hub", &format!("{hub}, connected for {since}"));
    } else {
        page.line("hub", &format!("{hub}, NOT connected for {since}: {}", trouble(status)));
        let failures = if link.failures > 0 {
            format!(", {} so far", count(link.failures.into(), "failure"))
        } else {
            String::new()
        };
        let next = link.next_try_seconds.map(|next| format!("in {}{failures}", duration(next)));
        let now = status.device.is_some().then(|| format!("under way{failures}"));
        if let Some(next) = next.or(now) {
            page.line("next try", &next);
        }
    }
    if let (true, Some(trouble), Some(ago)) = (status.connected, &link.last_trouble, link.last_trouble_seconds) {
        page.line("last trouble", &format!("{} ago: {trouble}", duration(ago)));
    }
    let answer = match link.last_acknowledged_seconds {
        Some(ago) => format!("last {} ago", duration(ago)),
        None => "nothing yet".to_owned(),
    };
    page.line("acknowledged", &format!("{answer}; {} since the start", count(status.events.acknowledged, "event")));
    if link.under_way_messages > 0 {
        let oldest = link.oldest_under_way_seconds.map(|ago| format!(", the oldest for {}", duration(ago)));
        let full = if link.window_full { "; no more are sent before the hub acknowledges one" } else { "" };
        let messages = count(link.under_way_messages, "message");
        page.line("under way", &format!("{messages}{}{full}", oldest.unwrap_or_default()));
    }
    if let Some(waiting) = &status.waiting {
        page.line("waiting", waiting);
    }
    let limit = link
        .day_limit_bytes
        .map(|limit| format!(" of {} a day, counted anew in {}", size(limit), duration(link.next_day_seconds)));
    let (today, all) = (size(link.sent_today_bytes), size(link.sent_bytes));
    page.line("sent", &format!("{today} today{}; {all} since the start", limit.unwrap_or_default()));
    if let Some(left) = link.renewal_seconds {
        page.line("token", &format!("renewed in {} by connecting anew", duration(left)));
    }
}

fn spool_lines(status: &Status, page: &mut Page) {
    let spool = &status.spool;
    for (lane, recorded) in &spool.recorded {
        let number = |of: &BTreeMap<String, u64>| of.get(lane).copied().unwrap_or(0);
        let (acknowledged, unsent) = (number(&spool.acknowledged), number(&status.link.unsent));
        let waiting = recorded.saturating_sub(acknowledged);
        let mut words = format!("recorded {recorded}, acknowledged {acknowledged}, waiting {waiting}");
        if let Some(seconds) = status.link.next_send_seconds.get(lane)
            && unsent > 0
            && held_back(status).is_none()
        {
            words += &format!(", sent{}", due(*seconds));
        }
        let unsynced = spool.synced.get(lane).map_or(0, |synced| recorded.saturating_sub(*synced));
        if unsynced > 0 {
            words += &format!("; {unsynced} not synced to the disk, and so not sent, yet");
        }
        page.line(&format!("lane {lane}"), &words);
    }
    let oldest = spool.oldest_age_seconds.map(|age| format!("; the oldest event waits for {}", duration(age)));
    let (bytes, quota) = (size(spool.bytes), size(spool.quota_bytes));
    page.line("spool", &format!("{bytes} of {quota}, {}{}", room(status), oldest.unwrap_or_default()));
}

fn event_lines(status: &Status, page: &mut Page) {
    let events = &status.events;
    page.line(
        "events",
        &format!("{} collected, {} acknowledged, {} lost", events.collected, events.acknowledged, events.lost),
    );
    if !status.excluded.is_empty() {
        let by_rule = status.excluded.iter().map(|(rule, execs)| format!("{execs} by {rule}"));
        page.line("excluded", &format!("execs that are no events: {}", by_rule.collect::<Vec<_>>().join(", ")));
    }
    if events.split > 0 {
        page.line(
            "split",
            &format!("{} went as several events to fit into messages", count(events.split, "long observation")),
        );
    }
    if events.cut > 0 {
        page.line(
            "cut",
            &format!("{} with a text cut down to fit into a message (Truncated)", count(events.cut, "event")),
        );
    }
}

fn collector(facts: &CollectorFacts) -> String {
    let backend = facts.backend.as_deref().map(|backend| format!(" with {backend}"));
    let gap = facts.gap.as_deref().map(|gap| format!("; gap: {gap}"));
    let reason = facts.reason.as_deref().map(|reason| format!(": {reason}"));
    [Some(facts.state.clone()), backend, gap, reason].into_iter().flatten().collect()
}

/// Why nothing goes although there is a connection; waiting for a lane's interval is no such reason.
fn held_back(status: &Status) -> Option<String> {
    let oldest = status.link.oldest_under_way_seconds.unwrap_or(0);
    let slow = (status.link.window_full && oldest >= SLOW_AFTER).then(|| {
        let messages = count(status.link.under_way_messages, "message");
        format!("the hub is slow, {messages} are under way and the oldest is not acknowledged for {}", duration(oldest))
    });
    status.waiting.clone().or(slow)
}

/// When the next lane that has something unsent is due: seconds.
fn next_send(status: &Status) -> Option<u64> {
    let has_unsent = |lane: &String| status.link.unsent.get(lane).is_some_and(|events| *events > 0);
    status.link.next_send_seconds.iter().filter(|(lane, _)| has_unsent(lane)).map(|(_, seconds)| *seconds).min()
}

/// How much more can be kept.
fn room(status: &Status) -> String {
    let spool = &status.spool;
    if spool.full || spool.disk_short {
        return "older ones make room for newer ones".to_owned();
    }
    let days = (status.uptime_seconds >= RATE_AFTER && spool.written_bytes > 0)
        .then(|| u128::from(spool.room_bytes) * u128::from(status.uptime_seconds) / u128::from(spool.written_bytes));
    match days.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => format!("room for about {} at the rate since the start", duration(seconds)),
        None => format!("room for {}", size(spool.room_bytes)),
    }
}

/// What makes room first.
fn goes(status: &Status) -> String {
    match &status.spool.next_to_go {
        Some((lane, kind)) => format!("{kind} events of the {lane} lane go first, oldest first"),
        None => "older events make room".to_owned(),
    }
}

/// `Kind.cause`, as it is counted, in words.
fn lost(name: &str, events: u64) -> String {
    let (kind, cause) = name.split_once('.').unwrap_or((name, ""));
    let kind = if kind == "Unknown" { "of unknown kind" } else { kind };
    let why = match cause {
        "overrun" => "came faster than they could be taken",
        "spoolFull" => "made room for newer ones",
        "diskError" => "refused by the disk",
        "flood" => "had a command line there was no room for in a flood",
        "damaged" => "cannot be read from the disk",
        other => other,
    };
    format!("{events} {kind} ({why})")
}

/// Why there is no connection.
fn trouble(status: &Status) -> &str {
    match (&status.trouble, &status.device) {
        (Some(trouble), _) => trouble,
        (None, None) => "there is no device id yet; the log says why",
        (None, Some(_)) => "a connection is being made",
    }
}

fn due(seconds: u64) -> String {
    if seconds == 0 { " now".to_owned() } else { format!(" within {}", duration(seconds)) }
}

#[cfg(test)]
pub mod tests;
