//! One look at everything that says who can get in, in a thread of its own: a home directory may be on a file server
//! that is gone, and whoever touches it then is stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use collector_common::collector::Failure;
use collector_common::parse::authorized_keys;
use collector_common::parse::passwd::{Digest, Group, Parsed, User, groups, shadows, users};
use collector_common::parse::sudoers::Who;
use collector_common::root::Root;
use tokio::sync::oneshot;

use super::accounts::{Account, Entries, Lookup, Person, Source, accounts};
use super::files::{Unread, read};
use super::keys::{Found, Owner, Places};
use super::memory::Secret;
use super::nss::{Answer, unasked};
use super::sudo::Rules;
use super::userdb;
use super::watch::Interests;

/// 100,000 accounts.
const FILE_BYTES: u64 = 16 << 20;
/// How long one home directory may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many threads may be stuck; then no home directory is looked into any more until one comes back.
const STUCK_AT_MOST: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// What to look at.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) root: Root,
    pub(super) secret: Secret,
    /// Days since 1970; `None` while the clock cannot be right.
    pub(super) today: Option<i64>,
    /// What directory services say; `None` when they are not to be asked.
    pub(super) services: Option<Arc<Answer>>,
    /// Home directories that do not answer.
    pub(super) stuck: Stuck,
}

/// What was found.
pub(super) struct Scan {
    pub(super) accounts: Vec<Account>,
    /// Each begins with the file's path.
    pub(super) faults: BTreeSet<String>,
    /// What could not be known, as sentences.
    pub(super) gaps: Vec<String>,
    pub(super) interests: Interests,
}

/// Home directories in which a thread is stuck.
#[derive(Clone, Default)]
pub(super) struct Stuck(Arc<Mutex<BTreeSet<PathBuf>>>);

/// Which home directory a thread is in, and since when.
#[derive(Clone, Default)]
struct At(Arc<Mutex<Where>>);

#[derive(Default)]
struct Where {
    home: Option<(PathBuf, Instant)>,
    is_given_up: bool,
}

/// A look that is under way.
struct UnderWay {
    result: oneshot::Receiver<Result<Scan, Failure>>,
    at: At,
    stuck: Stuck,
}

/// Looks, and looks again without a home directory that does not answer.
pub(super) async fn look(task: &Task) -> Result<Scan, Failure> {
    loop {
        let mut look = start(task)?;
        loop {
            match tokio::time::timeout(PAUSE * 10, &mut look.result).await {
                Ok(result) => return result.unwrap_or_else(|_| Err(ended())),
                Err(_) if look.gave_up() => break,
                Err(_) => {}
            }
        }
    }
}

/// The same without a runtime.
pub(super) fn look_blocking(task: &Task) -> Result<Scan, Failure> {
    loop {
        let mut look = start(task)?;
        loop {
            match look.result.try_recv() {
                Ok(result) => return result,
                Err(oneshot::error::TryRecvError::Closed) => return Err(ended()),
                Err(oneshot::error::TryRecvError::Empty) if look.gave_up() => break,
                Err(oneshot::error::TryRecvError::Empty) => thread::sleep(PAUSE / 10),
            }
        }
    }
}

fn ended() -> Failure {
    Failure("the thread that reads the account files ended without a word".to_owned())
}

fn start(task: &Task) -> Result<UnderWay, Failure> {
    let (sender, result) = oneshot::channel();
    let (at, stuck) = (At::default(), task.stuck.clone());
    let (task, inside) = (task.clone(), at.clone());
    let thread = thread::Builder::new().name("users".to_owned()).spawn(move || {
        // Nobody waits for it any more when it was given up.
        drop(sender.send(scan(&task, &inside)));
    });
    thread.map_err(|error| Failure(format!("a thread to read the account files cannot be started: {error}")))?;
    Ok(UnderWay { result, at, stuck })
}

impl UnderWay {
    /// Whether a home directory has taken too long. It is left out from now on.
    fn gave_up(&self) -> bool {
        let mut at = self.at.lock();
        let Some((home, _)) = at.home.as_ref().filter(|(_, since)| since.elapsed() > PATIENCE) else { return false };
        self.stuck.lock().insert(home.clone());
        at.is_given_up = true;
        true
    }
}

