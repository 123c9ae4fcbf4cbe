//! How the kernel's audit is asked and told what to record: numbers in the machine's own byte order, behind a header of
//! netlink (`include/uapi/linux/audit.h`, `kernel/auditfilter.c`).
//!
//! ```text
//! audit_status     u32 mask  enabled  failure  pid  rate_limit  backlog_limit  lost  backlog  features  backlog_wait_time
//! audit_rule_data  u32 list  action  fields   u32 calls[64]   u32 field[64]  value[64]  operator[64]   u32 bytes  text
//! ```
//!
//! The text holds the strings of the fields that have one, one behind the other; their value is their length.

const CALL_WORDS: usize = 64;
const MAX_FIELDS: usize = 64;
const RULE_BYTES: usize = 12 + 4 * (CALL_WORDS + 3 * MAX_FIELDS) + 4;

/// `AUDIT_STATUS_` bits of `mask`: what of a status is to be set.
const SET_ENABLED: u32 = 1;
const SET_PID: u32 = 4;
const SET_BACKLOG_LIMIT: u32 = 0x10;
const SET_BACKLOG_WAIT: u32 = 0x20;

const LIST_TASK: u32 = 1;
const LIST_EXIT: u32 = 4;
const LIST_EXCLUDE: u32 = 5;
/// Put the rule before the others of its list.
const PREPEND: u32 = 0x10;
const NEVER: u32 = 0;
const ALWAYS: u32 = 2;

const FIELD_ARCH: u32 = 11;
const FIELD_MSGTYPE: u32 = 12;
const FIELD_KEY: u32 = 210;
/// Fields whose value is a string: labels of security modules, watched paths, an executable, a key.
const STRINGS: [u32; 14] = [13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 105, 107, 112, FIELD_KEY];
const EQUAL: u32 = 0x4000_0000;

/// What begins the key of a rule of ours.
const OURS: &str = "edgewarden";

/// Record types without which there is no exec.
const NEEDED: [u32; 3] = [1300, 1309, 1320];

/// How the kernel's audit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 off, 1 on, 2 on until the next boot, with rules that nobody can change.
    pub enabled: u32,
    /// 2: the machine halts when a record is lost.
    pub failure: u32,
    /// Who gets the records, 0 for nobody. May have ended since.
    pub owner: u32,
    /// How many records may wait.
    pub backlog_limit: u32,
    /// How many were lost since boot, or since somebody set it back.
    pub lost: u32,
    /// How long a system call waits when more do: the kernel's ticks.
    pub backlog_wait: u32,
}

/// A change of a [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Who gets the records; 0 for nobody.
    Owner(u32),
    /// On or off.
    Enabled(u32),
    /// How many records may wait, and how long a system call does when more do.
    Backlog(u32, u32),
}

/// A rule of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    list: u32,
    action: u32,
    calls: [u32; CALL_WORDS],
    fields: Vec<Field>,
    key: Option<Vec<u8>>,
    raw: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    number: u32,
    value: u32,
    operator: u32,
}

/// What a rule of ours says of itself, so that whoever finds it can undo all that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which process made it.
    pub pid: u32,
    /// What [`Status::enabled`] was before.
    pub enabled: u32,
    /// What [`Status::backlog_limit`] was before.
    pub backlog_limit: u32,
    /// What [`Status::backlog_wait`] was before.
    pub backlog_wait: u32,
}

/// An architecture whose programs the kernel runs: its number in rules, and those of execve and execveat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi {
    number: u32,
    calls: [u32; 2],
}

impl Abi {
    /// Whether a call of an architecture is an exec.
    pub fn is_exec(self, number: u32, call: u32) -> bool {
        self.number == number && self.calls.contains(&call)
    }
}

/// Which execs rules record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every one.
    All,
    /// Those that meet a condition, or of one architecture or one system call.
    Some,
    /// None.
    None,
}

impl Status {
    /// Reads `struct audit_status`.
    pub fn parse(bytes: &[u8]) -> Option<Status> {
        Some(Status {
            enabled: word(bytes, 1)?,
            failure: word(bytes, 2)?,
            owner: word(bytes, 3)?,
            backlog_limit: word(bytes, 5)?,
            lost: word(bytes, 6)?,
            backlog_wait: word(bytes, 9)?,
        })
    }
}

