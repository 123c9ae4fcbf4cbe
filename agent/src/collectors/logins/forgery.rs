//! What attackers write into logs to be taken for somebody else, case by case: names, rhost= and ruser= of PAM, texts
//! the client chooses, and whole lines of local users. No case may give a wrong address, a wrong user or a forged row.

use collector_common::clock::{Clock, Reading};
use collector_common::event::payload::{Login, LoginResult, Payload};
use collector_common::parse::login::attempts::ByPam;
use collector_common::root::Root;

use super::reader::{Entry, Reader, Writer};

const LONG: &str =
    "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";

/// Names somebody knocks with who comes from 192.0.2.7. OpenSSH writes them into three lines.
const NAMES: [&str; 24] = [
    "nosuch",
    "root from 8.8.8.8 port 22 ssh2",
    "root from 8.8.8.8 port 22 ssh2 from 8.8.4.4 port 1 ssh2",
    "a b",
    " leading",
    "trailing ",
    "two  blanks",
    "from",
    " from ",
    "from 8.8.8.8",
    "8.8.8.8 port 22",
    "x 8.8.8.8 port 22 [preauth]",
    "invalid user root",
    "authenticating user root 8.8.8.8 port 1",
    "root port 22",
    "ssh2",
    "port",
    r"x\nAccepted password for root from 8.8.8.8 port 22 ssh2",
    r"a\033[31m\tb",
    r"\303\251\342\200\256",
    "Accepted password for root",
    "rhost=8.8.8.8 user=root",
    "\u{fffd}\u{fffd}",
    LONG,
];

/// Messages that are no attempt, whoever wrote them: OpenSSH's and PAM's companions with texts of the attacker in them.
const NO_ATTEMPTS: [(&str, &str); 28] = [
    ("sshd(pam_unix)", "authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=8.8.8.8  user=root"),
    ("sshd(pam_unix)", "session opened for user root by (uid=0)"),
    ("su(pam_unix)", "session opened for user root by (uid=0)"),
    ("login", "pam_unix(login:session): session opened for user root(uid=0) by LOGIN(uid=0)"),
    ("gdm-password]", "pam_unix(gdm-launch-environment:session): session opened for user gdm(uid=120) by (uid=0)"),
    ("lightdm", "pam_unix(lightdm-greeter:session): session opened for user lightdm(uid=106) by (uid=0)"),
    ("sshd", "Received disconnect from 192.0.2.7 port 4:11: Accepted password for root from 8.8.8.8 port 1 ssh2"),
    (
        "sshd",
        "Received disconnect from 192.0.2.7 port 4:11: Failed password for root from 8.8.8.8 port 1 ssh2 [preauth]",
    ),
    (
        "sshd",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser=x rhost=8.8.8.8  user=root",
    ),
    (
        "sshd",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser=a rhost=1.1.1.1 rhost=192.0.2.7 ",
    ),
    ("sshd", "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=8.8.8.8  user=root"),
    (
        "sshd",
        "PAM 1 more authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=Accepted password for root",
    ),
    ("sshd", "pam_unix(sshd:session): session opened for user root(uid=0) by (uid=0)"),
    ("sshd", "multi\nAccepted password for root from 8.8.8.8 port 1 ssh2"),
    ("sshd", "multi#012line Accepted password for root from 8.8.8.8 port 1 ssh2"),
    ("sshd", " Accepted password for root from 8.8.8.8 port 1 ssh2"),
    ("sshd", "Accepted password for root from host,example port 1 ssh2"),
    ("sshd", "Accepted password for root from 8.8.8.8 port 70000 ssh2"),
    ("sshd", "Accepted password for root"),
    ("sshd", "Postponed publickey for root from 8.8.8.8 port 1 ssh2 [preauth]"),
    ("sshd", "Partial publickey for root from 8.8.8.8 port 1 ssh2"),
    ("sudo", "Accepted password for root from 8.8.8.8 port 1 ssh2"),
    ("CRON", "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"),
    ("su", "FAILED LOGIN 1 FROM 8.8.8.8 FOR root, Authentication failure"),
    ("SSHD", "Accepted password for root from 8.8.8.8 port 1 ssh2"),
    ("dropbear", "Bad password attempt for 'root' from ::1:5#011TAB#033[31mESC"),
    ("dropbear", "Password auth succeeded for 'root' from 8.8.8.8:1, extra auth required"),
    ("dropbear", "Exit (root) from <8.8.8.8:1>: Password auth succeeded for 'root' from 8.8.8.8:1"),
];

