//! What login daemons say: whatever somebody calls himself, the address is the daemon's own word, and nobody is let in
//! by a line that says somebody was not.
#![no_main]

use std::net::IpAddr;

use collector_common::event::payload::LoginResult;
use collector_common::parse::login::attempts::Attempts;
use collector_common::parse::login::{Handler, Peer, Remark};
use libfuzzer_sys::fuzz_target;

const HANDLERS: [Handler; 5] = [Handler::OpenSsh, Handler::Dropbear, Handler::Console, Handler::Gdm, Handler::Cockpit];

fuzz_target!(|text: &str| {
    let mut attempts = Attempts::default();
    for (number, line) in text.lines().enumerate() {
        for handler in HANDLERS {
            let ident = if number % 5 == 4 { "sshd(pam_unix)" } else { "sshd" };
            let remark = handler.read(ident, line);
            let is_verdict = matches!(remark, Remark::Verdict(_) | Remark::Refused(_) | Remark::LetIn { .. });
            let may_end = is_verdict || matches!(remark, Remark::Closed { .. });
            let judged = attempts.judge(handler, number as u32 % 3, remark);
            assert!(judged.is_none() || may_end, "an attempt out of nothing: {line:?}");
            if let Some((_, verdict)) = judged {
                assert!(is_verdict || verdict.result == LoginResult::Fail, "{line:?}");
                assert!(is_reported_form(&verdict.peer), "{line:?}: {:?}", verdict.peer);
            }
        }
    }
    // sshd escapes control characters and cuts a name at its colon; dropbear writes names of accounts only.
    let name: String = text.chars().filter(|char| !char.is_control() && *char != ':').collect();
    let account = name.replace('\'', "");
    let lines = [
        (Handler::OpenSsh, format!("Failed password for invalid user {name} from 192.0.2.7 port 4711 ssh2")),
        (Handler::OpenSsh, format!("Failed publickey for {name} from 192.0.2.7 port 4711 ssh2: RSA SHA256:x")),
        (Handler::Dropbear, format!("Bad password attempt for '{account}' from 192.0.2.7:4711")),
    ];
    for (handler, line) in lines {
        let Remark::Verdict(verdict) = handler.read("sshd", &line) else { panic!("no verdict: {line:?}") };
        assert_eq!(verdict.result, LoginResult::Fail, "{line:?}");
        let expected = (Some(IpAddr::from([192, 0, 2, 7])), Some(4711));
        assert_eq!((verdict.peer.address, verdict.peer.port), expected, "{line:?}");
    }
});

/// Mapped addresses are folded, loopback is 127.0.0.1, and nothing is no address.
fn is_reported_form(peer: &Peer) -> bool {
    let is_form = |address: IpAddr| {
        let folded = address.to_canonical() == address && !address.is_unspecified();
        folded && (!address.is_loopback() || address == IpAddr::from([127, 0, 0, 1]))
    };
    peer.address.is_none_or(is_form)
}
