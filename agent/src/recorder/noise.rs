//! Fewer ProcessCreate events where somebody asked for fewer, and a count of what is not one of its own. No I/O.
//!
//! ```text
//! exec ──excluded by a rule? counted──▶ flood or aggregation? ──no──▶ an event of its own
//!                                             │ yes
//!                                             ▼
//!                          one group for each command line, program and user
//!                                             │ when the interval is over, the flood is over, it is full, at stop
//!                                             ▼
//!                          one event for each group, with HitCount and both ends of its time
//! ```

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use collector_common::clock::{Clock, Reading};
use collector_common::collector::Draft;
use collector_common::event::payload::{Diagnostic, Payload, ProcessCreate, Severity};
use collector_common::event::wire::Stamps;

use super::utc_offset_seconds;
use crate::config::settings::{ProcessRule, Settings};

/// How many groups there are at most, and the text in them: memory is short on a board.
const MAX_GROUPS: usize = 4096;
const MAX_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// A flood is over when this long no second went over the rate.
const CALM: Duration = Duration::from_secs(10);

/// What a flood that does not end has come to is told so often.
const FLOOD_INTERVAL: Duration = Duration::from_secs(60);

/// What the rules excluded is told so often.
const TELL_EXCLUDED: Duration = Duration::from_secs(3600);

/// What execs have in common that are one event: the published keys.
type Key = (String, String, String);

#[derive(Debug)]
struct Group {
    order: usize,
    first: Reading,
    last: Reading,
    hits: u64,
    event: ProcessCreate,
    security_relevant: bool,
}

/// The rules that are named in [`Facts`]; what more excluded, as a hub may change them for ever, is one number.
const MAX_NAMED_RULES: usize = 128;

/// What `status` says of execs that are not events of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many execs each rule excluded since the agent started.
    pub excluded: BTreeMap<String, u64>,
    /// More are executed than `processFloodRate`.
    pub is_flood: bool,
}

/// Execs that are not events of their own.
#[derive(Debug, Default)]
pub struct Noise {
    groups: HashMap<Key, Group>,
    group_bytes: usize,
    /// When the groups become events.
    due: Option<Instant>,
    flood: Option<Flood>,
    /// The running second, and how many execs there were in it.
    second: Option<(Instant, u64)>,
    /// Execs a flood had no room for, since that was last asked.
    overflow: u64,
    /// How many execs each rule excluded, since that was last told.
    excluded: BTreeMap<String, u64>,
    tell_excluded: Option<Instant>,
    facts: Facts,
    /// The facts are others than those that were last asked for.
    has_news: bool,
}

#[derive(Debug)]
struct Flood {
    over_at: Instant,
    execs: u64,
    not_kept: u64,
}

impl Noise {
    /// What is to be recorded now that this draft came: itself, nothing, or more.
    pub fn take(&mut self, draft: Draft, settings: &Settings, clock: &Clock, now: Instant) -> Vec<Draft> {
        let Some(Payload::ProcessCreate(event)) = &draft.payload else { return vec![draft] };
        if let Some(rule) = excluding(event, settings) {
            self.note_excluded(&rule);
            *self.excluded.entry(rule).or_default() += 1;
            self.tell_excluded.get_or_insert(now + TELL_EXCLUDED);
            return Vec::new();
        }
        let mut out = self.watch_rate(settings, clock, now);
        let is_told_apart = draft.id.is_some() || draft.cursor.is_some();
        let is_grouped = (settings.aggregate_process_create || self.flood.is_some()) && !is_told_apart;
        match draft {
            Draft { payload: Some(Payload::ProcessCreate(event)), at, security_relevant, .. } if is_grouped => {
                let interval = if self.flood.is_some() { FLOOD_INTERVAL } else { settings.aggregation_interval };
                self.due.get_or_insert(now + interval);
                out.extend(self.group(event, at, security_relevant, clock));
            }
            draft => out.push(draft),
        }
        out
    }

    /// When [`Noise::drain`] has something to say.
    pub fn due(&self) -> Option<Instant> {
        let over_at = self.flood.as_ref().map(|flood| flood.over_at);
        [self.due, self.tell_excluded, over_at].into_iter().flatten().min()
    }