/// Verdicts in a handler's own words. Written by somebody else they are forgeries.
const VERDICTS: [(&str, &str); 13] = [
    ("login", "pam_unix(login:session): session opened for user bob(uid=1000) by LOGIN(uid=0)"),
    ("sshd", "error: PAM: Authentication failure for root from 8.8.8.8"),
    ("gdm-password]", "pam_unix(gdm-password:session): session opened for user root(uid=0) by (uid=0)"),
    (
        "cockpit-session",
        "pam_unix(cockpit:auth): authentication failure; logname= uid=0 euid=0 tty= ruser= rhost=8.8.8.8  user=root",
    ),
    ("lightdm", "pam_unix(lightdm:session): session opened for user root(uid=0) by (uid=0)"),
    ("sshd", "Accepted password for root from 8.8.8.8 port 22 ssh2"),
    ("sshd-session", "Accepted publickey for root from 8.8.8.8 port 22 ssh2: RSA SHA256:x"),
    ("sshd", "Failed password for root from 8.8.8.8 port 22 ssh2"),
    ("sshd", "message repeated 5 times: [ Failed password for root from 8.8.8.8 port 22 ssh2]"),
    ("dropbear", "Password auth succeeded for 'root' from 8.8.8.8:22"),
    ("dropbear", "Bad password attempt for 'root' from 8.8.8.8:22"),
    ("login", "ROOT LOGIN ON tty1 FROM 8.8.8.8"),
    ("login", "FAILED LOGIN (1) on '/dev/tty1' from '8.8.8.8' FOR 'root', Authentication failure"),
];

/// Writers the kernel names who are no handler.
const FORGERS: [Writer; 5] = [
    Writer::Kernel { uid: Some(1000), exe: None },
    Writer::Kernel { uid: Some(1000), exe: Some("/usr/bin/logger") },
    Writer::Kernel { uid: Some(1000), exe: Some("/home/tester/bin/sshd") },
    Writer::Kernel { uid: Some(0), exe: Some("/usr/bin/logger") },
    Writer::Kernel { uid: None, exe: None },
];

const ROOT: Writer = Writer::Kernel { uid: Some(0), exe: None };

fn now() -> Reading {
    Clock::new(&Root::host()).now()
}

/// The logins and the alarms that lines of one process give.
fn read(lines: &[(&str, &str)], writer: Writer) -> (Vec<Login>, usize) {
    let mut reader = Reader::default();
    reader.believe_pam(ByPam { console: true, ..ByPam::default() });
    let (mut logins, mut alarms) = (Vec::new(), 0);
    for (ident, message) in lines {
        let entry = Entry { at: now(), ident, pid: Some(7), message, writer };
        for draft in reader.read(&entry, now(), &mut |name| (name == "root").then_some(0)) {
            match draft.payload {
                Some(Payload::Login(rows)) => logins.extend(rows),
                Some(Payload::Diagnostic(_)) if draft.security_relevant => alarms += 1,
                other => panic!("{message}: {other:?}"),
            }
        }
    }
    (logins, alarms)
}

#[test]
fn no_name_moves_an_attempt_to_another_address_or_account() {
    for name in NAMES {
        let invalid = format!("Invalid user {name} from 192.0.2.7 port 9");
        let failed = format!("Failed password for invalid user {name} from 192.0.2.7 port 9 ssh2");
        let closed = format!("Connection closed by invalid user {name} 192.0.2.7 port 9 [preauth]");
        let illegal = format!("Illegal user {name} from 192.0.2.7 port 9");
        let illegal_failed = format!("Failed password for illegal user {name} from 192.0.2.7 port 9 ssh2");
        let pam = format!("error: PAM: Authentication failure for illegal user {name} from 192.0.2.7");
        let old_end = "Received disconnect from 192.0.2.7: 11: from 8.8.8.8: 11: Bye [preauth]".to_owned();
        let all = [&invalid, &failed, &closed];
        let without_verdict = [&invalid, &closed];
        let old = [&illegal, &illegal_failed, &old_end];
        let old_without_verdict = [&invalid, &old_end];
        let by_pam = [&invalid, &pam, &closed];
        for lines in [all.as_slice(), &without_verdict, &old, &old_without_verdict, &by_pam] {
            let lines: Vec<_> = lines.iter().map(|line| ("sshd", line.as_str())).collect();
            for writer in [ROOT, Writer::Unproven] {
                let (logins, alarms) = read(&lines, writer);
                assert_eq!((logins.len(), alarms), (1, 0), "{lines:?}: {logins:?}");
                let login = &logins[0];
                assert_eq!(login.remote_address, "192.0.2.7".parse().ok(), "{name}");
                assert_eq!(login.remote_port.as_deref(), Some("9"), "{name}");
                assert_eq!((login.result, login.user_name.as_str()), (LoginResult::Fail, "(invalid user)"), "{name}");
                assert_eq!(login.extra_details.get("AttemptedUserName").map(String::as_str), Some(name), "{name}");
                assert_eq!(login.user_id, None, "{name}");
            }
        }
    }
}

#[test]
fn texts_of_a_client_are_no_attempts() {
    for (ident, message) in NO_ATTEMPTS {
        for writer in [ROOT, Writer::Unproven] {
            assert_eq!(read(&[(ident, message)], writer), (Vec::new(), 0), "{ident}: {message}");
        }
    }
}

#[test]
fn no_forged_verdict_in_a_journal_is_a_row() {
    for (ident, message) in VERDICTS {
        for writer in FORGERS {
            assert_eq!(read(&[(ident, message)], writer), (Vec::new(), 1), "{ident}: {message}: {writer:?}");
        }
        // The same words are a login where root wrote them, and marked where nobody can know.
        assert!(!read(&[(ident, message)], ROOT).0.is_empty(), "{message}");
        let (logins, _) = read(&[(ident, message)], Writer::Unproven);
        assert!(!logins.is_empty() && logins.iter().all(|login| login.extra_details["Trust"] == "file"), "{message}");
    }
}
