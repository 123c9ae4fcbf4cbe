//! The uplink: sends what is in the spool and lets the spool forget what the hub has acknowledged.
//!
//! The spool is the session. For every connection the spool is read again from the first event that was not
//! acknowledged; at most [`WINDOW_MESSAGES`] messages are under way; what is acknowledged is forgotten only as a
//! contiguous prefix. The decisions are made by [`window`], [`pacing`] and [`streak`], which do no I/O; this file is the loop.

pub mod batch;
pub mod budget;
mod facts;
pub mod pacing;
pub mod streak;
pub mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_common::clock::{Clock, is_plausible};
use collector_common::event::kind::Lane;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::settings::Settings;
use crate::mqtt::{Endpoint, Link, Signal};
use crate::remarks;
use crate::spool::Spool;
use crate::status::units::size;
use crate::twin::mailbox::Mailbox;
use batch::{Batcher, Limits};
use budget::{Allowance, Budget};
use pacing::Pacing;
use streak::{Broken, Streak};
use window::Window;

pub use facts::{LinkFacts, LinkStatus, SessionFacts};

/// Messages that may be under way. Their number bounds what is sent twice after a broken connection.
pub const WINDOW_MESSAGES: u16 = 16;

/// How long a stopping agent goes on sending.
const DRAIN: Duration = Duration::from_secs(3);

/// A hub that acknowledges nothing for so long while messages are under way is not there any more, whatever TCP says.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(45);

/// The same in words.
const STUCK: &str = "the hub acknowledges nothing for 45 s; the link is taken for dead";

/// Everything the uplink works with.
pub struct Uplink {
    /// What is to be sent.
    pub spool: Spool,
    /// Renders and packs it.
    pub batcher: Batcher,
    /// Where to; `None` when there is no hub.
    pub endpoint: watch::Receiver<Option<Endpoint>>,
    /// Intervals and sizes.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// What `status` says.
    pub status: LinkStatus,
    /// Send everything now (`SIGUSR1`).
    pub flush: Arc<Notify>,
    /// The machine's clocks.
    pub clock: Clock,
    /// The agent's id, for the will.
    pub agent_id: Uuid,
    /// What was sent today.
    pub budget: Budget,
    /// What the hub desires, and what is reported.
    pub mailbox: Mailbox,
}

/// How a session ended.
enum End {
    /// The agent stops.
    Stopped,
    /// The endpoint was changed.
    Changed,
    /// The connection broke, or was never made, and why.
    Broken(String),
}

