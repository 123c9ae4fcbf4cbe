//! Execs from the kernel's audit: complete, with nobody displaced, and nothing left behind.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Agent, binary, connection};
use crate::audit::{Audit, auditctl, owner, rules, status};
use crate::execs::{WITHOUT_BPF, survey, told_right};
use crate::mosquitto::Mosquitto;
use crate::{schema, wait};

fn process_create(status: &Value) -> &Value {
    &status["collectors"]["ProcessCreate"]
}

/// Waits until the agent collects execs with this back end.
fn wait_backend(agent: &mut Agent, backend: &str) -> Value {
    let is_used =
        |status: &Value| process_create(status)["backend"].as_str().is_some_and(|used| used.starts_with(backend));
    process_create(&agent.wait_status(backend, is_used)).clone()
}

/// Waits until the agent owns audit, which is a moment after it has decided to.
fn wait_owner(agent: &mut Agent) {
    wait_backend(agent, "kernel audit, as its owner");
    wait::until("rules of the agent", || match (owner(), rules()) {
        (Some(_), rules) if rules.contains("b32") && rules.contains("b64") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// An agent that looks for execs by its own choice, without BPF.
fn agent_without_bpf(device: &str, broker: &Mosquitto) -> Agent {
    let mut agent = Agent::new(device, connection(broker.port));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "auto".into();
    agent.inside = WITHOUT_BPF.map(str::to_owned).into();
    agent
}

#[test]
fn audit_that_nobody_owns_tells_what_executed_however_it_was_done_and_is_given_back_as_it_was() {
    let Some(audit) = Audit::hold() else { return };
    told_right("audit");
    wait::until("audit to be as before", || audit.is_as_before());
}

#[test]
fn what_a_killed_agent_left_in_audit_is_undone_by_the_next() {
    let Some(audit) = Audit::hold() else { return };
    let mut agent = Agent::new("press-72", connection(1));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "audit".into();
    agent.start();
    wait_owner(&mut agent);
    agent.kill_9();
    assert!(rules().contains("edgewarden-"), "{}", rules());
    // Also by one that has nothing to do with audit.
    agent.set("eventPriorityProcessCreate", json!("Off"));
    agent.start();
    agent.wait_status("the agent to run", |status| process_create(status)["state"] == "off");
    wait::until("audit to be as before", || audit.is_as_before());
    assert!(agent.log().contains("left behind when it was killed"), "{}", agent.log());
}

#[test]
fn what_others_set_while_the_agent_owns_audit_stays() {
    let Some(audit) = Audit::hold() else { return };
    let mut agent = Agent::new("press-79", connection(1));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "audit".into();
    agent.start();
    wait_owner(&mut agent);
    auditctl(&["-b", "32768"]);
    audit.record_execs();
    agent.terminate();
    let now = status();
    let set = ["enabled", "backlog_limit", "backlog_wait_time"].map(|key| now[key].as_str());
    assert_eq!(set, ["1", "32768", audit.before("backlog_wait_time")], "{now:?}");
    assert!(rules().contains("edgewarden-test"), "{}", rules());
    assert_eq!(owner(), None);
}

#[test]
fn auditd_keeps_audit_and_is_read_beside() {
    let Some(mut audit) = Audit::hold() else { return };
    audit.start_auditd();
    let who = format!("process {} (auditd)", audit.auditd());
    let told = survey(&WITHOUT_BPF);
    assert!(told.starts_with("ProcessCreate: netlink process connector\n"), "{told}");
    assert!(told.contains(&format!("{who} owns audit, and its rules record no exec")), "{told}");
    audit.record_execs();
    let told = survey(&WITHOUT_BPF);
    assert!(told.starts_with(&format!("ProcessCreate: kernel audit, read beside its owner, {who}\n")), "{told}");

    told_right("audit");
    assert_eq!(owner(), Some(audit.auditd()), "auditd was displaced");
    let log = audit.log();
    assert!(log.contains("a1=\"unshared\"") && log.contains("a1=\"jailed\""), "auditd missed something");

    // What ends this source for real: somebody loads other rules.
    let broker = Mosquitto::start();
    let mut agent = agent_without_bpf("press-73", &broker);
    agent.start();
    wait_backend(&mut agent, "kernel audit, read beside");
    audit.forget_rules();
    let fallen = wait_backend(&mut agent, "netlink process connector");
    let why = "the rules of audit's owner do not record execs any more";
    assert!(fallen["gap"].as_str().unwrap().contains(why), "{fallen}");
    assert!(agent.log().contains("ProcessCreate goes on with less: kernel audit failed"), "{}", agent.log());
    wait::until_true("the alarm", || {
        broker.arrivals().iter().any(|arrival| arrival.name == "Diagnostic" && arrival.text("Message").contains(why))
    });
    let shell = Command::new("/bin/sh").args(["-c", "read edgewarden_fallen"]).stdin(Stdio::piped()).spawn();
    let mut shell: Child = shell.unwrap();
    wait::until_true("an exec by the other back end", || {
        broker.arrivals().iter().any(|arrival| arrival.text("CommandLine").contains("edgewarden_fallen"))
    });
    shell.kill().unwrap();
    shell.wait().unwrap();
    agent.terminate();
    for (_, message) in broker.messages() {
        assert_eq!(schema::faults(&message), Vec::<String>::new(), "{message}");
    }
    assert_eq!(owner(), Some(audit.auditd()));
}

#[test]
fn audit_goes_to_auditd_when_that_wants_it() {
    let Some(mut audit) = Audit::hold() else { return };
    let broker = Mosquitto::start();
    let mut agent = agent_without_bpf("press-74", &broker);
    // Neither the connector nor a hub is there.
    agent.inside.splice(0..0, ["unshare", "--net"].map(str::to_owned));
    agent.start();
    wait_owner(&mut agent);
    let status = agent.status().unwrap();
    let gap = process_create(&status)["gap"].as_str().unwrap();
    assert!(gap.contains("netlink process connector is not used"), "{gap}");

    audit.start_auditd();
    let fallen = wait_backend(&mut agent, "/proc");
    let why = "(auditd) wants to own audit, so it was given back";
    assert!(fallen["gap"].as_str().unwrap().contains(why), "{fallen}");
    assert!(agent.log().contains("ProcessCreate goes on with less: kernel audit failed"), "{}", agent.log());
    assert!(!rules().contains("edgewarden-"), "{}", rules());
    agent.terminate();
    assert_eq!(owner(), Some(audit.auditd()), "the agent stopped, and auditd did not");
    // The alarm waited on the disk for a network.
    agent.inside.clear();
    agent.own()["processBackend"] = "poll".into();
    agent.start();
    wait::until_true("the alarm", || {
        broker.arrivals().iter().any(|arrival| arrival.name == "Diagnostic" && arrival.text("Message").contains(why))
    });
    agent.terminate();
    audit.stop_auditd();
}

#[test]
fn audit_stays_free_for_who_wanted_it_also_when_it_is_asked_for_by_name() {
    let Some(mut audit) = Audit::hold() else { return };
    let mut agent = Agent::new("press-78", connection(1));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "audit".into();
    agent.start();
    wait_owner(&mut agent);
    audit.fail_to_start_auditd();
    let is_left_free = |status: &Value| {
        process_create(status)["reason"].as_str().is_some_and(|why| why.contains("(auditd) wanted to own it"))
    };
    agent.wait_status("the agent not to take audit again", is_left_free);
    assert_eq!(owner(), None);
    audit.start_auditd();
    assert_eq!(owner(), Some(audit.auditd()));
}

#[test]
fn check_only_looks_at_audit() {
    let Some(audit) = Audit::hold() else { return };
    let mut agent = Agent::new("press-75", connection(1));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "audit".into();
    agent.write_twin();
    let config = agent.config();
    let out = wait::output("check", Command::new(binary()).arg("check").arg("--config").arg(config));
    assert!(String::from_utf8_lossy(&out.stdout).contains("ProcessCreate: kernel audit, as its owner"));
    audit.is_as_before().unwrap();
}
