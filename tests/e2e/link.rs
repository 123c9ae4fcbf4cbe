//! Links that break in the middle.

use crate::agent::{Agent, connection};
use crate::arrivals::{Arrival, assert_each_once, wait_ports};
use crate::hub::Hub;
use crate::mosquitto::Mosquitto;
use crate::proxy::Proxy;
use crate::wait;

use serde_json::json;

/// Cuts behind bytes that fall into the connect packet, into the middle of a message, and far into a batch; then
/// refuses for a while; then cuts with the acknowledgements lost.
fn cut_again_and_again(agent: &mut Agent, proxy: &Proxy, from: u16, arrivals: &dyn Fn() -> Vec<Arrival>) -> u16 {
    let mut next = from;
    for bytes in [7, 300, 1_500, 9_000, 20_000] {
        let cuts = proxy.cuts();
        proxy.cut_after(bytes);
        // Fewer bytes than a connect packet has are only spent on a new connection.
        if bytes < 20 {
            proxy.cut();
        }
        agent.fail_logins(next..next + 60);
        next += 60;
        let expected = if bytes < 20 { cuts + 2 } else { cuts + 1 };
        wait::until_true("the line to be cut", || {
            if proxy.cuts() >= expected {
                return true;
            }
            // Not enough was sent to reach the place of the cut: log more.
            agent.fail_logins(next..next + 10);
            next += 10;
            false
        });
        // Without an acknowledgement in between, each cut would double the agent's pause.
        wait_ports("every line so far", from..next, arrivals);
        agent.wait_status("their acknowledgement", |status| {
            status["spool"]["acknowledged"]["High"] == status["spool"]["recorded"]["High"]
        });
    }
    let accepted = proxy.accepted();
    proxy.refuse();
    proxy.cut();
    agent.fail_logins(next..next + 30);
    next += 30;
    wait::until_true("the agent to try again", || proxy.accepted() > accepted);
    proxy.relay();
    wait_ports("every line after the refusal", from..next, arrivals);

    agent.wait_status("the connection", |status| status["connected"] == true);
    proxy.lose_replies();
    agent.fail_logins(next..next + 30);
    next += 30;
    wait_ports("what is sent without an answer", next - 30..next - 29, arrivals);
    agent.wait_words("what is under way", &["\nunder way      ", ", the oldest for "]);
    proxy.cut();
    agent.fail_logins(next..next + 1);
    next += 1;
    wait_ports("every line", from..next, arrivals);
    next
}

#[test]
fn a_link_cut_again_and_again_loses_nothing_on_the_way_to_our_hub() {
    let hub = Hub::start();
    let proxy = Proxy::start(hub.port);
    let mut agent = Agent::new("press-40", connection(proxy.port));
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    let end = cut_again_and_again(&mut agent, &proxy, 20_000, &|| hub.arrivals());
    assert_each_once(20_000..end, &hub.arrivals());
    agent.wait_status("an empty account of losses", |status| status["events"]["lost"] == 0);
}

#[test]
fn a_link_cut_again_and_again_loses_nothing_on_the_way_to_mosquitto() {
    let broker = Mosquitto::start();
    let proxy = Proxy::start(broker.port);
    let mut agent = Agent::new("press-41", connection(proxy.port));
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    let end = cut_again_and_again(&mut agent, &proxy, 20_000, &|| broker.arrivals());
    let arrivals = broker.arrivals();
    assert_each_once(20_000..end, &arrivals);
    // Lost acknowledgements must have led to a second delivery, or the story tested nothing.
    let logins = arrivals.iter().filter(|arrival| arrival.name == "Login").count();
    assert!(logins > usize::from(end - 20_000), "nothing was delivered twice: {logins} logins");
}

#[test]
fn a_half_open_link_is_noticed_and_everything_is_delivered_on_a_new_one() {
    let hub = Hub::start();
    let proxy = Proxy::start(hub.port);
    let mut agent = Agent::new("press-42", connection(proxy.port));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(21_000..21_010);
    wait_ports("the link to work", 21_000..21_010, || hub.arrivals());

    let accepted = proxy.accepted();
    proxy.stall();
    agent.fail_logins(21_010..21_040);
    // From here on new connections work; only the one that nobody closed is dead.
    proxy.relay();
    wait::until_true("a new connection", || proxy.accepted() > accepted);
    wait_ports("every line", 21_000..21_040, || hub.arrivals());
    assert_each_once(21_000..21_040, &hub.arrivals());
    agent.wait_words("the reason", &[" ago: the hub acknowledges nothing for 45 s; the link is taken for dead\n"]);
}

#[test]
fn status_says_in_words_that_the_hub_is_down_the_spool_is_full_and_all_is_well_again() {
    let mut hub = Hub::start();
    let port = hub.port;
    hub.kill_9();
    let mut agent = Agent::new("press-43", connection(port));
    agent.set("maxLocalCacheSizeInBytes", json!(65_536));
    agent.start();
    agent.wait_collecting();
    let quota = "the spool has reached its quota of 64 KiB (maxLocalCacheSizeInBytes)";
    assert!(!agent.status_in_words().contains(quota));
    agent.wait_words(
        "the refusal",
        &["NOT connected for ", "nothing listens at the hub's address and port", "next try       in ", " room for "],
    );
    agent.fail_logins(22_000..22_400);
    let goes = format!("{quota}; Login events of the High lane go first");
    agent.wait_words(
        "the full spool",
        &["events are kept, older ones make room for newer ones", &goes, " Login (made room for newer ones)"],
    );
    hub.listen(port);
    agent.wait_words("the connection", &[", connected for ", "last trouble   ", "acknowledged   last ", "  - "]);
    // A restart empties the account of losses, and the last line is recorded and sent as ever.
    assert!(agent.terminate().success());
    agent.start();
    agent.wait_words("that all is well", &["all well: connected, nothing waits\n", "; the run before was stopped\n"]);
}
