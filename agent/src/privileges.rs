//! What the process may do: laid down once, before the runtime starts the first thread.
//!
//! | of the process | afterwards |
//! | --- | --- |
//! | user | the one that was asked for, when it was started as root with `--user` |
//! | permitted, effective | what it was given of what its collectors can use; with `--user`, of what they need |
//! | inheritable, ambient | `CAP_DAC_READ_SEARCH` with Login, by which `journalctl` reads the journal; else nothing |
//! | bounding | the same as permitted, where it may be changed |
//! | no new privileges | set: no program it runs gains any |
//! | dumpable | not: its memory, secrets of the connection included, is in no core file and open to root only |
//!
//! No Landlock: a process with any ruleset of it, even one that forbids nothing but writing, can no longer follow
//! `/proc/PID/exe`, `fd` and `ns` of others, which is what ListeningPorts and ProcessCreate do.

use collector_common::collector::ProcessBackend;
use collector_common::event::kind::Kind;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{User, geteuid, initgroups, setgid, setuid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};
use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::status::PrivilegeFacts;

/// Beyond this number no kernel has a capability: the set is 64 bits.
const CAPABILITIES: u32 = 64;

/// What the process is left with.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// The user's name, or its number where it has none.
    pub user: String,
    /// What it can do beyond that user.
    pub kept: CapabilitySet,
    /// What it was given and gave back.
    pub dropped: CapabilitySet,
    /// What could not be laid down, a sentence each. The agent goes on: it sees, and could do more than it has to.
    pub troubles: Vec<String>,
}

/// What a kind's collector needs. `systemd/edgewarden.service` says what each is for. `backend`: what tells of execs.
pub fn needed_for(kind: Kind, backend: ProcessBackend) -> CapabilitySet {
    let bpf = match backend {
        ProcessBackend::Auto | ProcessBackend::Bpf | ProcessBackend::BpfNoBtf => {
            CapabilitySet::BPF | CapabilitySet::PERFMON
        }
        ProcessBackend::Audit | ProcessBackend::Connector | ProcessBackend::Poll => CapabilitySet::empty(),
    };
    let connector = match backend {
        ProcessBackend::Auto | ProcessBackend::Connector => CapabilitySet::NET_ADMIN | CapabilitySet::SYS_NICE,
        _ => CapabilitySet::empty(),
    };
    // Not with `auto`, which has others: whoever names this one has decided that the agent may use audit.
    let audit = match backend {
        ProcessBackend::Audit => CapabilitySet::AUDIT_CONTROL | CapabilitySet::AUDIT_READ,
        _ => CapabilitySet::empty(),
    };
    match kind {
        Kind::LocalUsers | Kind::Login => CapabilitySet::DAC_READ_SEARCH,
        Kind::ListeningPorts => CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH | bpf,
        Kind::ProcessCreate => CapabilitySet::SYS_PTRACE | bpf | connector | audit,
        _ => CapabilitySet::empty(),
    }
}

/// What a kind's collector can make use of, and the unit does not give: whoever does, has decided so.
fn of_use_for(kind: Kind) -> CapabilitySet {
    match kind {
        Kind::ListeningPorts => CapabilitySet::SYS_ADMIN,
        Kind::ProcessCreate => CapabilitySet::AUDIT_CONTROL | CapabilitySet::AUDIT_READ,
        _ => CapabilitySet::empty(),
    }
}

/// What the collectors that are on need; all of them, where a hub may turn them on later.
pub fn needed_by(settings: &Settings, hub_has_a_say: bool) -> CapabilitySet {
    let named = settings.collectors.process_backend;
    let may_become = if hub_has_a_say { ProcessBackend::Auto } else { named };
    of_all(settings, hub_has_a_say, |kind| needed_for(kind, named) | needed_for(kind, may_become))
}

fn of_all(settings: &Settings, hub_has_a_say: bool, of: impl Fn(Kind) -> CapabilitySet) -> CapabilitySet {
    let is_on = |kind: &Kind| hub_has_a_say || settings.priority(*kind).lane().is_some();
    Kind::ALL.into_iter().filter(is_on).map(of).fold(CapabilitySet::empty(), CapabilitySet::union)
}

/// As `capabilities(7)` calls them.
pub fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