impl Stuck {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl At {
    fn lock(&self) -> std::sync::MutexGuard<'_, Where> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, home: &Path) {
        self.lock().home = Some((home.to_owned(), Instant::now()));
    }

    /// A home directory that was given up answers after all.
    fn leave(&self, stuck: &Stuck) {
        let mut at = self.lock();
        if let Some((home, _)) = at.home.take().filter(|_| at.is_given_up) {
            stuck.lock().remove(&home);
        }
        at.is_given_up = false;
    }
}

fn scan(task: &Task, at: &At) -> Result<Scan, Failure> {
    let mut sources = Sources::new(&task.root);
    let digest = |text: &str| task.secret.digest(text);
    let entries = sources.entries(task, &digest)?;
    let mut lookup = Live {
        root: &task.root,
        places: Places::of(&task.root, &mut sources.interests),
        rules: Rules::of(&task.root, &mut sources.interests),
        shells: sources.shells(),
        secret: &task.secret,
        at,
        is_stuck: task.stuck.lock().clone(),
        stuck: &task.stuck,
        denied: None,
        refused: BTreeMap::new(),
        interests: &mut sources.interests,
    };
    let accounts = accounts(&entries, &mut lookup);
    let Live { places, rules, denied, is_stuck, .. } = lookup;
    sources.gaps.extend(places.gaps);
    sources.gaps.extend(rules.gap);
    sources.gaps.extend(denied.map(|why| {
        format!("keys that let somebody in are unknown, because reading {why}: run as root or with CAP_DAC_READ_SEARCH")
    }));
    let homes: Vec<_> = is_stuck.iter().map(|home| home.display().to_string()).collect();
    sources.gaps.extend(
        (!homes.is_empty()).then(|| {
            format!("keys of accounts at home in {} are unknown, because it does not answer", homes.join(", "))
        }),
    );
    sources.gaps.extend(sources.interests.gap());
    sources.faults.extend(rules.faults);
    Ok(Scan { accounts, faults: sources.faults, gaps: sources.gaps, interests: sources.interests })
}

/// Files, and what is odd about them.
struct Sources<'a> {
    root: &'a Root,
    interests: Interests,
    faults: BTreeSet<String>,
    gaps: Vec<String>,
}

impl Sources<'_> {
    fn new(root: &Root) -> Sources<'_> {
        Sources { root, interests: Interests::new(root), faults: BTreeSet::new(), gaps: Vec::new() }
    }

    fn entries(&mut self, task: &Task, digest: Digest) -> Result<Entries, Failure> {
        self.interests.want(Path::new("/etc/passwd"));
        let passwd = read(&self.root.path("/etc/passwd"), FILE_BYTES).map_err(|error| {
            Failure(format!("reading /etc/passwd failed: {error}; without it no account is known: make it readable"))
        })?;
        let passwd = self.note("/etc/passwd", users(&passwd, digest));
        let group = self.optional("/etc/group", "groups are numbers and only the primary one is known");
        let mut groups = self.note("/etc/group", groups(&group.unwrap_or_default()));
        let shadow = self.optional("/etc/shadow", "whether an account has a password is unknown");
        let shadow = shadow.map(|bytes| self.note("/etc/shadow", shadows(&bytes, digest)));
        let known = passwd.iter().map(|user| user.name.clone()).collect();
        let userdb = userdb::look(self.root, &mut self.interests, &known, digest);
        self.faults.extend(userdb.faults);
        self.gaps.extend(userdb.gap);
        let mut people: Vec<_> = passwd.into_iter().map(|user| person(user, Source::Files)).collect();
        people.extend(userdb.people);
        add_groups(&mut groups, userdb.groups);
        for (user, group) in userdb.memberships {
            let group = groups.iter_mut().find(|known| known.name == group);
            group.into_iter().for_each(|group| group.members.push(user.clone()));
        }
        match &task.services {
            Some(services) => add_services(&mut people, &mut groups, services),
            None => self.gaps.extend(unasked(self.root)),
        }
        self.interests.want(Path::new("/etc/nsswitch.conf"));
        Ok(Entries { people, groups, shadow, today: task.today })
    }

    fn optional(&mut self, path: &str, without: &str) -> Option<Vec<u8>> {
        self.interests.want(Path::new(path));
        match read(&self.root.path(path), FILE_BYTES) {
            Ok(bytes) => Some(bytes),
            Err(why) => {
                self.gaps.push(format!("{without}, because reading {path} failed: {why}"));
                None
            }
        }
    }

    fn note<T>(&mut self, path: &str, parsed: Parsed<T>) -> Vec<T> {
        self.faults.extend(parsed.faults.iter().map(|fault| format!("{path} {fault}")));
        let more = parsed.more_faults;
        self.faults.extend((more > 0).then(|| format!("{path} has {more} more such lines")));
        parsed.entries
    }

    /// `/etc/shells`, if there is one.
    fn shells(&mut self) -> Option<BTreeSet<String>> {
        self.interests.want(Path::new("/etc/shells"));
        let text = read(&self.root.path("/etc/shells"), FILE_BYTES).ok()?;
        let text = String::from_utf8_lossy(&text);
        Some(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(str::to_owned).collect())
    }
}

