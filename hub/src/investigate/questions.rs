//! What is asked about a device, as one table: how bad it is, what it is called when something is found, what to look at
//! next, and the query. The queries are files, `packaging/hub/queries/`, so that they can be copied, changed and asked
//! with `query`; a comment in each says what it finds. docs/kql.md lists them; a test compares.

/// How bad a finding is. In this order findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing: it belongs to the device, or it may.
    Low,
    /// Somebody has to know why.
    Medium,
    /// Somebody who has no business here may be in.
    High,
}

impl Severity {
    /// As alerts write it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "Low",
            Severity::Medium => "Medium",
            Severity::High => "High",
        }
    }

    /// The severity of that name; what it is called elsewhere is low.
    pub fn named(name: &str) -> Severity {
        match name {
            "High" => Severity::High,
            "Medium" => Severity::Medium,
            _ => Severity::Low,
        }
    }
}

/// Which rows an answer is made of. Without one in the window there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Alerts, which the hub makes: that there is none is an answer.
    Alerts,
    /// Any event.
    AnyEvent,
    /// One of these kinds.
    Kinds(&'static [&'static str]),
    /// This kind with this key, which not every agent sends, or not with every right.
    Key(&'static str, &'static str),
}

/// What has to be known of the time before, to call something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Nothing: the question is not what is new.
    None,
    /// A list before the one it is in.
    EarlierList,
    /// Rows from before the window.
    BeforeWindow,
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// The name of its file; with blanks, what it is called.
    pub id: &'static str,
    /// How bad it is when something is found. A column `Severity` of the answer counts instead.
    pub severity: Severity,
    /// The heading of what is found.
    pub finding: &'static str,
    /// What to look at then.
    pub next: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// What it compares with.
    pub baseline: Baseline,
    /// The text of its file.
    pub query: &'static str,
}

macro_rules! query {
    ($id:literal) => {
        include_str!(concat!("../../../packaging/hub/queries/", $id, ".kql"))
    };
}

macro_rules! questions {
    ($($severity:ident $id:literal $needs:expr, $baseline:ident; $finding:literal; $next:literal;)*) => {
        &[$(Question {
            id: $id,
            severity: Severity::$severity,
            finding: $finding,
            next: $next,
            needs: $needs,
            baseline: Baseline::$baseline,
            query: query!($id),
        }),*]
    };
}

const USERS: Needs = Needs::Kinds(&["LocalUsers"]);
const PORTS: Needs = Needs::Kinds(&["ListeningPorts"]);
const LOGINS: Needs = Needs::Kinds(&["Login"]);
const PROCESSES: Needs = Needs::Kinds(&["ProcessCreate"]);
/// An agent that tells nothing of the parent tells nothing else beside the schema's own fields.
const MORE_OF_PROCESSES: Needs = Needs::Key("ProcessCreate", "ParentExecutable");
const REMARKS: Needs = Needs::Kinds(&["Diagnostic"]);
/// An agent says nothing of losses when there are none, but it says how many messages it sent.
const STATISTICS: Needs = Needs::Kinds(&["DroppedEventsStatistics", "MessageStatistics", "Diagnostic"]);

/// Which kinds of rows there are, and from when to when: asked before all others.
pub const COVERAGE: &str = query!("coverage");

