//! From what is known about a process to the event that says it executed.
//!
//! What could not be read is written as `(unknown)`, which is no path, no command and no uid, and named in
//! `ExtraDetails.Incomplete`: the number of the process alone is still evidence that something ran. What is taken for a
//! secret in the arguments goes no further than here.

use collector_common::event::payload::{ExtraDetails, ProcessCreate};
use collector_common::parse::cmdline::{ArgumentArea, Text, to_text};
use collector_common::redact::Redaction;
use ring::digest;

use super::image::Image;

/// Stands for what was gone before it could be read, or was not ours to read.
pub const UNKNOWN: &str = "(unknown)";

/// There when `Executable` is not what ran as far as is known, but what was asked for.
pub const EXECUTABLE_SOURCE: &str = "ExecutableSource";

/// Together with three paths, the names of the keys and the envelope this stays below 8,192 bytes.
const MAX_COMMAND_LINE_BYTES: usize = 4096;

/// A path may have 4,095 bytes and each may need six in JSON; an honest one is far below.
const MAX_PATH_BYTES: usize = 1024;

/// The kernel keeps this many bytes of a program's name, `TASK_COMM_LEN` without its NUL.
const NAME_BYTES: usize = 15;

/// Describes the exec of a process.
pub fn process_create(pid: i32, image: &Image, redaction: &Redaction) -> ProcessCreate {
    let mut facts = Facts::default();
    let executable = facts.path("Executable", image.executable.as_deref());
    let command_line = facts.command_line(image.arguments.as_ref(), redaction);
    let user_id = facts.require("UserId", image.uids.map(|uids| uids.real.to_string()));
    let parent = facts.require("ParentProcessId", image.stat.as_ref().map(|stat| stat.parent_pid.to_string()));
    facts.add_identity(image);
    facts.add_origin(image);
    ProcessCreate {
        executable,
        command_line,
        user_id,
        process_id: i64::from(pid),
        parent_process_id: parent.parse().unwrap_or(0),
        extra_details: facts.finish(),
    }
}

/// Describes a process that already ran when the agent looked. Its number and its start are the same however often
/// the agent starts, so that a second look at it can be recognised.
pub fn snapshot(pid: i32, image: &Image, redaction: &Redaction) -> ProcessCreate {
    let mut event = process_create(pid, image, redaction);
    event.extra_details.insert("Snapshot", "true".to_owned());
    if let Some(stat) = &image.stat {
        event.extra_details.insert("StartBoottimeMs", stat.start_ticks.saturating_mul(10).to_string());
    }
    event
}

/// The script a process runs, if the kernel itself found the interpreter (`fs/binfmt_script.c`).
///
/// For a script the kernel makes the arguments interpreter, at most one option, script, and names the process after
/// the script. A process that is called after an argument of its own, and not after its program, is one; the file is
/// not looked at, because it may lie where looking never ends.
pub fn script(image: &Image) -> Option<Vec<u8>> {
    from_the_root(script_as_named(image)?, image)
}

/// The same as the arguments name it, which may be from the directory the process is in.
pub fn script_as_named(image: &Image) -> Option<&[u8]> {
    if let Some(script) = &image.script {
        return Some(script);
    }
    let name = image.stat.as_ref()?.name.as_slice();
    let called = |path: &[u8]| {
        let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        !base.is_empty() && &base[..base.len().min(NAME_BYTES)] == name
    };
    if called(image.executable.as_ref()?) {
        return None;
    }
    let arguments = image.arguments.as_ref()?.arguments();
    let (interpreter, rest) = arguments.split_first()?;
    if !interpreter.starts_with(b"/") || called(interpreter) {
        return None;
    }
    rest.iter().take(2).copied().find(|argument| called(argument))
}

fn from_the_root(script: &[u8], image: &Image) -> Option<Vec<u8>> {
    if script.starts_with(b"/") {
        return Some(script.to_vec());
    }
    let below = script.strip_prefix(b"./").unwrap_or(script);
    Some([image.directory.as_deref()?, below].join(&b'/'))
}

/// The free part of the event while it is made.
#[derive(Default)]
struct Facts {
    details: ExtraDetails,
    missing: Vec<&'static str>,
    undecodable: bool,
}

impl Facts {
    fn require(&mut self, field: &'static str, value: Option<String>) -> String {
        value.unwrap_or_else(|| {
            self.missing.push(field);
            UNKNOWN.to_owned()
        })
    }

    fn text(&mut self, text: Text) -> String {
        self.undecodable |= text.undecodable;
        text.text
    }

    fn path(&mut self, field: &'static str, bytes: Option<&[u8]>) -> String {
        let text = bytes.map(|bytes| self.text(to_text(bytes, MAX_PATH_BYTES)));
        self.require(field, text)
    }

