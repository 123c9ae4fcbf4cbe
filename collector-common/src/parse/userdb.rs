//! User records of systemd: `*.user` files in `/etc/userdb` and the like (nss-systemd(8), <https://systemd.io/USER_RECORD>).
//!
//! ```text
//! NAME.group                 {"groupName": NAME, "gid": 4711, "members": [...]}
//! NAME.user                  {"userName": NAME, "uid": 4711, "gid": ..., "homeDirectory": ..., "shell": ...}
//! NAME.user-privileged       {"privileged": {"hashedPassword": [...], "sshAuthorizedKeys": ["ssh-ed25519 ...", ...]}}
//! USER:GROUP.membership      an empty file
//! ```

use serde::Deserialize;

use super::passwd::{Digest, Group, Password, PasswordLogin};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group; the user id where the record has none.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell; `None` leaves it to systemd.
    pub shell: Option<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Nobody gets in while it is.
    pub is_locked: bool,
}

/// The part of a record that only root may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The password; `None` when there is none.
    pub password: Option<Password>,
    /// Lines as of an `authorized_keys` file.
    pub keys: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    user_name: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    home_directory: Option<String>,
    shell: Option<String>,
    #[serde(default)]
    member_of: Vec<String>,
    #[serde(default)]
    locked: bool,
    #[serde(default)]
    privileged: Privileged,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupDocument {
    group_name: Option<String>,
    gid: Option<u32>,
    #[serde(default)]
    members: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Privileged {
    hashed_password: Vec<String>,
    ssh_authorized_keys: Vec<String>,
}

/// Reads a `.user` file. An error is what is wrong with it.
pub fn record(bytes: &[u8]) -> Result<Record, String> {
    let document = document(bytes)?;
    let name = document.user_name.filter(|name| is_name(name)).ok_or("it has no userName")?;
    let uid = document.uid.ok_or("it has no uid, so the account has none either")?;
    let home = document.home_directory.unwrap_or_else(|| format!("/home/{name}"));
    let groups = document.member_of.into_iter().filter(|group| is_name(group)).collect();
    let gid = document.gid.unwrap_or(uid);
    Ok(Record { name, uid, gid, home, shell: document.shell, groups, is_locked: document.locked })
}

/// Reads a `.group` file. An error is what is wrong with it.
pub fn group(bytes: &[u8]) -> Result<Group, String> {
    let document: GroupDocument =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no group record: {error}"))?;
    let name = document.group_name.filter(|name| is_name(name)).ok_or("it has no groupName")?;
    let gid = document.gid.ok_or("it has no gid")?;
    Ok(Group { name, gid, members: document.members.into_iter().filter(|member| is_name(member)).collect() })
}

/// Reads the part that is secret, from a `.user` or a `.user-privileged` file.
pub fn secrets(bytes: &[u8], digest: Digest) -> Result<Secrets, String> {
    let privileged = document(bytes)?.privileged;
    let password = privileged.hashed_password.iter().map(|hash| Password::of(hash, digest));
    // Any of several passwords lets somebody in.
    let password = password.reduce(|one, other| Password {
        login: if one.login == PasswordLogin::No { other.login } else { one.login },
        digest: one.digest + &other.digest,
    });
    Ok(Secrets { password, keys: privileged.ssh_authorized_keys.join("\n") })
}

fn document(bytes: &[u8]) -> Result<Document, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is no user record: {error}"))
}

/// User and group of the name of a `.membership` file.
pub fn membership(file_name: &str) -> Option<(&str, &str)> {
    let (user, group) = file_name.strip_suffix(".membership")?.split_once(':')?;
    (is_name(user) && is_name(group)).then_some((user, group))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([':', '/', '\n', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_memberships() {
        let text = br#"{"userName":"ops","uid":4711,"memberOf":["docker",":"],"locked":true,"disposition":"regular",
            "privileged":{"hashedPassword":["!","$y$a$b"],"sshAuthorizedKeys":["ssh-ed25519 a","b"]}}"#;
        let ops = record(text).unwrap();
        assert_eq!((ops.uid, ops.gid, ops.home.as_str(), ops.shell), (4711, 4711, "/home/ops", None));
        assert_eq!((ops.groups, ops.is_locked), (vec!["docker".to_owned()], true));
        let secrets = secrets(text, &|hash| hash.len().to_string()).unwrap();
        assert_eq!(secrets.keys, "ssh-ed25519 a\nb");
        assert_eq!(secrets.password, Some(Password { login: PasswordLogin::Yes, digest: "16".to_owned() }));
        for bad in ["", "[]", "{}", r#"{"userName":"a:b","uid":1}"#, r#"{"userName":"a","uid":-1}"#] {
            assert!(record(bad.as_bytes()).is_err(), "{bad}");
        }
        let docker = group(br#"{"groupName":"docker","gid":999,"members":["pi"]}"#).unwrap();
        assert_eq!((docker.name.as_str(), docker.gid, docker.members.len()), ("docker", 999, 1));
        assert!(group(b"{}").is_err());
        assert_eq!(membership("ops:docker.membership"), Some(("ops", "docker")));
        assert_eq!(
            (membership("ops.user"), membership(":x.membership"), membership("a:b:c.membership")),
            (None, None, None)
        );
    }
}
