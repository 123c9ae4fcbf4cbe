use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
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
        users_from_nss: false,
        redaction,
    })
}

fn start(root: Root, once: bool) -> Agent {
    start_again(root, once, None, BTreeMap::new())
}

/// With what an earlier one left.
fn start_again(root: Root, once: bool, state: Option<&Path>, cursors: BTreeMap<String, String>) -> Agent {
    let (out, queue) = channel(cursors);
    let (sender, receiver) = settings_watch::channel(settings(Duration::from_secs(3600)));
    let slot = StateSlot::new();
    let clock = Clock::new(&root);
    let state_directory = state.map(Path::to_owned);
    let cx = Context { root, state_directory, clock, settings: receiver, out, state: slot.clone(), once };
    Agent { queue, state: slot, settings: sender, task: tokio::spawn(LocalUsers.run(cx)) }
}

/// One look.
fn look(machine: &Path) -> Scan {
    let (memory, _) = Memory::load(None, None);
    let root = Root::at(machine);
    let task = Task { root, secret: memory.secret(), today: Some(20_000), services: None, stuck: Default::default() };
    scan::look_blocking(&task).unwrap_or_else(|failure| panic!("{failure}"))
}

fn rows_of(machine: &Path) -> Vec<LocalUser> {
    look(machine).accounts.into_iter().map(|account| account.row).collect()
}