fn person(user: User, source: Source) -> Person {
    Person { user, source, keys: String::new(), groups: Vec::new() }
}

/// Groups that are new by name; members of known ones are added.
fn add_groups(groups: &mut Vec<Group>, more: Vec<Group>) {
    for group in more {
        match groups.iter_mut().find(|known| known.name == group.name) {
            Some(known) => known.members.extend(group.members),
            None => groups.push(group),
        }
    }
}

/// What services say includes what the files say, which comes first.
fn add_services(people: &mut Vec<Person>, groups: &mut Vec<Group>, services: &Answer) {
    let known: BTreeSet<_> = people.iter().map(|person| person.user.name.clone()).collect();
    let new = services.users.iter().filter(|user| !known.contains(&user.name));
    // What `getent` shows of a password is a placeholder.
    people.extend(new.map(|user| person(User { password: None, ..user.clone() }, Source::Services)));
    let known: BTreeSet<_> = groups.iter().map(|group| group.name.clone()).collect();
    groups.extend(services.groups.iter().filter(|group| !known.contains(&group.name)).cloned());
}

/// What is looked up on this machine.
struct Live<'a> {
    root: &'a Root,
    places: Places,
    rules: Rules,
    shells: Option<BTreeSet<String>>,
    secret: &'a Secret,
    at: &'a At,
    /// As it was at the beginning.
    is_stuck: BTreeSet<PathBuf>,
    stuck: &'a Stuck,
    denied: Option<String>,
    /// By shell.
    refused: BTreeMap<String, Option<&'static str>>,
    interests: &'a mut Interests,
}

impl Lookup for Live<'_> {
    fn keys(&mut self, person: &Person, gids: &[u32]) -> Option<Found> {
        let home = Path::new(&person.user.home);
        let mut found = Found::default();
        if person.source != Source::Dynamic {
            if self.is_stuck.contains(home) || self.is_stuck.len() >= STUCK_AT_MOST {
                return None;
            }
            self.at.enter(home);
            let owner = Owner { name: &person.user.name, uid: person.user.uid, gids, home: &person.user.home };
            found = self.places.look(self.root, self.interests, owner);
            self.at.leave(self.stuck);
        }
        if let Some(why) = found.denied {
            self.denied = Some(why);
            return None;
        }
        found.add(&authorized_keys::keys(person.keys.as_bytes(), usize::MAX));
        Some(found)
    }

    fn privileged(&mut self, who: Who) -> (String, bool) {
        (self.rules.privileged(who), self.rules.gap.is_none())
    }

    fn shell_refuses(&mut self, shell: &str) -> Option<&'static str> {
        let shell = if shell.is_empty() { "/bin/sh" } else { shell };
        if let Some(known) = self.refused.get(shell) {
            return *known;
        }
        let name = Path::new(shell).file_name().and_then(|name| name.to_str());
        let refused = if matches!(name, Some("nologin" | "false" | "true")) {
            Some("login")
        } else if matches!(read(&self.root.path(shell), 0), Err(Unread::Missing)) {
            Some("missing")
        } else {
            self.shells.as_ref().filter(|shells| !shells.contains(shell)).map(|_| "unlisted")
        };
        self.refused.insert(shell.to_owned(), refused);
        refused
    }

    fn digest(&self, text: &str) -> String {
        self.secret.digest(text)
    }
}