/// The questions whose answer is a finding, of one severity the most telling first.
pub const FINDINGS: &[Question] = questions! {
    High "alerts" Needs::Alerts, None;
        "Alerts of the hub"; "docs/alerts.md says what each rule looks at; the rows around that time are the evidence";
    High "guessed_passwords" LOGINS, None;
        "Logins that succeeded after others from the same address had failed";
        "what ran after the login, and from where else that address or user came";
    High "forged_logins" REMARKS, None;
        "Login lines written by somebody who is not the login program";
        "who runs programs as that uid: somebody wants you to see logins that were none";
    High "covered_tracks" PROCESSES, None;
        "Command lines that remove traces or turn protection off";
        "the logins and programs just before; what is in the hub's store cannot be removed from the device";
    High "downloads_that_run" PROCESSES, None;
        "Command lines that fetch something and run it, or put it where anybody can"; "what was fetched, and what started the command";
    High "remote_shells" PROCESSES, None;
        "Command lines that give a shell to another machine"; "the address in it, and what started the command";
    High "shells_of_services" MORE_OF_PROCESSES, None;
        "Shells that a network service started"; "whether the service does that by design; else it was broken into";
    High "temporary_programs" PROCESSES, None;
        "Programs that ran from directories anybody can write to";
        "who wrote the file, and what started it; package managers and builds do this as well";
    High "deleted_programs" MORE_OF_PROCESSES, None;
        "Programs whose file was gone when they ran, or never was one";
        "/proc/PID/exe on the device still holds the program as long as it runs";
    High "odd_listeners" Needs::Key("ListeningPorts", "Executable"), None;
        "Listeners of a deleted program, a shell, or a program where anybody can write";
        "who is connected to it (RemoteAddress in the ListeningPorts rows)";
    High "second_roots" USERS, None;
        "Accounts with uid 0 that are not called root"; "when it first was in a list, and who was logged in then";
    High "new_privileges" USERS, EarlierList;
        "Accounts that came into a group which can become root"; "who was logged in between the two lists";
    High "empty_passwords" Needs::Key("LocalUsers", "PasswordLogin"), None;
        "Accounts that are asked for no password"; "whether a login of theirs is among the logins below";
    Medium "new_accounts" USERS, EarlierList;
        "New accounts"; "who was logged in between the two lists, and what they ran (useradd, adduser)";
    Medium "new_addresses" LOGINS, BeforeWindow;
        "Addresses from which somebody logged in for the first time"; "whose address it is, and what ran after the login";
    Medium "root_logins" LOGINS, None;
        "Logins as root from other machines"; "whether that is how this device is looked after";
    Medium "vanished_accounts" REMARKS, None;
        "Accounts that went away or changed"; "who was logged in then";
    Medium "new_listeners" PORTS, EarlierList;
        "New listeners"; "which program it is, and when that first ran";
    Medium "cleartext_services" PORTS, None;
        "Services for other machines that take passwords in clear, or none";
        "who is connected to them, and whether they are needed";
    Medium "raised_programs" MORE_OF_PROCESSES, None;
        "Programs that ran with the rights of root for somebody else, other than the usual";
        "which package the program is of, and when it got its set-user-id bit";
    Medium "persistence" PROCESSES, None;
        "Command lines that make something come back, or let somebody in again";
        "what was written into crontab, unit, key file or account";
    Medium "home_programs" PROCESSES, None;
        "Programs that ran from home directories"; "whether that is the device's own software";
    Medium "agent_errors" REMARKS, None;
        "What the agent could not do"; "what of the above it could not see for that reason";
    Medium "kills" REMARKS, None;
        "Starts of the agent after it was killed or the power was lost";
        "whether the power is known to fail there; `killed` means that the machine went on";
    Medium "losses" STATISTICS, None;
        "Events lost on the device"; "the causes (docs/events.md): what was lost is not in any answer above";
    Medium "silence" Needs::AnyEvent, None;
        "Nothing came for a day"; "whether the device is on, and reaches the hub";
    Medium "silent_days" Needs::AnyEvent, None;
        "Days without any event"; "what the device did then is in no answer above, unless it comes late";
    Medium "wrong_clocks" Needs::AnyEvent, None;
        "Rows whose time cannot be right";
        "a longer --since, for what has a time from before; TimeGenerated says when the hub got a row, BootId and \
         BoottimeMs order those of a clock that was never set";
    Low "new_programs" PROCESSES, BeforeWindow;
        "Programs that ran for the first time"; "whether an update explains them";
    Low "guessing_addresses" LOGINS, None;
        "Addresses from which at least 10 logins failed"; "whether the port has to be open to them";
    Low "privileged_accounts" USERS, None;
        "Accounts in groups that can become root"; "whether each has to be";
    Low "open_ports" PORTS, None;
        "Ports open to other machines"; "which of them have to be; the firewall is not asked here";
};

/// The questions whose answer is context.
pub const FACTS: &[Question] = questions! {
    Low "accounts" USERS, None; "Accounts with a shell or a password, newest list"; "";
    Low "ports" PORTS, None; "Listeners, newest list"; "";
    Low "logins" LOGINS, None; "Logins"; "";
    Low "programs" PROCESSES, None; "Programs, most often first"; "";
};
