use super::*;

fn words(text: &str, name: &str, uid: u32, groups: &[(&str, u32)]) -> Vec<&'static str> {
    let mut sudoers = Sudoers::default();
    let read = sudoers.read(text.as_bytes());
    assert_eq!(read.faults, Vec::<String>::new(), "{text}");
    let (names, gids): (Vec<_>, Vec<_>) = groups.iter().copied().unzip();
    sudoers.grants(Who { name, uid, groups: &names, gids: &gids }).into_iter().map(Grant::word).collect()
}

#[test]
fn rules_name_accounts_in_every_way_there_is() {
    let pi = |text: &str| words(text, "pi", 1000, &[("pi", 1000), ("domain users", 7)]);
    let (all, none): (&[&str], &[&str]) = (&["sudoers:NOPASSWD"], &[]);
    let cases = [
        ("pi ALL=(ALL:ALL) NOPASSWD: ALL", all),
        ("pi ALL = ( ALL : ALL ) NOPASSWD : ALL", all),
        ("pi\tALL=(ALL) ALL", &["sudoers"]),
        ("root,pi ALL=NOPASSWD:ALL", all),
        ("root, pi board1, board2 = NOPASSWD: ALL", all),
        ("#1000 ALL=NOPASSWD: ALL", all),
        ("# 1000 ALL=NOPASSWD: ALL", none),
        ("%pi ALL=NOPASSWD: ALL # and why", all),
        ("%#7 ALL=NOPASSWD: ALL", all),
        ("\"%domain users\" ALL=NOPASSWD: ALL", all),
        ("%domain\\ users ALL=NOPASSWD: ALL", all),
        ("ALL ALL=NOPASSWD: /sbin/reboot, /bin/systemctl restart x\\:y", &["sudoers:NOPASSWD:some"]),
        ("ALL, !pi ALL=NOPASSWD: ALL", none),
        ("pi, !%pi ALL=ALL", none),
        ("+netgroup ALL=ALL", none),
        ("pi ALL=/bin/a, NOPASSWD: /bin/b, PASSWD: ALL", &["sudoers:some", "sudoers", "sudoers:NOPASSWD:some"]),
        ("pi one=NOPASSWD: /bin/a : two, three = ALL", &["sudoers", "sudoers:NOPASSWD:some"]),
        ("pi ALL=NOPASSWD: \\\n  SETENV: \\\n ALL", all),
        ("pi ALL=(root) TIMEOUT=10m CWD=/ NOPASSWD:NOEXEC: sha256 : abc= /bin/a", &["sudoers:NOPASSWD:some"]),
        ("pi ALL=NOPASSWD: ALL, !/bin/su", all),
        ("pi ALL=!ALL", none),
        ("User_Alias OPS = root, %pi : NOBODY = x\nOPS ALL=NOPASSWD: ALL", all),
        ("User_Alias OPS = !pi, root\nALL, OPS ALL=ALL\n", none),
        ("User_Alias A=B\nUser_Alias B=A, A, A\nA ALL=ALL", none),
        (
            "Cmnd_Alias SHELLS = /bin/sh, sha224:ab= /bin/x : EVERY = ALL\npi ALL=NOPASSWD: SHELLS, EVERY",
            &["sudoers:NOPASSWD:some", "sudoers:NOPASSWD"],
        ),
        ("Defaults !authenticate\npi ALL=ALL", all),
        ("Defaults:%pi env_reset, ! authenticate\npi ALL=ALL", all),
        ("Defaults:root !authenticate\npi ALL=ALL", &["sudoers"]),
        ("Defaults env_reset\nDefaults secure_path=\"/bin:/sbin\"\nHost_Alias H = a\nRunas_Alias R = b", none),
    ];
    for (text, expected) in cases {
        assert_eq!(pi(text), expected, "{text}");
    }
}

#[test]
fn other_files_are_named_and_nonsense_has_its_line() {
    let mut sudoers = Sudoers::default();
    let text = "@include /etc/a\\ b\n#includedir /etc/sudoers.d\n#included not\n@includedir \"/x y\" # z\nnonsense\n\
        pi ALL=\n\\\npi\n";
    let read = sudoers.read(text.as_bytes());
    let includes: Vec<_> = read.includes.iter().map(|include| (include.path.as_str(), include.is_folder)).collect();
    assert_eq!(includes, [("/etc/a b", false), ("/etc/sudoers.d", true), ("/x y", true)]);
    assert_eq!(
        read.faults,
        ["line 5: a rule has no =", "line 6: a list of commands ends too early", "line 7: a rule has no ="]
    );
}

#[test]
fn no_bytes_make_it_panic_or_go_on_for_ever() {
    let text = "Defaults:pi !authenticate\nUser_Alias A = B, %x : B = A, #7\nCmnd_Alias C = C, /bin/a\\:\n\
        A,!pi ALL=(a:b) NOPASSWD: C, sha224:x /y : h = ALL \\\n # c\n#include x\n";
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..5_000 {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..random.usize(1..12) {
            let at = random.usize(..bytes.len());
            bytes[at] = if random.bool() { random.u8(..) } else { bytes[random.usize(..bytes.len())] };
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let mut sudoers = Sudoers::default();
        sudoers.read(&bytes);
        sudoers.grants(Who { name: "pi", uid: 7, groups: &["x"], gids: &[7] });
    }
}