impl Uplink {
    /// Sends until `stop` turns true, and then for a few seconds more what is left.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut streak = Streak::default();
        while !*stop.borrow_and_update() {
            let Some(endpoint) = self.endpoint.borrow_and_update().clone() else {
                tokio::select! {
                    _ = stop.changed() => {}
                    changed = self.endpoint.changed() => if changed.is_err() { return },
                }
                continue;
            };
            let (before, opened) = (self.status.get(), Instant::now());
            let will = remarks::will(self.agent_id, &self.clock.now());
            let opening = tokio::select! {
                opening = Link::open(&endpoint, WINDOW_MESSAGES, will, &self.mailbox) => opening,
                _ = stop.changed() => continue,
                changed = self.endpoint.changed() => if changed.is_err() { return } else { continue },
            };
            let mut client_id = endpoint.device_id.clone();
            let end = match opening {
                Ok(link) => {
                    link.client_id.clone_into(&mut client_id);
                    self.session(link, &mut stop).await
                }
                Err(why) => End::Broken(why),
            };
            self.status.change(LinkFacts::went_down);
            let End::Broken(why) = end else {
                streak = Streak::default();
                continue;
            };
            let after = self.status.get();
            streak.add(&Broken {
                was_taken_in: after.connections > before.connections,
                got_through: after.acknowledged_messages > before.acknowledged_messages,
                was_idle: after.failed_messages == before.failed_messages,
                lived: opened.elapsed(),
            });
            let (why, pause) = (streak.explain(why, &client_id), streak.pause(fastrand::f64()));
            warn!("{}: {why}; next try in {:.1} s", endpoint.address(), pause.as_secs_f64());
            self.status.change(|facts| facts.failed(why, streak.failures(), Instant::now() + pause));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
                _ = self.endpoint.changed() => streak = Streak::default(),
            }
            self.status.change(|facts| (facts.next_try, facts.failures) = (None, streak.failures()));
        }
    }

    async fn session(&mut self, mut link: Link, stop: &mut watch::Receiver<bool>) -> End {
        let mut window = Window::new(usize::from(WINDOW_MESSAGES), Instant::now());
        let mut pacing = Pacing::new(Instant::now());
        let mut synced = self.spool.watch_synced();
        let mut drain_until = None;
        let end = loop {
            if *stop.borrow() && drain_until.is_none() {
                drain_until = Some(Instant::now() + DRAIN);
                pacing.flush(self.spool.stats().recorded);
            }
            let is_renewal_due = link.reconnect_at().is_some_and(|at| Instant::now() >= at);
            if is_renewal_due && window.is_empty() {
                break End::Changed;
            }
            if link.is_up
                && !is_renewal_due
                && let Err(why) = self.fill(&mut link, &mut window, &mut pacing)
            {
                break End::Broken(why);
            }
            if let Some(until) = drain_until
                && (!link.is_up
                    || Instant::now() >= until
                    || (window.is_empty() && !pacing.is_due(self.batcher.next_seq())))
            {
                break End::Stopped;
            }
            if window.is_stuck(Instant::now(), ACKNOWLEDGEMENT) {
                break End::Broken(STUCK.to_owned());
            }
            if link.is_up {
                self.show(&window, &pacing, link.renew_at);
            }
            let renew_at = link.reconnect_at().filter(|_| !is_renewal_due);
            let wakes = [
                renew_at,
                drain_until,
                pacing.next_wake(self.unread()),
                window.stuck_at(ACKNOWLEDGEMENT),
                self.next_release(&pacing),
            ];
            let wake = wakes.into_iter().flatten().min();
            tokio::select! {
                signal = link.signal() => {
                    if let Err(why) = self.on_signal(signal, &mut link, &mut window, &mut pacing) {
                        break End::Broken(why);
                    }
                }
                changed = synced.changed() => if changed.is_err() { break End::Stopped },
                () = self.mailbox.for_link(), if link.is_up => {}
                () = self.flush.notified() => pacing.flush(self.spool.stats().recorded),
                () = sleep_until(wake), if link.is_up => {}
                _ = stop.changed(), if drain_until.is_none() => {}
                _ = self.endpoint.changed() => break End::Changed,
                _ = self.settings.changed() => {}
            }
        };
        self.end_session(link, &window).await;
        end
    }

    async fn end_session(&mut self, link: Link, window: &Window) {
        self.mailbox.down();
        let failed = window.len() as u64;
        self.status.change(|facts| facts.failed_messages += failed);
        if let Err(error) = self.budget.store() {
            warn!("cannot write down what was sent today: {error}; a restart would count anew");
        }
        if link.is_up {
            link.close().await;
        }
    }

    fn on_signal(
        &mut self,
        signal: Signal,
        link: &mut Link,
        window: &mut Window,
        pacing: &mut Pacing,
    ) -> Result<(), String> {
        match signal {
            Signal::Up => {
                link.is_up = true;
                info!("connected to {}", link.address());
                self.status.change(LinkFacts::came_up);
                self.batcher.rewind();
                // Whatever waited for a connection has waited long enough.
                pacing.connected(Instant::now(), self.spool.stats().recorded);
                link.subscribe_twin()?;
                if let Some(topics) = link.twin() {
                    self.mailbox.up(topics);
                }
            }
            Signal::Handed(pkid) => window.on_handed(pkid)?,
            Signal::Acknowledged(pkid) => {
                let done = window.on_acknowledged(pkid, Instant::now());
                self.status.change(|facts| {
                    facts.got_through();
                    facts.acknowledged_messages += done.messages;
                    facts.small_messages += done.small_messages;
                    facts.acknowledged_events += done.events;
                });
                for lane in Lane::ALL {
                    if let Some(through) = done.through[lane.index()] {
                        let result = self.spool.acknowledge(lane, through);
                        result.map_err(|error| format!("cannot delete what was acknowledged: {error}"))?;
                    }
                }
            }
            Signal::Down(why) => return Err(why),
            Signal::Unreadable(why) => {
                let why = format!(
                    "a message on the twin's topics cannot be read ({why}); what was in force stays, and the agent \
                     connects without the twin for an hour"
                );
                self.mailbox.rest(Instant::now());
                self.mailbox.trouble(why.clone());
                return Err(why);
            }
        }
        Ok(())
    }

    /// Asks for the twin and reports. A report is no evidence: it waits where the day's budget is for that alone.
    fn tell_twin(&mut self, link: &mut Link) -> Result<(), String> {
        if self.mailbox.take_asked() {
            link.ask_twin()?;
        }
        let settings = self.settings.borrow().clone();
        let reading = self.clock.now();
        let allowance = self.budget.allowance(&reading, settings.max_bytes_per_day, settings.max_message_bytes);
        if allowance.high
            && let Some(report) = self.mailbox.take_report()
        {
            if let Err(error) = self.budget.spend(&reading, link.topic().len(), report.len()) {
                warn!("cannot write down what was sent today: {error}; a restart would count anew");
            }
            link.report_twin(report)?;
        }
        Ok(())
    }

    /// Hands over what is to be said about the twin, and as many messages as are due and have room.
    fn fill(&mut self, link: &mut Link, window: &mut Window, pacing: &mut Pacing) -> Result<(), String> {
        self.tell_twin(link)?;
        let settings = self.settings.borrow_and_update().clone();
        let now = Instant::now();
        let unread = self.unread();
        if pacing.on_time(now, &settings, unread, self.spool.stats().recorded) {
            self.spool.request_sync();
        }
        let mut waiting = None;
        while window.has_room() && pacing.is_due(self.batcher.next_seq()) {
            let reading = self.clock.now();
            let allowance = self.budget.allowance(&reading, settings.max_bytes_per_day, settings.max_message_bytes);
            let [high, _] = self.batcher.next_seq();
            if !allowance.low {
                waiting = Some(used_up(settings.max_bytes_per_day, allowance, is_plausible(reading.wall_us)));
            }
            if !allowance.high || (!allowance.low && !pacing.is_due([high, u64::MAX])) {
                break;
            }
            let hold_suspect = pacing.connected_for(now) < batch::CLOCK_GRACE;
            // Low events that are not due fill the message up as long as the day's budget allows.
            let max_bytes = settings.max_message_bytes.min(link.max_message_bytes);
            let limits = Limits { max_bytes, hold_suspect, with_low: allowance.low };
            let batch = self.batcher.next(limits);
            let Some(message) = batch.map_err(|error| format!("cannot read the spool: {error}"))? else { break };
            let bytes = message.text.len();
            if let Err(error) = self.budget.spend(&reading, link.topic().len(), bytes) {
                warn!("cannot write down what was sent today: {error}; a restart would count anew");
            }
            link.publish(message.text)?;
            window.push(message.through, message.events, bytes, now);
            self.status.change(|facts| facts.sent_bytes += bytes as u64);
        }
        if self.batcher.is_holding() {
            waiting = Some(
                "events wait for the clock to be set, at most 10 minutes after the connection was made".to_owned(),
            );
        }
        let sent_today_bytes = self.budget.sent_today_bytes(&self.clock.now());
        self.status.change(|facts| (facts.sent_today_bytes, facts.waiting) = (sent_today_bytes, waiting));
        Ok(())
    }

    /// Tells `status` what this connection does.
    fn show(&self, window: &Window, pacing: &Pacing, renew_at: Option<Instant>) {
        let session = SessionFacts {
            under_way: window.len(),
            oldest_sent: window.oldest_sent(),
            is_window_full: !window.has_room(),
            next_seq: self.batcher.next_seq(),
            next_send: pacing.next_times(),
            renew_at,
        };
        self.status.change(|facts| facts.session = Some(session));
    }

    /// When what is held back now may go: a new day's budget, or the end of the wait for the clock.
    fn next_release(&self, pacing: &Pacing) -> Option<Instant> {
        let now = Instant::now();
        let grace = self.batcher.is_holding().then(|| batch::CLOCK_GRACE.saturating_sub(pacing.connected_for(now)));
        let day = self.status.get().waiting.map(|_| budget::rest_of_day(&self.clock.now()));
        grace.into_iter().chain(day).min().map(|wait| now + wait)
    }

    fn unread(&self) -> [(u64, u64); 2] {
        Lane::ALL.map(|lane| self.spool.unread(lane))
    }
}

