//! Two agents with one identity, and tokens that end before their time.

use super::*;

#[test]
fn two_agents_with_one_identity_say_so_and_both_deliver() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-84", "localhost", Proof::Key(KEY.to_owned())));
    let mut agents = [(); 2].map(|()| agent("press-84", &hub, &authority, "sasKeyFile", KEY, json!({})));
    for (agent, from) in agents.iter_mut().zip([30_000, 30_020]) {
        agent.start();
        agent.wait_collecting();
        agent.fail_logins(from..from + 20);
    }
    for agent in &mut agents {
        agent.wait_status("the question", |status| {
            let trouble = status["trouble"].as_str();
            trouble.is_some_and(|why| why.contains("does another device use the id press-84/azureiotsecurity?"))
        });
    }
    wait_ports("what both saw", 30_000..30_040, || hub.arrivals());
    assert!(hub.displaced() >= 3, "{} connections were displaced", hub.displaced());
    let [mut stays, mut goes] = agents;
    assert!(goes.terminate().success());
    stays.fail_logins(30_040..30_060);
    wait_ports("what the one that stays sees", 30_000..30_060, || hub.arrivals());
    stays.wait_status("no more trouble", |status| status["connected"] == true && status["trouble"].is_null());
    assert_each_once(30_000..30_060, &hub.arrivals());
    assert_eq!(hub.faults(), [""; 0]);
}

/// The hub's clock is ahead, so that it ends each connection before the agent would renew its token.
#[test]
fn a_connection_that_ends_with_its_token_loses_nothing() {
    let authority = Authority::new();
    let rules = module_rules("press-85", "localhost", Proof::Key(KEY.to_owned()));
    let hub = IotHub::start(&authority, Rules { ahead_s: 10, ..rules });
    let mut agent = agent("press-85", &hub, &authority, "sasKeyFile", KEY, json!({ "sasLifetime": "PT20S" }));
    deliver(&mut agent, &hub);
    let mut next = 30_020;
    wait::until_true("two tokens to expire", || {
        agent.fail_logins(next..next + 2);
        next += 2;
        hub.expired() >= 2
    });
    wait_ports("every line", 30_000..next, || hub.arrivals());
    assert_each_once(30_000..next, &hub.arrivals());
    agent.wait_status("an empty account of losses", |status| status["events"]["lost"] == 0);
    assert_eq!(hub.faults(), [""; 0]);
}