    /// What is to be recorded because its time has come.
    pub fn drain(&mut self, clock: &Clock, now: Instant) -> Vec<Draft> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut out = Vec::new();
        let is_over = is_due(self.flood.as_ref().map(|flood| flood.over_at));
        if is_over || is_due(self.due) {
            out.extend(self.groups_as_events(clock));
        }
        if is_over && let Some(flood) = self.flood.take() {
            out.push(Draft::alarm(clock.now(), end_of(&flood)));
        }
        if is_due(self.tell_excluded) {
            out.extend(self.tell_excluded(clock));
        }
        out
    }

    /// Everything there is to say, before the agent stops.
    pub fn drain_all(&mut self, clock: &Clock) -> Vec<Draft> {
        let mut out = self.groups_as_events(clock);
        out.extend(self.flood.take().map(|flood| Draft::alarm(clock.now(), end_of(&flood))));
        out.extend(self.tell_excluded(clock));
        out
    }

    /// How many execs were lost because a flood had too many different command lines, since the last call.
    pub fn take_overflow(&mut self) -> u64 {
        std::mem::take(&mut self.overflow)
    }

    /// What is to be said in `status`, if it is something else than at the last call.
    pub fn news(&mut self) -> Option<Facts> {
        let is_flood = self.flood.is_some();
        let is_news = std::mem::take(&mut self.has_news) || is_flood != self.facts.is_flood;
        self.facts.is_flood = is_flood;
        is_news.then(|| self.facts.clone())
    }

    fn note_excluded(&mut self, rule: &str) {
        self.has_news = true;
        let named = &mut self.facts.excluded;
        let rule = if named.len() < MAX_NAMED_RULES || named.contains_key(rule) { rule } else { "other rules" };
        *named.entry(rule.to_owned()).or_default() += 1;
    }

    fn watch_rate(&mut self, settings: &Settings, clock: &Clock, now: Instant) -> Vec<Draft> {
        let mut out = Vec::new();
        let (since, execs) =
            self.second.filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(1)).unwrap_or((now, 0));
        self.second = Some((since, execs + 1));
        let is_over_rate = settings.process_flood_rate.is_some_and(|rate| execs + 1 > rate);
        if is_over_rate && self.flood.is_none() {
            out.push(Draft::alarm(clock.now(), begin_of(settings.process_flood_rate.unwrap_or(0))));
            // What was aggregated before goes first: a long interval is no excuse in a flood.
            out.extend(self.groups_as_events(clock));
            self.flood = Some(Flood { over_at: now, execs: 0, not_kept: 0 });
        }
        if let Some(flood) = &mut self.flood {
            flood.execs += 1;
            if is_over_rate {
                flood.over_at = now + CALM;
            }
        }
        out
    }

    /// Adds an exec to its group. Where there is no room for another group, aggregation makes events of all; a flood
    /// keeps what came first and counts the rest, because it would only move on to the disk.
    fn group(&mut self, event: ProcessCreate, at: Reading, security_relevant: bool, clock: &Clock) -> Vec<Draft> {
        let key = (event.command_line.clone(), event.executable.clone(), event.user_id.clone());
        if let Some(group) = self.groups.get_mut(&key) {
            group.hits += 1;
            group.last = at;
            group.security_relevant |= security_relevant;
            group.event.extra_details.retain(|key, value| event.extra_details.get(key) == Some(value));
            return Vec::new();
        }
        let details = event.extra_details.values().map(String::len).sum::<usize>();
        let bytes = 2 * (key.0.len() + key.1.len()) + details;
        let mut out = Vec::new();
        if self.groups.len() >= MAX_GROUPS || self.group_bytes + bytes > MAX_GROUP_BYTES {
            if let Some(flood) = &mut self.flood {
                flood.not_kept += 1;
                self.overflow += 1;
                return out;
            }
            let due = self.due;
            out = self.groups_as_events(clock);
            self.due = due;
        }
        self.group_bytes += bytes;
        let order = self.groups.len();
        self.groups.insert(key, Group { order, first: at, last: at, hits: 1, event, security_relevant });
        out
    }

    fn groups_as_events(&mut self, clock: &Clock) -> Vec<Draft> {
        (self.due, self.group_bytes) = (None, 0);
        let mut groups: Vec<Group> = std::mem::take(&mut self.groups).into_values().collect();
        groups.sort_unstable_by_key(|group| group.order);
        let now = clock.now();
        groups.into_iter().map(|group| event_of(group, &now)).collect()
    }

    fn tell_excluded(&mut self, clock: &Clock) -> Option<Draft> {
        self.tell_excluded = None;
        let excluded = std::mem::take(&mut self.excluded);
        if excluded.is_empty() {
            return None;
        }
        let rules: Vec<String> = excluded.iter().map(|(rule, execs)| format!("{rule}: {execs}")).collect();
        let message =
            format!("execs that are no events, because the configuration excludes them: {}", rules.join(", "));
        let remark = Diagnostic::new(Severity::Information, message);
        let remark = remark.with("Excluded", excluded.values().sum::<u64>()).with("Collector", "ProcessCreate");
        Some(Draft::new(clock.now(), Payload::Diagnostic(remark)))
    }
}

