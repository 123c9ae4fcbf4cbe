//! Accounts that only a directory service knows, asked of `getent(1)`: only where `usersFromNss` says so, because a
//! service may be far away, slow, or know a million people.

use std::process::Stdio;
use std::time::Duration;

use collector_common::parse::passwd::{Group, User, groups, users};
use collector_common::root::Root;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::files::read;

const PROGRAM: &str = "getent";
const PATIENCE: Duration = Duration::from_secs(20);
const ANSWER_BYTES: u64 = 4 << 20;
const NSSWITCH: &str = "/etc/nsswitch.conf";
/// What has its accounts in files that are read anyway.
const LOCAL: [&str; 4] = ["files", "compat", "systemd", "altfiles"];

/// What services answered when they were asked last.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) users: Vec<User>,
    pub(super) groups: Vec<Group>,
}

/// What `getent` says. An error is why the answer from before goes on to hold.
pub(super) async fn ask(root: &Root) -> Result<Answer, String> {
    if !root.is_host() {
        return Ok(Answer::default());
    }
    let (passwd, group) = (getent(PROGRAM, "passwd", PATIENCE).await?, getent(PROGRAM, "group", PATIENCE).await?);
    Ok(Answer { users: users(&passwd, &|_| String::new()).entries, groups: groups(&group).entries })
}

async fn getent(program: &str, database: &str, patience: Duration) -> Result<Vec<u8>, String> {
    let failed =
        |why: String| format!("accounts of directory services are as they were, because getent {database} {why}");
    let mut child = Command::new(program)
        .arg(database)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("could not be started: {error}")))?;
    let out = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    let answer = async {
        let mut bytes = Vec::new();
        let count = out.take(ANSWER_BYTES).read_to_end(&mut bytes).await;
        count.map_err(|error| failed(format!("could not be read: {error}")))?;
        if bytes.len() as u64 == ANSWER_BYTES {
            return Err(failed(format!("says more than {ANSWER_BYTES} bytes")));
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(bytes),
            Ok(status) => Err(failed(format!("ended with {status}"))),
            Err(error) => Err(failed(format!("was lost: {error}"))),
        }
    };
    timeout(patience, answer)
        .await
        .unwrap_or_else(|_| Err(failed(format!("did not answer within {} s", patience.as_secs()))))
}

/// Directory services that `nsswitch.conf(5)` names for accounts: whoever they know can log in and is not in a file.
pub(super) fn unasked(root: &Root) -> Option<String> {
    let text = read(&root.path(NSSWITCH), 1 << 20).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("passwd:"))?;
    let services = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let services: Vec<_> =
        services.filter(|service| !LOCAL.contains(service) && !service.contains(['[', ']', '='])).collect();
    let names = services.join(", ");
    (!services.is_empty()).then(|| {
        format!(
            "accounts that only {names} ({NSSWITCH}) knows are not listed; usersFromNss in the local file asks for them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_real_getent_answers_and_one_that_hangs_floods_or_fails_is_bounded() {
        assert!(ask(&Root::host()).await.unwrap().users.iter().any(|user| user.name == "root"));
        for (program, argument, patience, why) in [
            ("sleep", "600", Duration::from_millis(1), "did not answer within 0 s"),
            ("yes", "u:x:1:1::/:/bin/sh", PATIENCE, "says more than 4194304 bytes"),
            ("false", "passwd", PATIENCE, "ended with exit status: 1"),
            ("/nowhere/getent", "passwd", PATIENCE, "could not be started"),
        ] {
            let error = getent(program, argument, patience).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