impl Privileges {
    /// Becomes `user` if one is named, and gives back every capability that no collector needs. To be called while the
    /// process has one thread.
    ///
    /// # Errors
    /// A sentence, when the user cannot be become: going on as root is not what was asked for.
    pub fn lay_down(user: Option<&str>, settings: &Settings, hub_has_a_say: bool) -> Result<Privileges, String> {
        let is_on = |kind: Kind| hub_has_a_say || settings.priority(kind).lane().is_some();
        let needed = needed_by(settings, hub_has_a_say);
        // An init script gives all that root has, and has decided nothing by it.
        let of_use = if user.is_some() { needed } else { needed | of_all(settings, hub_has_a_say, of_use_for) };
        let mut troubles = Vec::new();
        let mut trouble = |what: &str, error: Errno| troubles.push(format!("{what} failed: {error}"));
        if needed.contains(CapabilitySet::BPF) {
            // Before Linux 5.11 maps of BPF programs count as locked memory, and only CAP_SYS_RESOURCE, which is about
            // to go, may raise its limit. Without it the limit is what whoever started us has set.
            let _limit_stays = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        }
        let given = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
        let kept = given & of_use;
        if given.contains(CapabilitySet::SETPCAP) {
            bound(kept, &mut trouble);
        }
        if let Some(user) = user {
            become_user(user)?;
        }
        let inheritable =
            if is_on(Kind::Login) { kept & CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() };
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
        let set = set_capabilities(None, sets);
        // What holds, in the words of the kernel. A filter may forbid the call where there is nothing to give back.
        let now = capabilities(None).map_or(given, |sets| sets.permitted);
        if let (Err(error), false) = (set, now == kept) {
            trouble("giving back capabilities (capset)", error);
        }
        inherit(inheritable, &mut trouble);
        if let Err(error) = set_no_new_privs(true) {
            trouble("giving up new privileges (PR_SET_NO_NEW_PRIVS)", error);
        }
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            trouble("closing our memory to others (PR_SET_DUMPABLE)", error);
        }
        Ok(Privileges { user: user_name(), kept: now, dropped: given.difference(now), troubles })
    }

    /// What the collectors that were turned on since the start lack, because nobody needed it then.
    pub fn lacking(&self, settings: &Settings) -> Option<String> {
        let lacking = needed_by(settings, false) & self.dropped;
        (!lacking.is_empty()).then(|| {
            format!(
                "collectors that were off when the agent started need {}, which it gave back then: start it again",
                names(lacking).join(" ")
            )
        })
    }

    /// For the log: who we are and what we can.
    pub fn tell(&self) {
        let PrivilegeFacts { user, capabilities, troubles } = self.facts();
        let dropped = match names(self.dropped).join(" ") {
            none if none.is_empty() => none,
            names => format!("; gave back {names}"),
        };
        info!("runs as {user} with capabilities: {}{dropped}", capabilities.join(" "));
        for trouble in troubles {
            warn!("{trouble}");
        }
    }

    /// For `status`.
    pub fn facts(&self) -> PrivilegeFacts {
        let (user, troubles) = (self.user.clone(), self.troubles.clone());
        PrivilegeFacts { user, capabilities: names(self.kept), troubles }
    }
}

/// So that no program run by root gets back what was given up. Kernels end the list of capabilities by EINVAL.
fn bound(kept: CapabilitySet, trouble: &mut impl FnMut(&str, Errno)) {
    let others = (0..CAPABILITIES).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in others.filter(|capability| !kept.contains(*capability)) {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => return,
            Err(error) => return trouble("bounding capabilities (PR_CAPBSET_DROP)", error),
        }
    }
}

/// Linux before 4.3 has no ambient set, and nothing is inherited there.
fn inherit(inheritable: CapabilitySet, trouble: &mut impl FnMut(&str, Errno)) {
    let cleared = clear_ambient_capability_set();
    let raise = |capability| configure_capability_in_ambient_set(capability, true);
    match cleared.and_then(|()| inheritable.iter().try_for_each(raise)) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => trouble("handing capabilities on to journalctl (PR_CAP_AMBIENT)", error),
    }
}

fn become_user(name: &str) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("cannot become user {name}: {what}: {error}");
    let user = User::from_name(name).map_err(|error| failed("looking it up", &error))?;
    let user =
        user.ok_or_else(|| format!("cannot become user {name}: there is no such user; make it, as a system user"))?;
    let c_name = std::ffi::CString::new(name).map_err(|error| failed("its name", &error))?;
    set_keep_capabilities(true).map_err(|error| failed("keeping capabilities", &error))?;
    initgroups(&c_name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|error| failed("only root can", &error))
}

fn user_name() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Priority;

    /// A capability that the unit gives and nobody here asks for is dropped, and one that is asked for and not given
    /// does not work.
    #[test]
    fn the_unit_gives_what_the_collectors_need() {
        let unit = include_str!("../../systemd/edgewarden.service");
        for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            let mut given: Vec<&str> = line.split_whitespace().collect();
            let mut needed = names(needed_by(&Settings::default(), true));
            given.sort_unstable();
            needed.sort_unstable();
            assert_eq!(given, needed, "{key}");
        }
    }

    /// Also with `--user`, by which everything goes that no collector needs.
    #[test]
    fn audit_that_is_named_is_needed() {
        let mut settings = Settings::default();
        let audit = CapabilitySet::AUDIT_CONTROL | CapabilitySet::AUDIT_READ;
        assert!(!needed_by(&settings, true).intersects(audit));
        settings.collectors.process_backend = ProcessBackend::Audit;
        assert!(needed_by(&settings, false).contains(audit));
        assert_eq!(needed_by(&settings, true), needed_by(&Settings::default(), true) | audit);
        settings.set_priority(Kind::ProcessCreate, Priority::Off);
        assert!(!needed_by(&settings, false).intersects(audit));
    }

    #[test]
    fn what_is_off_needs_nothing_unless_a_hub_may_turn_it_on() {
        let mut settings = Settings::default();
        for kind in Kind::ALL {
            settings.set_priority(kind, Priority::Off);
        }
        assert_eq!(needed_by(&settings, false), CapabilitySet::empty());
        assert_eq!(needed_by(&settings, true), needed_by(&Settings::default(), false));
        settings.set_priority(Kind::Login, Priority::Low);
        assert_eq!(names(needed_by(&settings, false)), ["CAP_DAC_READ_SEARCH"]);

        let dropped = needed_for(Kind::ProcessCreate, ProcessBackend::Auto);
        let (user, kept, troubles) = (String::new(), CapabilitySet::empty(), Vec::new());
        let privileges = Privileges { user, kept, dropped, troubles };
        assert_eq!(privileges.lacking(&settings), None);
        settings.set_priority(Kind::ProcessCreate, Priority::Low);
        assert!(privileges.lacking(&settings).is_some_and(|words| words.contains("CAP_NET_ADMIN")), "{privileges:?}");
    }
}