fn used_up(limit_bytes: Option<u64>, allowance: Allowance, is_clock_right: bool) -> String {
    let (share, who) =
        if allowance.high { ("half of the", "Low events wait") } else { ("all of the", "all events wait") };
    let still = if allowance.high { "; High events still go" } else { "" };
    let until = if is_clock_right { "midnight UTC" } else { "the machine has been up for another full day" };
    let limit = size(limit_bytes.unwrap_or(0));
    format!("{share} day's {limit} (maxBytesPerDay) is used up; {who} until {until}{still}")
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use collector_common::root::Root;

    use super::*;
    use crate::render::Renderer;

    #[test]
    fn a_used_up_budget_says_what_waits_until_when_and_what_still_goes() {
        let used_up = |high, is_clock_right| used_up(Some(65_536), Allowance { high, low: false }, is_clock_right);
        assert_eq!(
            used_up(true, true),
            "half of the day's 64 KiB (maxBytesPerDay) is used up; Low events wait until midnight UTC; High events \
             still go"
        );
        assert_eq!(
            used_up(false, false),
            "all of the day's 64 KiB (maxBytesPerDay) is used up; all events wait until the machine has been up for another \
             full day"
        );
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_password_in_a_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("password");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let clock = Clock::new(&Root::host());
        let (spool, _) = Spool::open(directory.path(), 1 << 20).unwrap();
        let text = format!(
            r#"{{"connection": {{"url": "mqtt://localhost:1", "username": "u", "passwordFile": "{}"}}}}"#,
            pipe.display()
        );
        let local = crate::config::load("twin.json", &text, None).unwrap().local;
        let endpoint = Endpoint {
            connection: local.connection.unwrap(),
            device_id: "press-17".to_owned(),
            module_id: local.module_id,
        };
        let (_endpoint, endpoint) = watch::channel(Some(endpoint));
        let (_settings, settings) = watch::channel(Arc::new(Settings::default()));
        let (stop, stop_seen) = watch::channel(false);
        let uplink = Uplink {
            spool: spool.clone(),
            batcher: Batcher::new(spool.clone(), Renderer::new(spool, clock), Uuid::nil()),
            endpoint,
            settings,
            status: LinkStatus::default(),
            flush: Arc::new(Notify::new()),
            clock,
            agent_id: Uuid::nil(),
            budget: Budget::load(directory.path().join("sent.json"), &clock.now()),
            mailbox: Mailbox::default(),
        };
        let running = tokio::spawn(uplink.run(stop_seen));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        stop.send_replace(true);
        running.await.unwrap();
    }
}