impl Change {
    /// Writes `struct audit_status`.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut words = [0; 10];
        match self {
            Change::Owner(pid) => (words[0], words[3]) = (SET_PID, pid),
            Change::Enabled(enabled) => (words[0], words[1]) = (SET_ENABLED, enabled),
            Change::Backlog(limit, wait) => {
                (words[0], words[5], words[9]) = (SET_BACKLOG_LIMIT | SET_BACKLOG_WAIT, limit, wait);
            }
        }
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }
}

impl Mark {
    /// The key of a rule.
    pub fn to_key(self) -> String {
        format!("{OURS}-{}-{}-{}-{}", self.pid, self.enabled, self.backlog_limit, self.backlog_wait)
    }

    fn parse(key: &[u8]) -> Option<Mark> {
        let numbers = std::str::from_utf8(key).ok()?.strip_prefix(OURS)?.strip_prefix('-')?;
        let mut numbers = numbers.split('-').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Mark { pid: next()?, enabled: next()?, backlog_limit: next()?, backlog_wait: next()? })
    }
}

/// The architectures of a kernel, by the machine that `uname(2)` says. Empty for one that is not known here.
pub fn abis(machine: &str) -> &'static [Abi] {
    const X86: [Abi; 2] =
        [Abi { number: 0xc000_003e, calls: [59, 322] }, Abi { number: 0x4000_0003, calls: [11, 358] }];
    const ARM: [Abi; 2] =
        [Abi { number: 0xc000_00b7, calls: [221, 281] }, Abi { number: 0x4000_0028, calls: [11, 387] }];
    const RISCV: [Abi; 1] = [Abi { number: 0xc000_00f3, calls: [221, 281] }];
    match machine {
        "x86_64" => &X86,
        "aarch64" => &ARM,
        "riscv64" => &RISCV,
        _ if machine.starts_with('i') && machine.ends_with("86") => &X86[1..],
        _ if machine.starts_with("arm") => &ARM[1..],
        _ => &[],
    }
}

impl Rule {
    /// A rule that records every exec of programs of an architecture.
    pub fn of_execs(abi: Abi, mark: Mark) -> Rule {
        let key = mark.to_key().into_bytes();
        let mut calls = [0; CALL_WORDS];
        for call in abi.calls {
            calls[call as usize / 32] |= 1 << (call % 32);
        }
        let length = u32::try_from(key.len()).unwrap_or_default();
        let fields = vec![
            Field { number: FIELD_ARCH, value: abi.number, operator: EQUAL },
            Field { number: FIELD_KEY, value: length, operator: EQUAL },
        ];
        let column =
            |of: fn(&Field) -> u32| (0..MAX_FIELDS).map(|index| fields.get(index).map_or(0, of)).collect::<Vec<_>>();
        let words = [[LIST_EXIT, ALWAYS, 2].as_slice(), &calls].concat();
        let columns = [column(|field| field.number), column(|field| field.value), column(|field| field.operator)];
        let words = words.into_iter().chain(columns.concat()).chain([length]);
        let raw = words.flat_map(u32::to_ne_bytes).chain(key.iter().copied()).collect();
        Rule { list: LIST_EXIT, action: ALWAYS, calls, fields, key: Some(key), raw }
    }

    /// Reads `struct audit_rule_data`.
    pub fn parse(bytes: &[u8]) -> Option<Rule> {
        let mut calls = [0; CALL_WORDS];
        for (index, word_of_calls) in calls.iter_mut().enumerate() {
            *word_of_calls = word(bytes, 3 + index)?;
        }
        let (count, columns) = (usize::try_from(word(bytes, 2)?).ok()?.min(MAX_FIELDS), 3 + CALL_WORDS);
        let (mut fields, mut key) = (Vec::with_capacity(count), None);
        let mut text = bytes.get(RULE_BYTES..)?;
        for index in 0..count {
            let at = |column: usize| word(bytes, columns + column * MAX_FIELDS + index);
            let field = Field { number: at(0)?, value: at(1)?, operator: at(2)? };
            if STRINGS.contains(&field.number) {
                let (string, rest) = text.split_at_checked(usize::try_from(field.value).ok()?)?;
                text = rest;
                key = key.or_else(|| (field.number == FIELD_KEY).then(|| string.to_vec()));
            }
            fields.push(field);
        }
        Some(Rule { list: word(bytes, 0)?, action: word(bytes, 1)?, calls, fields, key, raw: bytes.to_vec() })
    }

