use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{LoginSource, ProcessBackend, State, StateSlot, channel};
use tokio::sync::{mpsc, watch as settings_watch};
use tokio::time::timeout;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    pi:x:1000:1000:,,,:/home/pi:/bin/bash\n\
    toor:x:0:0::/root:/bin/sh\n\
    guest::1000:4242::/home/guest:/bin/sh\n";
const GROUP: &str = "root:x:0:\nadm:x:4:pi\nsudo;x:x:27:pi,root\npi:x:1000:pi\nadm2:x:4:pi\n";
const SHADOW: &str = "root:!$y$j9T$secret$secret:1::::::\npi:$6$secret$secret:1::::::\n";

fn machine() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    for (name, content) in [("passwd", PASSWD), ("group", GROUP), ("shadow", SHADOW)] {
        replace(directory.path(), name, content);
    }
    directory
}

/// The way passwd tools write: a new file renamed over the old one.
fn replace(machine: &Path, name: &str, content: &str) {
    let fresh = machine.join("etc").join(format!("{name}+"));
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, machine.join("etc").join(name)).unwrap();
}

struct Agent {
    queue: mpsc::Receiver<Draft>,
    state: StateSlot,
    settings: settings_watch::Sender<Arc<Settings>>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

fn settings(snapshot_interval: Duration) -> Arc<Settings> {
    let (login_source, process_backend) = (LoginSource::Auto, ProcessBackend::Auto);
    let redaction = Arc::default();
    Arc::new(Settings {
        snapshot_interval,
        login_source,
        fold_failed_logins: false,
        process_backend,
        process_snapshot: false,
        process_hash: false,
        redaction,
    })
}

fn start(root: Root, once: bool) -> Agent {
    let (out, queue) = channel(BTreeMap::new());
    let (sender, receiver) = settings_watch::channel(settings(Duration::from_secs(3600)));
    let state = StateSlot::new();
    let clock = Clock::new(&root);
    let cx = Context { root, clock, settings: receiver, out, state: state.clone(), once };
    Agent { queue, state, settings: sender, task: tokio::spawn(LocalUsers.run(cx)) }
}

impl Agent {
    async fn next(&mut self) -> Draft {
        timeout(Duration::from_secs(120), self.queue.recv()).await.expect("an event within 2 minutes").unwrap()
    }

    async fn snapshot(&mut self) -> Vec<LocalUser> {
        match self.next().await.payload {
            Some(Payload::LocalUsers(users)) => users,
            other => panic!("expected a snapshot, got {other:?}"),
        }
    }