fn write(machine: &Path, path: &str, content: &str) {
    let path = machine.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// `Change` of each row that has one.
fn changes(rows: &[LocalUser]) -> Vec<(&str, &str)> {
    let changed =
        rows.iter().filter_map(|row| Some((row.user_name.as_str(), row.extra_details.get("Change")?.as_str())));
    changed.collect()
}

impl Agent {
    /// The next one that is not the remark on the two uids of `PASSWD` that are there twice.
    async fn next(&mut self) -> Draft {
        loop {
            let draft = self.any().await;
            let is_known = |text: &str| text.contains("line 3: user id 0") && !text.contains("line 5");
            if !matches!(&draft.payload, Some(Payload::Diagnostic(it)) if is_known(&it.message)) {
                return draft;
            }
        }
    }

    async fn any(&mut self) -> Draft {
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
    let accounts = rows_of(machine.path());
    let all: Vec<_> = accounts.iter().map(|it| (it.user_name.as_str(), it.group_ids.as_str())).collect();
    assert_eq!(all, [("root", "0;27"), ("pi", "1000;4;27"), ("toor", "0"), ("guest", "4242")]);
    let [root, pi, toor, guest] = accounts.as_slice() else { panic!() };
    assert_eq!(pi.group_names, "pi;adm;sudo_x");
    assert_eq!(guest.group_names, "4242");
    assert_eq!(root.extra_details["PasswordLogin"], "locked");
    assert_eq!(pi.extra_details["PasswordLogin"], "yes");
    assert_eq!(toor.extra_details["PasswordLogin"], "no");
    assert_eq!(guest.extra_details["PasswordLogin"], "empty");
    assert_eq!(toor.extra_details["RootEquivalent"], "true");
    assert_eq!(toor.extra_details["SharedUserId"], "root");
    assert_eq!(toor.extra_details["Privileged"], "uid0");
    assert_eq!(root.extra_details.get("RootEquivalent"), None);
    assert_eq!(pi.extra_details["SharedUserId"], "guest");
    assert_eq!(pi.extra_details.get("Privileged"), None);
    assert_eq!(pi.extra_details["PasswordChanged"], "1970-01-02");
    assert_eq!(pi.extra_details["ShellRefuses"], "missing");
    assert!(!format!("{accounts:?}").contains("secret"));
}

#[test]
fn what_has_run_out_and_what_a_shell_refuses() {
    let machine = machine();
    replace(
        machine.path(),
        "shadow",
        "root:!:20000::::::\npi:x:0:0:99999:7:::\nguest:x:100:0:9:7::20001:\ntoor:x:1:::::300:\n",
    );
    replace(
        machine.path(),
        "passwd",
        &PASSWD.replace("/home/pi:/bin/bash", "/home/pi:/usr/sbin/nologin").replace("guest::", "guest:x:"),
    );
    for shell in ["bin/bash", "bin/sh"] {
        write(machine.path(), shell, "");
    }
    replace(machine.path(), "shells", "# comment\n/bin/sh\n");
    let rows = rows_of(machine.path());
    let of = |key: &str| rows.iter().map(|row| row.extra_details.get(key).map(String::as_str)).collect::<Vec<_>>();
    assert_eq!(of("Expired"), [None, Some("password"), Some("account"), Some("password")]);
    assert_eq!(of("AccountExpires"), [None, None, Some("1970-10-28"), Some("2024-10-05")]);
    assert_eq!(of("ShellRefuses"), [Some("unlisted"), Some("login"), None, None]);
}

#[test]
fn privileges_come_from_groups_and_from_rules_of_sudo() {
    let machine = machine();
    replace(machine.path(), "group", "root:x:0:\nsudo:x:27:pi\ndocker:x:999:\npi:x:1000:\n");
    replace(machine.path(), "passwd", &PASSWD.replace("1000:4242", "1001:999"));
    write(machine.path(), "etc/sudoers", "%sudo ALL=(ALL:ALL) ALL\nnonsense\n@includedir /etc/sudoers.d\n");
    write(machine.path(), "etc/sudoers.d/010_pi", "pi ALL=NOPASSWD: ALL\n#1001 ALL=NOPASSWD: /sbin/reboot\n");
    for passed_over in ["etc/sudoers.d/a.bak", "etc/sudoers.d/b~"] {
        write(machine.path(), passed_over, "guest ALL=NOPASSWD: ALL\n");
    }
    let scan = look(machine.path());
    let privileged: Vec<_> =
        scan.accounts.iter().map(|it| it.row.extra_details.get("Privileged").map_or("", String::as_str)).collect();
    assert_eq!(
        privileged,
        ["uid0", "group:sudo;sudoers:NOPASSWD;sudoers", "uid0", "group:docker;sudoers:NOPASSWD:some"]
    );
    assert!(scan.faults.contains("/etc/sudoers line 2: a rule has no ="), "{:?}", scan.faults);
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmh0BxFm9bJDlz7oNH1tHvUUdtuAz2jHbIDh9ZyxLMU";

/// The fingerprint is the one `ssh-keygen` prints.
#[test]
fn keys_are_counted_where_sshd_looks_and_told_by_fingerprint() {
    let machine = machine();
    write(machine.path(), "home/pi/.ssh/authorized_keys", &format!("# {KEY}\nrestrict {KEY} pi\n{KEY}\nnot a key\n"));
    write(machine.path(), "etc/dropbear/authorized_keys", KEY);
    let out =
        Command::new("ssh-keygen").args(["-lf"]).arg(machine.path().join("etc/dropbear/authorized_keys")).output();
    let out = String::from_utf8(out.expect("scripts/setup-test.sh installs ssh").stdout).unwrap();
    let fingerprint = out.split(' ').nth(1).unwrap();
    let rows = rows_of(machine.path());
    let (root, pi) = (&rows[0].extra_details, &rows[1].extra_details);
    assert_eq!((root["AuthorizedKeys"].as_str(), root["KeyFingerprints"].as_str()), ("1", fingerprint));
    assert_eq!(root["KeyFiles"], "/etc/dropbear/authorized_keys");
    assert_eq!((pi["AuthorizedKeys"].as_str(), &pi["KeyFingerprints"]), ("2", &format!("{fingerprint};{fingerprint}")));

    let config = "Include sshd_config.d/*.conf\nAuthorizedKeysFile /nowhere\nAuthorizedKeysCommand /bin/x\n\
        Match User git\n AuthorizedKeysFile /srv/%u\n";
    write(machine.path(), "etc/ssh/sshd_config", config);
    write(machine.path(), "etc/ssh/sshd_config.d/10.conf", "AuthorizedKeysFile /etc/keys/%u none\n");
    write(machine.path(), "etc/keys/pi", KEY);
    write(machine.path(), "srv/guest", KEY);
    let scan = look(machine.path());
    let files: Vec<_> =
        scan.accounts.iter().map(|it| it.row.extra_details.get("KeyFiles").map_or("", String::as_str)).collect();
    assert_eq!(files, ["/etc/dropbear/authorized_keys", "/etc/keys/pi", "/etc/dropbear/authorized_keys", "/srv/guest"]);
    assert!(scan.gaps.iter().any(|gap| gap.contains("AuthorizedKeysCommand")), "{:?}", scan.gaps);
}

/// Whatever an account puts where its keys are looked for, the agent neither waits for it nor reads for it what it may
/// not read itself.
#[test]
fn hostile_key_files_are_refused_by_name() {
    let machine = machine();
    let home = |name: &str| machine.path().join("home").join(name).join(".ssh");
    for name in ["pi", "guest"] {
        fs::create_dir_all(home(name)).unwrap();
    }
    nix::unistd::mkfifo(&home("pi").join("authorized_keys"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    write(machine.path(), "secret", KEY);
    fs::set_permissions(machine.path().join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink(machine.path().join("secret"), home("pi").join("authorized_keys2")).unwrap();
    symlink("/dev/zero", home("guest").join("authorized_keys2")).unwrap();
    write(machine.path(), "home/guest/.ssh/authorized_keys", &"x".repeat(2 << 20));
    let rows = rows_of(machine.path());
    let unread = |row: usize| rows[row].extra_details["KeysUnread"].clone();
    assert!(unread(1).contains("authorized_keys: it is no regular file"), "{}", unread(1));
    let is_root = nix::unistd::geteuid().is_root();
    assert!(!is_root || unread(1).contains("authorized_keys2: it belongs to uid 0, and"), "{}", unread(1));
    assert!(unread(3).contains("authorized_keys: it has 2097152 bytes"), "{}", unread(3));
    assert!(unread(3).contains("authorized_keys2: it is no regular file"), "{}", unread(3));
    assert!(rows.iter().all(|row| !row.extra_details.contains_key("KeyFingerprints")), "{rows:?}");
    if is_root {
        chown(machine.path().join("secret"), Some(1000), Some(1000)).unwrap();
        assert_eq!(rows_of(machine.path())[1].extra_details["AuthorizedKeys"], "1", "its own file, by a link");
    }
}

#[test]
fn accounts_of_systemd_are_rows_too() {
    let machine = machine();
    let record = r#"{"userName":"ops","uid":4711,"memberOf":["adm"],"homeDirectory":"/srv/ops","shell":"/bin/sh"}"#;
    write(machine.path(), "etc/userdb/ops.user", record);
    symlink("ops.user", machine.path().join("etc/userdb/4711.user")).unwrap();
    let secret = format!(r#"{{"privileged":{{"hashedPassword":["$y$secret"],"sshAuthorizedKeys":["{KEY}"]}}}}"#);
    write(machine.path(), "etc/userdb/ops.user-privileged", &secret);
    write(machine.path(), "etc/userdb/ops.group", r#"{"groupName":"ops","gid":4711}"#);
    write(machine.path(), "run/userdb/ops:sudo;x.membership", "");
    write(machine.path(), "run/userdb/pi.user", r#"{"userName":"pi","uid":5}"#);
    write(machine.path(), "usr/lib/userdb/broken.user", "{");
    fs::create_dir_all(machine.path().join("run/systemd/dynamic-uid")).unwrap();
    for (name, target) in [("direct:svc", "61184"), ("direct:61184", "svc")] {
        symlink(target, machine.path().join("run/systemd/dynamic-uid").join(name)).unwrap();
    }
    let scan = look(machine.path());
    let [.., ops, svc] = scan.accounts.as_slice() else { panic!() };
    assert_eq!((ops.row.user_name.as_str(), ops.row.group_names.as_str()), ("ops", "ops;sudo_x;adm"));
    assert_eq!(ops.row.extra_details["Source"], "userdb");
    assert_eq!(ops.row.extra_details["PasswordLogin"], "yes");
    assert_eq!(ops.row.extra_details["AuthorizedKeys"], "1");
    assert_eq!((svc.row.user_name.as_str(), svc.row.group_names.as_str(), svc.is_passing), ("svc", "svc", true));
    assert_eq!(svc.row.extra_details["Source"], "dynamic");
    assert_eq!(scan.accounts.len(), 6, "pi is in passwd");
    assert!(scan.faults.iter().any(|fault| fault.starts_with("/usr/lib/userdb/broken.user: it is no user record")));
    assert!(scan.faults.iter().any(|fault| fault.starts_with("/run/userdb/pi.user: \"pi\" is an account already")));
}

#[test]
fn accounts_of_services_follow_those_of_files() {
    let machine = machine();
    let text = b"pi:*:7:7::/:/bin/sh\nldapuser:*:5000:5000::/home/ldapuser:/bin/bash\n";
    let services = Answer {
        users: collector_common::parse::passwd::users(text, &|_| String::new()).entries,
        groups: collector_common::parse::passwd::groups(b"staff:*:6000:ldapuser,pi\n").entries,
    };
    let (memory, _) = Memory::load(None, None);
    let (root, services) = (Root::at(machine.path()), Some(Arc::new(services)));
    let task = Task { root, secret: memory.secret(), today: None, services, stuck: Default::default() };
    let scan = scan::look_blocking(&task).unwrap_or_else(|failure| panic!("{failure}"));
    let [_, pi, .., ldap] = scan.accounts.as_slice() else { panic!() };
    assert_eq!((pi.row.user_id.as_str(), pi.row.group_names.as_str()), ("1000", "pi;adm;sudo_x;staff"));
    assert_eq!((ldap.row.user_name.as_str(), ldap.row.group_names.as_str()), ("ldapuser", "5000;staff"));
    assert_eq!(ldap.row.extra_details["Source"], "services");
    assert_eq!(ldap.row.extra_details.get("PasswordLogin"), None);
}

#[test]
fn ten_thousand_accounts_are_ten_thousand_rows() {
    let machine = machine();
    let passwd: String = (0..10_000).map(|n| format!("u{n}:x:{n}:{n}::/home/u{n}:/bin/sh\n")).collect();
    let group: String = (0..10_000).map(|n| format!("u{n}:x:{n}:\n")).collect();
    let everybody: Vec<_> = (0..10_000).map(|n| format!("u{n}")).collect();
    replace(machine.path(), "passwd", &passwd);
    replace(machine.path(), "group", &format!("{group}users:x:50000:{}\n", everybody.join(",")));
    let rows = rows_of(machine.path());
    assert_eq!((rows.len(), rows[9_999].group_names.as_str()), (10_000, "u9999;users"));
}

#[test]
fn without_shadow_the_password_is_unknown_and_the_gap_says_so() {
    let machine = machine();
    fs::remove_file(machine.path().join("etc/shadow")).unwrap();
    let scan = look(machine.path());
    let rows: Vec<_> = scan.accounts.iter().map(|it| &it.row.extra_details).collect();
    assert_eq!((rows[1].get("PasswordLogin"), rows[3]["PasswordLogin"].as_str()), (None, "empty"));
    assert!(scan.gaps[0].contains("/etc/shadow"), "{:?}", scan.gaps);
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
        let gaps = look(machine.path()).gaps;
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
    let rows = rows_of(Path::new("/"));
    let of_passwd: Vec<_> = rows.iter().filter(|row| !row.extra_details.contains_key("Source")).collect();
    let ours: Vec<_> = of_passwd
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
    for account in of_passwd {
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
    assert_eq!(timeout(Duration::from_secs(20), &mut running.task).await.unwrap().unwrap(), Ok(()));
    assert!(matches!(running.any().await.payload, Some(Payload::Diagnostic(_))));
    assert!(running.queue.recv().await.is_none());
}

#[tokio::test]
async fn a_change_gives_a_full_snapshot_and_an_alarm_that_names_what_vanished() {
    let machine = machine();
    let mut running = start(Root::at(machine.path()), false);
    assert_eq!(changes(&running.snapshot().await), []);
    // Nothing in it changed, so nothing is sent for it.
    replace(machine.path(), "group", GROUP);
    replace(machine.path(), "passwd", &PASSWD.replace("toor:", "mallory:"));
    let (alarm, security_relevant) = running.diagnostic().await;
    assert!(security_relevant);
    assert!(alarm.message.contains("vanished: toor"), "{}", alarm.message);
    assert_eq!(alarm.extra_details["VanishedUsers"], "toor");
    let rows = running.snapshot().await;
    let names: Vec<_> = rows.iter().map(|it| it.user_name.as_str()).collect();
    assert_eq!(
        (names.as_slice(), changes(&rows)),
        (&["root", "pi", "mallory", "guest"][..], vec![("mallory", "Added")])
    );

    replace(machine.path(), "group", &GROUP.replace("adm:x:4:pi", "adm:x:4:pi,guest"));
    let (alarm, _) = running.diagnostic().await;
    assert_eq!(alarm.extra_details["ChangedUsers"], "guest (was uid 1000, groups 4242)");
    let rows = running.snapshot().await;
    assert_eq!((rows[3].group_names.as_str(), changes(&rows)), ("4242;adm", vec![("guest", "Groups")]));
}

/// What nobody would see in a row: the same kind of password, another one.
#[tokio::test]
async fn each_kind_of_change_has_its_word_and_keys_are_watched_where_they_are_made() {
    let machine = machine();
    let mut running = start(Root::at(machine.path()), false);
    running.snapshot().await;
    replace(machine.path(), "shadow", &SHADOW.replace("pi:$6$secret", "pi:$6$another"));
    assert_eq!(changes(&running.snapshot().await), [("pi", "Password")]);
    write(machine.path(), "home/pi/.ssh/authorized_keys", KEY);
    assert_eq!(changes(&running.snapshot().await), [("pi", "Keys")]);
    write(machine.path(), "home/pi/.ssh/authorized_keys", "");
    assert_eq!(changes(&running.snapshot().await), [("pi", "Keys")]);
    write(machine.path(), "etc/sudoers.d/x", "guest ALL=ALL");
    write(machine.path(), "etc/sudoers", "@includedir /etc/sudoers.d");
    assert_eq!(changes(&running.snapshot().await), [("guest", "Privileged")]);
    replace(
        machine.path(),
        "passwd",
        &PASSWD.replace("/home/pi:/bin/bash", "/home/pi:/bin/zsh").replace("toor:x:0", "toor:x:7"),
    );
    running.diagnostic().await;
    assert_eq!(changes(&running.snapshot().await), [("pi", "Shell"), ("toor", "UserId;Privileged")]);
}

/// The cursor of a snapshot and the file together say what was reported; a crash between the two must cost nothing and
/// tell nothing twice.
#[tokio::test]
async fn a_change_while_the_agent_did_not_run_is_told_at_its_start_and_once() {
    let (machine, state) = (machine(), tempfile::tempdir().unwrap());
    let root = || Root::at(machine.path());
    async fn told(agent: &mut Agent) -> (Vec<String>, String) {
        let mut vanished = Vec::new();
        loop {
            match agent.next().await {
                Draft { payload: Some(Payload::LocalUsers(rows)), cursor, .. } => {
                    let changes =
                        changes(&rows).iter().map(|(name, change)| format!("{name} {change}")).collect::<Vec<_>>();
                    return ([vanished, changes].concat(), cursor.map_or(String::new(), |cursor| cursor.place));
                }
                Draft { payload: Some(Payload::Diagnostic(alarm)), .. } => {
                    vanished.push(alarm.extra_details.get("VanishedUsers").cloned().unwrap_or(alarm.message));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let run = |place: &str| {
        let cursors = BTreeMap::from([(CURSOR.to_owned(), place.to_owned())]);
        start_again(root(), true, Some(state.path()), if place.is_empty() { BTreeMap::new() } else { cursors })
    };
    let (changes, first) = told(&mut run("")).await;
    assert_eq!(changes, Vec::<String>::new());
    let stored = fs::read_to_string(state.path().join("users.json")).unwrap();
    assert!(!stored.contains("secret$") && stored.contains("toor"), "{stored}");
    assert_eq!(fs::metadata(state.path().join("users.json")).unwrap().permissions().mode() & 0o777, 0o600);
    replace(machine.path(), "passwd", &PASSWD.replace("toor:", "mallory:"));
    replace(machine.path(), "shadow", &SHADOW.replace("pi:$6$secret", "pi:$6$another"));
    let expected = vec!["toor".to_owned(), "pi Password".to_owned(), "mallory Added".to_owned()];
    let (changes, second) = told(&mut run(&first)).await;
    assert_eq!(changes, expected);
    let (changes, again) = told(&mut run(&first)).await;
    assert_eq!(changes, expected, "the snapshot never reached the disk");
    assert_ne!((&again, &first), (&second, &second));
    assert_eq!(told(&mut run(&again)).await.0, Vec::<String>::new());
    fs::write(state.path().join("users.json"), "{").unwrap();
    let (changes, _) = told(&mut run(&again)).await;
    assert!(changes.len() == 1 && changes[0].contains("users.json"), "{changes:?}");
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
    assert_eq!(remark.extra_details["Faults"], "3", "{}", remark.message);
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

#[tokio::test]
async fn a_link_is_watched_where_it_leads() {
    let machine = machine();
    let etc = machine.path().join("etc");
    fs::rename(etc.join("passwd"), machine.path().join("passwd")).unwrap();
    symlink("../passwd", etc.join("passwd")).unwrap();
    let mut agent = start(Root::at(machine.path()), false);
    assert_eq!(agent.snapshot().await.len(), 4);
    assert!(matches!(agent.state.get(), State::Running { gap: None, .. }), "{:?}", agent.state.get());
    fs::write(machine.path().join("passwd"), PASSWD.replace("toor:", "mallory:")).unwrap();
    agent.diagnostic().await;
    assert_eq!(changes(&agent.snapshot().await), [("mallory", "Added")]);
}

#[test]
fn many_changes_in_a_row_are_told_and_endless_ones_slower() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    for _ in 0..CHANGES_AT_ONCE {
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.take(start);
    }
    assert_eq!(pace.wait(start), CHANGE_EVERY);
    pace.take(start + CHANGE_EVERY);
    assert_eq!(pace.wait(start + CHANGE_EVERY), CHANGE_EVERY);
    pace.take(start + CHANGE_EVERY * 50);
    assert_eq!(pace.wait(start + CHANGE_EVERY * 50), Duration::ZERO);
}

/// A file system whose server never answers, as of a file server that is gone. Its own process holds it, and with that
/// process it goes.
struct Silent {
    server: std::process::Child,
    at: std::path::PathBuf,
}

impl Silent {
    /// `None`, and why, where there can be none.
    fn at(path: &Path) -> Option<Silent> {
        fs::create_dir_all(path).unwrap();
        let script = r#"exec 3<>/dev/fuse
            mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other users-test "$0"
            echo ready; exec cat >/dev/null"#;
        let mut server = Command::new("sh")
            .args(["-euc", script])
            .arg(path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = server.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let silent = Silent { server, at: path.to_owned() };
        if line.is_empty() {
            eprintln!("not run: no file system of /dev/fuse can be mounted here");
            return None;
        }
        Some(silent)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        Command::new("umount").arg("-l").arg(&self.at).stderr(std::process::Stdio::null()).status().ok();
    }
}

#[test]
fn a_home_on_a_server_that_is_gone_costs_its_own_keys_only() {
    let machine = machine();
    let Some(silent) = Silent::at(&machine.path().join("home/pi")) else { return };
    write(machine.path(), "home/guest/.ssh/authorized_keys", KEY);
    let (memory, _) = Memory::load(None, None);
    let root = Root::at(machine.path());
    let task = Task { root, secret: memory.secret(), today: None, services: None, stuck: Default::default() };
    let look = || scan::look_blocking(&task).unwrap_or_else(|failure| panic!("{failure}"));
    let scan = look();
    assert_eq!(scan.accounts.len(), 4);
    assert_eq!(scan.accounts[3].row.extra_details["AuthorizedKeys"], "1");
    assert_eq!(scan.accounts[1].facts.keys, None);
    assert!(scan.gaps.iter().any(|gap| gap.contains("at home in /home/pi are unknown")), "{:?}", scan.gaps);
    drop(silent);
    write(machine.path(), "home/pi/.ssh/authorized_keys", KEY);
    // The thread that was stuck has to notice it first.
    let is_back = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        look().accounts[1].row.extra_details.contains_key("AuthorizedKeys")
    });
    assert!(is_back);
}