    /// The rule as the kernel lists and removes it.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The rule as the kernel adds it before all others of its list. It forgets at once that it was asked to.
    pub fn raw_first(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        raw.splice(..4, (self.list | PREPEND).to_ne_bytes());
        raw
    }

    /// What it says of itself, if an Edgewarden made it.
    pub fn mark(&self) -> Option<Mark> {
        Mark::parse(self.key.as_deref()?)
    }

    /// Conditions beside the architecture and the key, which is none.
    fn has_conditions(&self) -> bool {
        self.fields.iter().any(|field| match field.number {
            FIELD_KEY => false,
            FIELD_ARCH => field.operator != EQUAL,
            _ => true,
        })
    }

    fn is_about(&self, abi: Abi, call: u32) -> bool {
        let is_other =
            |field: &Field| field.number == FIELD_ARCH && field.operator == EQUAL && field.value != abi.number;
        let word = self.calls.get(call as usize / 32).copied().unwrap_or(0);
        word & 1 << (call % 32) != 0 && !self.fields.iter().any(is_other)
    }

    /// What the rule takes away from all execs: a whole, a part, or nothing.
    fn takes_away(&self) -> Coverage {
        let of_types = |field: &&Field| field.number == FIELD_MSGTYPE;
        match (self.list, self.fields.iter().find(of_types)) {
            (LIST_TASK, _) if self.action != NEVER => Coverage::None,
            (LIST_TASK, _) if self.has_conditions() => Coverage::Some,
            (LIST_TASK, _) => Coverage::All,
            (LIST_EXCLUDE, None) => Coverage::Some,
            (LIST_EXCLUDE, Some(field)) if field.operator != EQUAL => Coverage::Some,
            (LIST_EXCLUDE, Some(field)) if !NEEDED.contains(&field.value) => Coverage::None,
            (LIST_EXCLUDE, Some(_)) if self.fields.len() > 1 => Coverage::Some,
            (LIST_EXCLUDE, Some(_)) => Coverage::All,
            _ => Coverage::None,
        }
    }
}

/// Which execs are recorded under these rules, in the kernel's order, of a kernel with these architectures.
pub fn coverage(rules: &[Rule], abis: &[Abi]) -> Coverage {
    let taken_away: Vec<Coverage> = rules.iter().map(Rule::takes_away).collect();
    if taken_away.contains(&Coverage::All) {
        return Coverage::None;
    }
    let each = |abi: &Abi| abi.calls.map(|call| of_call(rules, *abi, call));
    let of_calls: Vec<Coverage> = abis.iter().flat_map(each).collect();
    match of_calls.first() {
        Some(Coverage::All) if taken_away.contains(&Coverage::Some) => Coverage::Some,
        Some(first) if of_calls.iter().all(|of_call| of_call == first) => *first,
        Some(_) => Coverage::Some,
        None => Coverage::None,
    }
}