    async fn diagnostic(&mut self) -> (Diagnostic, bool) {
        match self.next().await {
            Draft { payload: Some(Payload::Diagnostic(it)), security_relevant, .. } => (it, security_relevant),
            other => panic!("expected a diagnostic, got {other:?}"),
        }
    }
}

#[test]
fn accounts_carry_groups_and_what_makes_them_dangerous() {
    let machine = machine();
    let files = read_files(&Root::at(machine.path())).unwrap();
    let all: Vec<_> = files.accounts.iter().map(|it| (it.user_name.as_str(), it.group_ids.as_str())).collect();
    assert_eq!(all, [("root", "0;27"), ("pi", "1000;4;27"), ("toor", "0"), ("guest", "4242")]);
    let [root, pi, toor, guest] = files.accounts.as_slice() else { panic!() };
    assert_eq!(pi.group_names, "pi;adm;sudo_x");
    assert_eq!(guest.group_names, "4242");
    assert_eq!(root.extra_details["PasswordLogin"], "locked");
    assert_eq!(pi.extra_details["PasswordLogin"], "yes");
    assert_eq!(toor.extra_details["PasswordLogin"], "no");
    assert_eq!(guest.extra_details["PasswordLogin"], "empty");
    assert_eq!(toor.extra_details["RootEquivalent"], "true");
    assert_eq!(toor.extra_details["SharedUserId"], "root");
    assert_eq!(root.extra_details.get("RootEquivalent"), None);
    assert_eq!(pi.extra_details["SharedUserId"], "guest");
    assert!(!format!("{:?}", files.accounts).contains("secret"));
}

#[test]
fn without_shadow_the_password_is_unknown_and_the_gap_says_so() {
    let machine = machine();
    fs::remove_file(machine.path().join("etc/shadow")).unwrap();
    let files = read_files(&Root::at(machine.path())).unwrap();
    assert_eq!(files.accounts[1].extra_details.get("PasswordLogin"), None);
    assert_eq!(files.accounts[3].extra_details["PasswordLogin"], "empty");
    assert!(files.gaps[0].contains("/etc/shadow"), "{:?}", files.gaps);
}

#[test]
fn a_directory_service_is_a_gap_that_is_said() {
    let machine = machine();
    let cases = [
        ("passwd: files systemd\ngroup: files ldap\n", None),
        (
            "# passwd: nis\n\tpasswd:   files [NOTFOUND=continue UNAVAIL=return] sss ldap # and so on\n",
            Some("sss, ldap"),
        ),
    ];
    for (content, expected) in cases {
        replace(machine.path(), "nsswitch.conf", content);
        let gaps = read_files(&Root::at(machine.path())).unwrap().gaps;
        assert_eq!(gaps.len(), usize::from(expected.is_some()), "{gaps:?}");
        assert!(expected.is_none_or(|names| gaps[0].contains(names)), "{gaps:?}");
    }
}

#[test]
fn the_hosts_accounts_are_those_of_getent_and_id() {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let files = read_files(&Root::host()).unwrap();
    let ours: Vec<_> = files
        .accounts
        .iter()
        .map(|it| (it.user_name.clone(), it.user_id.clone(), it.extra_details["Home"].clone()))
        .collect();
    let text = output("getent", &["-s", "files", "passwd"]);
    let theirs = text.lines().map(|line| {
        let fields: Vec<_> = line.split(':').map(str::to_owned).collect();
        (fields[0].clone(), fields[2].clone(), fields[5].clone())
    });
    assert_eq!(ours, theirs.collect::<Vec<_>>());
    assert!(!ours.is_empty());
    for account in &files.accounts {
        let ids = output("id", &["-G", &account.user_name]);
        assert_eq!(account.group_ids, ids.trim().replace(' ', ";"), "{}", account.user_name);
        let names = output("id", &["-Gn", &account.user_name]);
        assert_eq!(account.group_names, names.trim().replace(' ', ";"), "{}", account.user_name);
    }
}

#[tokio::test]
async fn once_gives_one_snapshot_and_ends() {
    let machine = machine();
    let mut running = start(Root::at(machine.path()), true);
    assert_eq!(running.snapshot().await.len(), 4);
    assert_eq!(timeout(Duration::from_secs(20), running.task).await.unwrap().unwrap(), Ok(()));
    assert!(running.queue.recv().await.is_none());
}

#[tokio::test]
async fn a_change_gives_a_full_snapshot_and_an_alarm_that_names_what_vanished() {
    let machine = machine();
    let mut running = start(Root::at(machine.path()), false);
    running.snapshot().await;
    // Nothing in it changed, so nothing is sent for it.
    replace(machine.path(), "group", GROUP);
    replace(machine.path(), "passwd", &PASSWD.replace("toor:", "mallory:"));
    let names: Vec<_> = running.snapshot().await.into_iter().map(|it| it.user_name).collect();
    assert_eq!(names, ["root", "pi", "mallory", "guest"]);
    let (alarm, security_relevant) = running.diagnostic().await;
    assert!(security_relevant);
    assert!(alarm.message.contains("vanished: toor"), "{}", alarm.message);
    assert_eq!(alarm.extra_details["VanishedUsers"], "toor");

    replace(machine.path(), "group", &GROUP.replace("adm:x:4:pi", "adm:x:4:pi,guest"));
    assert_eq!(running.snapshot().await[3].group_names, "4242;adm");
    let (alarm, _) = running.diagnostic().await;
    assert_eq!(alarm.extra_details["ChangedUsers"], "guest (was uid 1000, groups 4242)");
}

#[tokio::test]
async fn faults_are_told_once_and_a_shorter_interval_applies_at_once() {
    let machine = machine();
    replace(machine.path(), "passwd", &format!("{PASSWD}nonsense\n"));
    let mut running = start(Root::at(machine.path()), false);
    assert_eq!(running.snapshot().await.len(), 4);
    let (remark, security_relevant) = running.diagnostic().await;
    assert!(!security_relevant);
    assert!(remark.message.contains("/etc/passwd line 5: no password field"), "{}", remark.message);
    running.settings.send(settings(Duration::from_millis(50))).unwrap();
    assert_eq!(running.snapshot().await, running.snapshot().await);
}

#[tokio::test]
async fn a_machine_without_passwd_is_a_failure_that_names_it() {
    let empty = tempfile::tempdir().unwrap();
    let running = start(Root::at(empty.path()), false);
    let Err(Failure(reason)) = running.task.await.unwrap() else { panic!() };
    assert!(reason.contains("/etc/passwd"), "{reason}");
}

#[test]
fn a_survey_needs_no_runtime() {
    let survey = LocalUsers.survey(&Root::host(), &settings(Duration::from_secs(1)));
    assert!(survey.backend.contains("/etc/passwd"), "{survey:?}");
}

#[tokio::test(start_paused = true)]
async fn files_that_are_links_are_compared_and_the_gap_says_so() {
    let machine = machine();
    let etc = machine.path().join("etc");
    fs::rename(etc.join("passwd"), machine.path().join("passwd")).unwrap();
    std::os::unix::fs::symlink("../passwd", etc.join("passwd")).unwrap();
    let mut agent = start(Root::at(machine.path()), false);
    assert_eq!(agent.snapshot().await.len(), 4);
    let State::Running { gap: Some(gap), .. } = agent.state.get() else { panic!("{:?}", agent.state.get()) };
    assert!(gap.contains("symbolic link"), "{gap}");
    let survey = LocalUsers.survey(&Root::at(machine.path()), &settings(Duration::from_secs(1)));
    assert!(survey.lacks[0].contains("symbolic link"), "{survey:?}");
    fs::write(machine.path().join("passwd"), PASSWD.replace("toor:", "mallory:")).unwrap();
    let names: Vec<_> = agent.snapshot().await.into_iter().map(|it| it.user_name).collect();
    assert_eq!(names, ["root", "pi", "mallory", "guest"]);
}