    fn command_line(&mut self, area: Option<&ArgumentArea>, redaction: &Redaction) -> String {
        let text = area.map(|area| {
            let (shown, marks) = redaction.apply(area);
            if marks > 0 {
                self.details.insert("Redacted", marks.to_string());
            }
            let text = shown.to_command_line(MAX_COMMAND_LINE_BYTES);
            if text.cut {
                self.details.insert("Truncated", area.total_bytes().to_string());
                self.details.insert("KeptSha256", sha256(&[&shown.head, &shown.tail]));
            }
            self.text(text)
        });
        self.require("CommandLine", text)
    }

    fn add(&mut self, key: &'static str, bytes: &[u8]) {
        let text = self.text(to_text(bytes, MAX_PATH_BYTES));
        self.details.insert(key, text);
    }

    fn flag(&mut self, key: &'static str, is_so: bool) {
        if is_so {
            self.details.insert(key, "true".to_owned());
        }
    }

    fn add_identity(&mut self, image: &Image) {
        if let Some(uids) = image.uids.filter(|uids| uids.effective != uids.real) {
            self.details.insert("EffectiveUserId", uids.effective.to_string());
        }
        if let Some(uid) = image.login_uid {
            self.details.insert("LoginUserId", uid.to_string());
        }
        for (key, number) in [("PidNamespace", image.pid_namespace), ("NetworkNamespace", image.net_namespace)] {
            if let Some(number) = number {
                self.details.insert(key, number.to_string());
            }
        }
        if let Some(id) = &image.container {
            self.details.insert("ContainerId", id.clone());
        }
    }

    fn add_origin(&mut self, image: &Image) {
        let parent = image.stat.as_ref().map(|stat| stat.parent_pid.unsigned_abs());
        self.flag("AgentChild", parent == Some(std::process::id()));
        if let Some(path) = &image.parent_executable {
            self.add("ParentExecutable", path);
        }
        if let Some(path) = script(image) {
            self.add("Script", &path);
        }
        // What ended leaves its name behind for a while, and it is better than nothing.
        if let Some(stat) = image.stat.as_ref().filter(|_| !self.missing.is_empty()) {
            self.add("ProcessName", &stat.name);
        }
        if image.is_only_asked_for {
            self.details.insert(EXECUTABLE_SOURCE, "request".to_owned());
        }
        self.flag("Deleted", image.deleted);
        self.flag("ImageChanged", image.changed);
    }

    fn finish(mut self) -> ExtraDetails {
        let undecodable = self.undecodable;
        self.flag("Undecodable", undecodable);
        if !self.missing.is_empty() {
            self.details.insert("Incomplete", self.missing.join(";"));
        }
        self.details
    }
}