/// The rule that keeps an exec from being an event, in the operator's words.
fn excluding(event: &ProcessCreate, settings: &Settings) -> Option<String> {
    let is_met = |rule: &&ProcessRule| rule.is_met(event);
    let included =
        settings.process_include.is_empty() || settings.process_include.iter().any(|rule| rule.is_met(event));
    match settings.process_exclude.iter().find(is_met) {
        Some(rule) => Some(rule.to_string()),
        None => (!included).then(|| "not in processInclude".to_owned()),
    }
}

/// A group as the published schema has it: no process of its own, and of the details what all have in common.
fn event_of(group: Group, now: &Reading) -> Draft {
    let Group { first, last, hits, mut event, security_relevant, .. } = group;
    (event.process_id, event.parent_process_id) = (0, 0);
    let stamps = |at: &Reading| {
        // By the clock as it is now: it may have been set since.
        let age_us = i64::try_from(now.boottime_us.saturating_sub(at.boottime_us)).unwrap_or(0);
        let wall_us = if at.boot == now.boot { now.wall_us.saturating_sub(age_us) } else { at.wall_us };
        Stamps::new(wall_us, utc_offset_seconds(wall_us))
    };
    let (start, end) = (stamps(&first), stamps(&last));
    let facts = [
        ("HitCount", hits.to_string()),
        ("StartTimeLocal", start.local),
        ("StartTimeUtc", start.utc),
        ("EndTimeLocal", end.local),
        ("EndTimeUtc", end.utc),
    ];
    event.extra_details.extend(facts);
    Draft { security_relevant, ..Draft::new(first, Payload::ProcessCreate(event)) }
}

fn begin_of(rate: u64) -> Diagnostic {
    let message = format!(
        "more than {rate} programs were started within a second (processFloodRate): until this is over, execs of the \
         same command line, program and user are one event with a HitCount"
    );
    Diagnostic::new(Severity::Warning, message).with("Flood", "begins").with("Collector", "ProcessCreate")
}