/// The first rule that is met decides.
fn of_call(rules: &[Rule], abi: Abi, call: u32) -> Coverage {
    let (mut some_are, mut some_are_not) = (false, false);
    for rule in rules.iter().filter(|rule| rule.list == LIST_EXIT && rule.is_about(abi, call)) {
        match (rule.action == ALWAYS, rule.has_conditions()) {
            (true, true) => some_are = true,
            (false, true) => some_are_not = true,
            (true, false) if some_are_not => return Coverage::Some,
            (true, false) => return Coverage::All,
            (false, false) => break,
        }
    }
    if some_are { Coverage::Some } else { Coverage::None }
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { pid: 4711, enabled: 0, backlog_limit: 64, backlog_wait: 15_000 };

    fn ours() -> Vec<Rule> {
        abis("x86_64").iter().map(|abi| Rule::of_execs(*abi, MARK)).collect()
    }

    /// A rule of ours with other parts.
    fn other(list: u32, action: u32, fields: &[(u32, u32)]) -> Rule {
        let fields = fields.iter().map(|(number, value)| Field { number: *number, value: *value, operator: EQUAL });
        Rule { list, action, fields: fields.collect(), key: None, ..ours().swap_remove(0) }
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        for rule in ours() {
            let read = Rule::parse(rule.raw()).unwrap();
            assert_eq!((&read, read.mark()), (&rule, Some(MARK)));
        }
        assert_eq!(Mark::parse(b"edgewarden-1-0"), None);
        assert_eq!(Mark::parse(b"somebody-1-0-64-15000"), None);
    }

    #[test]
    fn a_status_is_read_and_a_change_says_only_what_it_changes() {
        let words: Vec<u8> = (0..11_u32).flat_map(u32::to_ne_bytes).collect();
        let expected = Status { enabled: 1, failure: 2, owner: 3, backlog_limit: 5, lost: 6, backlog_wait: 9 };
        assert_eq!(Status::parse(&words), Some(expected));
        assert_eq!(Status::parse(&words[..39]), None);
        let change = Change::Backlog(8192, 0).to_bytes();
        assert_eq!((word(&change, 0), word(&change, 5), word(&change, 9)), (Some(0x30), Some(8192), Some(0)));
    }

    #[test]
    fn rules_record_all_execs_some_or_none() {
        let abis = abis("x86_64");
        let of = |rules: &[Rule]| coverage(rules, abis);
        let with = |first: Rule| of(&[vec![first], ours()].concat());
        assert_eq!((of(&[]), of(&ours()), of(&ours()[..1])), (Coverage::None, Coverage::All, Coverage::Some));
        assert_eq!(coverage(&ours(), &[]), Coverage::None);
        let auid = (9, 1000);
        assert_eq!(of(&[other(LIST_EXIT, ALWAYS, &[auid])]), Coverage::Some);
        assert_eq!(with(other(LIST_EXIT, NEVER, &[auid])), Coverage::Some);
        assert_eq!(with(other(LIST_EXIT, ALWAYS, &[auid])), Coverage::All);
        assert_eq!(with(other(LIST_EXIT, NEVER, &[(FIELD_ARCH, 0xc000_003e)])), Coverage::Some);
        assert_eq!(with(other(LIST_TASK, NEVER, &[])), Coverage::None);
        assert_eq!(with(other(LIST_TASK, NEVER, &[auid])), Coverage::Some);
        assert_eq!(with(other(LIST_EXCLUDE, ALWAYS, &[(FIELD_MSGTYPE, 1309)])), Coverage::None);
        assert_eq!(with(other(LIST_EXCLUDE, ALWAYS, &[(FIELD_MSGTYPE, 1327)])), Coverage::All);
        assert_eq!(with(other(LIST_EXCLUDE, ALWAYS, &[auid])), Coverage::Some);
    }

    #[test]
    fn each_kernel_has_its_architectures() {
        for (machine, count) in [("x86_64", 2), ("i686", 1), ("aarch64", 2), ("armv7l", 1), ("riscv64", 1), ("m68k", 0)]
        {
            assert_eq!(abis(machine).len(), count, "{machine}");
        }
    }

    #[test]
    fn mangled_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(23);
        let whole = ours().swap_remove(0).raw;
        for _ in 0..5000 {
            let mut mangled = whole.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..mangled.len());
                mangled[at] = random.u8(..);
            }
            mangled.truncate(random.usize(..=whole.len()));
            let rules: Vec<Rule> = Rule::parse(&mangled).into_iter().collect();
            assert!(coverage(&rules, abis("aarch64")) == Coverage::None || mangled.len() >= RULE_BYTES);
            assert!(Status::parse(&mangled).is_none() || mangled.len() >= 40);
        }
    }
}