fn sha256(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::event::kind::Kind;
    use collector_common::event::payload::Payload;
    use collector_common::event::wire::{Event, Stamps};
    use collector_common::parse::proc_pid::{Stat, Uids};

    fn stat(name: &str) -> Stat {
        let text = format!("9 ({name}) S 8 9 9 0 -1 0 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 2\n");
        Stat::parse(text.as_bytes()).unwrap()
    }

    fn image(executable: &str, name: &str, arguments: &[&str]) -> Image {
        Image {
            executable: Some(executable.into()),
            arguments: Some(ArgumentArea::whole(
                arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect::<Vec<_>>(),
            )),
            stat: Some(stat(name)),
            uids: Some(Uids { real: 1000, effective: 1000 }),
            directory: Some(b"/home/u".to_vec()),
            ..Image::default()
        }
    }

    #[test]
    fn an_exec_is_written_as_the_schema_wants_it() {
        let mut image = image("/usr/bin/su", "su", &["su", "-c", "id -u"]);
        image.uids = Some(Uids { real: 1000, effective: 0 });
        image.login_uid = Some(1000);
        image.parent_executable = Some(b"/usr/bin/bash".to_vec());
        let items = Payload::ProcessCreate(process_create(9, &image, &Redaction::default())).to_items().unwrap();
        assert_eq!(
            items[0],
            r#"{"Executable":"/usr/bin/su","CommandLine":"su -c 'id -u'","UserId":"1000","ProcessId":9,"ParentProcessId":8,"ExtraDetails":{"EffectiveUserId":"0","LoginUserId":"1000","ParentExecutable":"/usr/bin/bash"}}"#
        );
    }

    #[test]
    fn what_is_gone_is_said_and_never_guessed() {
        let event = process_create(9, &Image::default(), &Redaction::default());
        assert_eq!((event.executable.as_str(), event.command_line.as_str()), (UNKNOWN, UNKNOWN));
        assert_eq!((event.user_id.as_str(), event.process_id, event.parent_process_id), (UNKNOWN, 9, 0));
        assert_eq!(event.extra_details["Incomplete"], "Executable;CommandLine;UserId;ParentProcessId");

        let zombie = Image { executable: None, arguments: None, ..image("/bin/true", "true", &[]) };
        let event = process_create(9, &zombie, &Redaction::default());
        assert_eq!((event.user_id.as_str(), event.parent_process_id), ("1000", 8));
        assert_eq!(event.extra_details["Incomplete"], "Executable;CommandLine");
        assert_eq!(event.extra_details["ProcessName"], "true");
    }

    #[test]
    fn a_path_that_was_only_asked_for_is_said_to_be() {
        let asked = Image { is_only_asked_for: true, ..image("./x", "x", &["x"]) };
        let event = process_create(9, &asked, &Redaction::default());
        assert_eq!((event.executable.as_str(), event.extra_details["ExecutableSource"].as_str()), ("./x", "request"));
    }

    #[test]
    fn a_script_is_named_only_when_the_kernel_named_the_process_after_it() {
        let cases: [(&str, &str, &[&str], Option<&str>); 10] = [
            ("/usr/bin/dash", "x.sh", &["/bin/sh", "/opt/x.sh", "a"], Some("/opt/x.sh")),
            ("/usr/bin/dash", "x.sh", &["/bin/sh", "./x.sh"], Some("/home/u/x.sh")),
            ("/usr/bin/dash", "x.sh", &["/bin/sh", "-e", "x.sh"], Some("/home/u/x.sh")),
            (
                "/usr/bin/python3",
                "a_script_with_a",
                &["/usr/bin/python3", "/a_script_with_a_name"],
                Some("/a_script_with_a_name"),
            ),
            ("/usr/bin/dash", "sh", &["sh", "/opt/x.sh"], None),
            ("/usr/bin/dash", "sh", &["/bin/sh", "/opt/sh"], None),
            ("/opt/x", "x", &["/bin/sh", "x"], None),
            ("/usr/bin/dash", "other", &["/bin/sh", "/opt/x.sh"], None),
            ("/usr/bin/dash", "c", &["/bin/sh", "a", "b", "c"], None),
            ("/usr/bin/dash", "", &["/bin/sh", ""], None),
        ];
        for (executable, name, arguments, expected) in cases {
            let found = script(&image(executable, name, arguments));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{executable} {name} {arguments:?}");
        }
    }

    #[test]
    fn a_secret_is_not_in_the_event_and_its_place_is() {
        let image = image("/usr/bin/mysql", "mysql", &["mysql", "-pS3CRET", "--token", "S3CRET", "shop"]);
        let event = process_create(9, &image, &Redaction::default());
        assert_eq!(event.command_line, "mysql -p%REDACTED% --token %REDACTED% shop");
        assert_eq!(event.extra_details["Redacted"], "2");
        let event = process_create(9, &image, &Redaction::new(false, &[]).unwrap());
        assert_eq!(event.command_line, "mysql -pS3CRET --token S3CRET shop");
        assert!(!event.extra_details.contains_key("Redacted"));
    }

    #[test]
    fn a_child_of_the_agent_is_marked_and_not_hidden() {
        let text = format!("9 (x) S {} 9 9 0 -1 0 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 2\n", std::process::id());
        let child = Image { stat: Stat::parse(text.as_bytes()), ..image("/usr/bin/journalctl", "journalctl", &["x"]) };
        let of = |image| process_create(9, image, &Redaction::default()).extra_details;
        assert_eq!(of(&child)["AgentChild"], "true");
        assert!(!of(&image("/usr/bin/journalctl", "journalctl", &["x"])).contains_key("AgentChild"));
    }

    #[test]
    fn a_snapshot_names_the_start() {
        let details = snapshot(9, &image("/sbin/init", "init", &["/sbin/init"]), &Redaction::default()).extra_details;
        assert_eq!((details["Snapshot"].as_str(), details["StartBoottimeMs"].as_str()), ("true", "987650"));
    }

    #[test]
    fn the_worst_process_fits_into_one_small_message() {
        let dirty = vec![1; 4000];
        let script = [b"/".to_vec(), dirty.clone(), b"/x".to_vec()].concat();
        let mut area = b"/bin/sh\0".to_vec();
        area.extend(&script);
        area.extend(vec![1; 100_000]);
        let worst = Image {
            executable: Some(dirty.clone()),
            is_only_asked_for: false,
            deleted: true,
            arguments: Some(ArgumentArea { head: area, unread_bytes: u64::MAX / 2, tail: dirty.clone() }),
            uids: Some(Uids { real: u32::MAX, effective: u32::MAX - 1 }),
            login_uid: Some(u32::MAX - 2),
            container: Some("f".repeat(64)),
            parent_executable: Some(dirty.clone()),
            script: None,
            directory: Some(dirty),
            pid_namespace: Some(u32::MAX),
            net_namespace: Some(u32::MAX),
            changed: true,
            stat: Some(stat("\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}")),
        };
        let mut event = snapshot(i32::MAX, &worst, &Redaction::default());
        event.extra_details.insert("Script", "x".repeat(MAX_PATH_BYTES));
        event.extra_details.insert("Undecodable", "true".to_owned());
        event.extra_details.insert("Incomplete", "Executable;CommandLine;UserId;ParentProcessId".to_owned());
        let items = Payload::ProcessCreate(event).to_items().unwrap();
        let stamps = Stamps::new(0, 0);
        let event = Event { id: uuid::Uuid::nil(), kind: Kind::ProcessCreate, stamps: &stamps, items: &items };
        let bytes = event.to_envelope().len();
        assert!(bytes < 8192 - 200, "{bytes} bytes leave no room for the message around them");
    }
}