fn end_of(flood: &Flood) -> Diagnostic {
    let Flood { execs, not_kept, .. } = flood;
    let message = format!(
        "the flood of programs is over: {execs} execs, of which {not_kept} had a command line that there was no room to keep"
    );
    let remark = Diagnostic::new(Severity::Warning, message).with("Flood", "ends").with("Execs", execs);
    remark.with("NotKept", not_kept).with("Collector", "ProcessCreate")
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::root::Root;

    fn exec(clock: &Clock, line: &str, pid: i64) -> Draft {
        let event = ProcessCreate {
            executable: "/usr/bin/x".to_owned(),
            command_line: line.to_owned(),
            user_id: "33".to_owned(),
            process_id: pid,
            parent_process_id: 1,
            extra_details: [("ContainerId", "abc".to_owned()), ("ParentExecutable", format!("/p{pid}"))].into(),
        };
        Draft::new(clock.now(), Payload::ProcessCreate(event))
    }

    fn execs(drafts: &[Draft]) -> Vec<&ProcessCreate> {
        let mut out = Vec::new();
        for draft in drafts {
            if let Some(Payload::ProcessCreate(event)) = &draft.payload {
                out.push(event);
            }
        }
        out
    }

    fn facts<'a>(drafts: &'a [Draft], key: &str) -> Vec<&'a str> {
        let of = |draft: &'a Draft| match &draft.payload {
            Some(Payload::Diagnostic(remark)) => remark.extra_details.get(key).map(String::as_str),
            _ => None,
        };
        drafts.iter().filter_map(of).collect()
    }

    #[test]
    fn without_a_setting_each_exec_is_an_event() {
        let (clock, now, settings) = (Clock::new(&Root::host()), Instant::now(), Settings::default());
        let mut noise = Noise::default();
        for pid in 0..10_000 {
            let out = noise.take(exec(&clock, "x", pid), &settings, &clock, now);
            assert_eq!(execs(&out)[0].process_id, pid);
        }
        assert!(noise.due().is_none() && noise.drain_all(&clock).is_empty());
    }

    #[test]
    fn execs_of_the_same_line_program_and_user_are_one_event_with_a_count() {
        let (clock, now) = (Clock::new(&Root::host()), Instant::now());
        let mut settings = Settings::default();
        settings.aggregate_process_create = true;
        let mut noise = Noise::default();
        for (pid, line) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
            assert!(noise.take(exec(&clock, line, pid), &settings, &clock, now).is_empty());
        }
        assert_eq!(noise.due(), Some(now + settings.aggregation_interval));
        assert!(noise.drain(&clock, now).is_empty());
        let out = noise.drain(&clock, now + settings.aggregation_interval);
        let events = execs(&out);
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.command_line.as_str(), event.extra_details["HitCount"].as_str(), event.process_id))
            .collect();
        assert_eq!(seen, [("a", "3", 0), ("b", "1", 0)]);
        let details = &events[0].extra_details;
        assert_eq!(details["ContainerId"], "abc");
        assert!(!details.contains_key("ParentExecutable"), "they differ: {details:?}");
        for key in ["StartTimeLocal", "StartTimeUtc", "EndTimeLocal", "EndTimeUtc"] {
            assert!(details[key].parse::<jiff::Timestamp>().is_ok(), "{details:?}");
        }
        assert!(noise.due().is_none() && noise.drain_all(&clock).is_empty());
    }

    #[test]
    fn more_groups_than_there_is_room_for_lose_nothing_but_in_a_flood() {
        let (clock, now) = (Clock::new(&Root::host()), Instant::now());
        let mut settings = Settings::default();
        settings.aggregate_process_create = true;
        let (mut noise, mut out) = (Noise::default(), Vec::new());
        for pid in 0..10_000 {
            out.extend(noise.take(exec(&clock, &format!("x {pid}"), pid), &settings, &clock, now));
        }
        out.extend(noise.drain_all(&clock));
        assert_eq!((execs(&out).len(), noise.take_overflow()), (10_000, 0));

        let mut settings = Settings::default();
        settings.process_flood_rate = Some(100);
        let (mut noise, mut out) = (Noise::default(), Vec::new());
        for pid in 0..10_000 {
            out.extend(noise.take(exec(&clock, &format!("x {pid}"), pid), &settings, &clock, now));
        }
        assert_eq!((execs(&out).len(), facts(&out, "Flood")), (100, vec!["begins"]));
        assert_eq!(noise.take_overflow(), 10_000 - 100 - 4096);
        assert!(noise.news().is_some_and(|facts| facts.is_flood) && noise.news().is_none());
        assert_eq!(noise.due(), Some(now + CALM));
        let out = noise.drain(&clock, now + CALM);
        assert_eq!(
            (execs(&out).len(), facts(&out, "Flood"), facts(&out, "NotKept")),
            (4096, vec!["ends"], vec!["5804"])
        );
        assert!(noise.news().is_some_and(|facts| !facts.is_flood));
        let out = noise.take(exec(&clock, "x", 1), &settings, &clock, now + 2 * CALM);
        assert_eq!(execs(&out)[0].process_id, 1, "it is over");
    }

    #[test]
    fn rules_exclude_and_say_how_many() {
        let (clock, now) = (Clock::new(&Root::host()), Instant::now());
        let rules = |texts: &[&str]| texts.iter().map(|text| ProcessRule::parse(text).unwrap()).collect::<Vec<_>>();
        let count = |include: &[&str], exclude: &[&str]| {
            let mut settings = Settings::default();
            (settings.process_include, settings.process_exclude) = (rules(include), rules(exclude));
            let mut noise = Noise::default();
            let out = noise.take(exec(&clock, "x", 1), &settings, &clock, now);
            let told = noise.drain(&clock, now + TELL_EXCLUDED);
            let counted: u64 = noise.news().map_or(0, |facts| facts.excluded.values().sum());
            assert!(noise.news().is_none() && (counted == 1) == execs(&out).is_empty());
            (execs(&out).len(), facts(&told, "Excluded").concat())
        };
        assert_eq!(count(&[], &["executable=/usr/bin/x"]), (0, "1".to_owned()));
        assert_eq!(count(&[], &["executable=/usr/bin/*"]), (0, "1".to_owned()));
        assert_eq!(count(&[], &["user=33"]), (0, "1".to_owned()));
        assert_eq!(count(&[], &["container=*"]), (0, "1".to_owned()));
        assert_eq!(count(&[], &["executable=/usr/bin/", "user=3", "container=b*"]), (1, String::new()));
        assert_eq!(count(&["user=34"], &[]), (0, "1".to_owned()));
        assert_eq!(count(&["user=34", "container=abc"], &[]), (1, String::new()));
        assert_eq!(count(&["user=33"], &["user=33"]), (0, "1".to_owned()));
        for wrong in ["", "user", "group=3", "user=", "user=*x", "executable=x"] {
            assert!(ProcessRule::parse(wrong).is_none(), "{wrong}");
        }
    }
}
