use super::table::{ASSIGNED_NAMES, NAMES, TOKENS};
use super::*;

const SECRET: &str = "S3CRETvalue";

/// The arguments of an example, as a shell without anything but single quotes takes it apart.
fn area(line: &str) -> ArgumentArea {
    let mut bytes: Vec<u8> = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        bytes.extend(if index % 2 == 0 { part.replace(' ', "\0") } else { part.to_owned() }.bytes());
    }
    bytes.push(0);
    ArgumentArea::whole(bytes)
}

fn plain(area: &ArgumentArea) -> String {
    let bytes = area.head.strip_suffix(b"\0").unwrap_or(&area.head);
    String::from_utf8_lossy(bytes).replace('\0', " ")
}

/// What an example becomes, and how many marks there are.
fn redacted(line: &str) -> (String, usize) {
    let area = area(line);
    let (redacted, marks) = Redaction::default().apply(&area);
    (plain(&redacted), marks)
}

fn assert_only_the_secret_goes(line: &str) {
    let expected = line.replace('\'', "").replace(SECRET, MARK);
    assert_eq!(redacted(line), (expected, line.matches(SECRET).count()), "{line}");
}

#[test]
fn each_row_of_the_table_does_what_its_example_says() {
    let options = OPTIONS.iter().map(|option| option.example);
    let names = NAMES.iter().chain(ASSIGNED_NAMES).map(|(_, example)| *example);
    for example in options.chain(names) {
        assert!(example.contains(SECRET), "{example}");
        assert_only_the_secret_goes(example);
    }
    for token in TOKENS {
        let (line, marks) = redacted(token.example);
        assert!(marks == 1 && line.contains(&format!("{}{MARK}", token.prefix)), "{line}");
    }
}

#[test]
fn secrets_are_found_wherever_they_stand() {
    for line in [
        "/usr/bin/mysql -pS3CRETvalue",
        "sudo -u db mysql -pS3CRETvalue db",
        "sshpass -p S3CRETvalue mysql -pS3CRETvalue",
        "sh -c 'mysql -pS3CRETvalue db; ls -p /'",
        "bash -lc 'cd / && PASSWORD=S3CRETvalue ./run --now | tee log'",
        "sh -c 'bash -c \"mysql -pS3CRETvalue\"'",
        "ssh board 'docker login -u ci -p S3CRETvalue hub.example'",
        "sh -c 'tool --password S3CRETvalue --user x'",
        "sh -c 'tool --password=\"S3CRETvalue\" --user x'",
        "git clone https://u:S3CRETvalue@git.example/a.git",
        "psql postgresql://u:S3CRETvalue@db:5432/x?sslmode=require",
        "psql 'host=db user=u password=S3CRETvalue dbname=x'",
        "psql host=db;Password=S3CRETvalue;x=1",
        "curl -d '{\"user\":\"u\",\"password\":\"S3CRETvalue\",\"x\":1}' https://a.example/",
        "curl -d user=u&password=S3CRETvalue&x=1 https://a.example/",
        "curl -HAuthorization:S3CRETvalue https://a.example/",
        "curl -H 'Authorization: Bearer S3CRETvalue' https://u.example:443/",
        "sh -c 'curl -H \"Authorization: Bearer S3CRETvalue\" https://a.example/'",
        "kubectl create secret generic x --from-literal=password=S3CRETvalue",
        "docker run -e DB_PASSWORD=S3CRETvalue -p 8080:80 image",
        "env 'DB_PASSWORD=S3CRETvalue' x",
        "htpasswd -nb admin S3CRETvalue",
        "curl -sSu admin:S3CRETvalue https://a.example/",
        "ldapsearch -LLLxw S3CRETvalue -b dc=x",
        "git clone https://u:S3CRETvalue@git.example/src/curl",
        "sh -c 'DB_PASSWORD=S3CRETvalue exec /usr/bin/mysql'",
        "mysql -u zip -pS3CRETvalue shop",
    ] {
        assert_only_the_secret_goes(line);
    }
    // A secret with blanks is a secret as a whole, and one that looks like an option is one.
    assert_eq!(redacted("tool '--password=two words' x"), (format!("tool --password={MARK} x"), 1));
    assert_eq!(redacted("env 'DB_PASS=two words' x"), (format!("env DB_PASS={MARK} x"), 1));
    assert_eq!(redacted("sh -c 'mysql -p\"two words\" x'"), (format!("sh -c mysql -p{MARK} x"), 1));
    assert_eq!(redacted("tool --password -starts-so x"), (format!("tool --password {MARK} x"), 1));
    assert_eq!(
        redacted("git clone https://u:a/b@c@git.example/x"),
        (format!("git clone https://u:{MARK}@git.example/x"), 1)
    );
    let (line, marks) = redacted("curl -d '{\"password\": \"x y\", \"user\": \"u\"}' a");
    assert!(marks == 1 && !line.contains("x y") && line.contains("\"user\": \"u\""), "{line}");
}

#[test]
fn what_is_no_secret_stays() {
    for line in [
        "ssh -p 2222 root@board",
        "docker run -p 8080:80 nginx",
        "mkdir -p /var/lib/x",
        "mysql -p shop",
        "tool --password-file /run/secret --no-password --token-file=x",
        "tool --password --user=x",
        "env PWD=/home/u OLDPWD=/ ls",
        "sort --key=2,3 -t:",
        "tool --key=/etc/ssl/private.pem SSH_KEY=./id",
        "curl https://a.example:8443/x?y=z git@github.example:a/b",
        "psql postgres://db:5432/x",
        "psql postgres://user@db/x",
        "sh -c 'PASSWORD=$(cat /run/secret) ./run'",
        "ls -la /etc/passwd secret token=",
        "openssl rsa -passin file:/run/secret -in a",
        "echo sk-short ghp_short eyJ",
    ] {
        assert_eq!(redacted(line), (line.replace('\'', ""), 0), "{line}");
    }
    let off = Redaction::new(false, &[]).unwrap();
    assert_eq!(off.apply(&area("mysql -px")).1, 0);
}

#[test]
fn an_operator_adds_names_and_options() {
    let own = ["licence".to_owned(), "mytool -z".to_owned()];
    let redaction = Redaction::new(true, &own).unwrap();
    let apply = |line: &str| plain(&redaction.apply(&area(line)).0);
    assert_eq!(apply("x --Site-Licence=abc LICENCE=abc"), format!("x --Site-Licence={MARK} LICENCE={MARK}"));
    assert_eq!(apply("/opt/mytool -z abc -zabc -y abc"), format!("/opt/mytool -z {MARK} -z{MARK} -y abc"));
    assert_eq!(apply("other -z abc"), "other -z abc");
    for wrong in ["", "x", "a b c", "a  b", " ab", "--", "caf\u{e9}", &"x".repeat(65)] {
        assert_eq!(Redaction::new(true, &[wrong.to_owned()]), Err(wrong.to_owned()));
    }
    assert!(Redaction::new(true, &vec!["licence".to_owned(); 65]).is_err());
}

/// An area of which only the ends were read.
fn ends(head: &str, tail: &str) -> ArgumentArea {
    ArgumentArea { head: head.replace(' ', "\0").into(), unread_bytes: 1000, tail: tail.replace(' ', "\0").into() }
}

#[test]
fn a_cut_does_not_bring_a_secret_out() {
    let cases = [
        // The name is in the part that was not read, and the secret in the tail.
        (ends("tool --user", "S3CRETvalue --last x y z a b c d e"), "tool --user", " --last x y z a b c d e"),
        // The name and its secret are on both sides.
        (ends("tool --password S3CRET", "value --last"), "tool --password %REDACTED%", " --last"),
        (ends("tool --password=S3CRET", "value --last"), "tool --password=%REDACTED%", " --last"),
        // What ends a secret was not read.
        (ends("git clone https://u:S3CRET", "x more"), "git clone https://u:%REDACTED%", " more"),
        (ends("tool ghp_S3CRET", "x more"), "tool ghp_%REDACTED%", " more"),
        // The program was not read.
        (ends("sh -c\0x", "xx -pS3CRETvalue db"), "sh -c x", " -p%REDACTED% db"),
    ];
    for (area, head, tail) in cases {
        let (redacted, _) = Redaction::default().apply(&area);
        assert_eq!(plain(&redacted), head);
        assert_eq!(String::from_utf8_lossy(&redacted.tail).replace('\0', " "), tail);
        let unshown = area.tail.len() - redacted.tail.len();
        assert!(unshown > 0 && redacted.unread_bytes > area.unread_bytes, "{area:?}");
    }
    // Both parts together are the whole.
    let whole = ArgumentArea { head: b"tool\0--pass".to_vec(), unread_bytes: 0, tail: b"word=S3CRETvalue\0x".to_vec() };
    assert_eq!(plain(&Redaction::default().apply(&whole).0), "tool --password=%REDACTED% x");
}

#[test]
fn random_arguments_keep_everything_but_their_secrets() {
    let mut random = fastrand::Rng::with_seed(7);
    let pieces: [&[u8]; 20] = [
        b"mysql",
        b"\0",
        b"-p",
        b"password",
        b"=",
        b":",
        b" ",
        b"'",
        b"\"",
        b"\\",
        b"//",
        b"@",
        b"u",
        b"\xff",
        b"sh",
        b"-c",
        b"Authorization",
        b"Bearer ",
        b"eyJ",
        b";",
    ];
    let redaction = Redaction::default();
    for _ in 0..20_000 {
        let mut bytes = |most: usize| -> Vec<u8> {
            (0..random.usize(..most)).flat_map(|_| pieces[random.usize(..pieces.len())].to_vec()).collect()
        };
        let (head, tail) = (bytes(20), bytes(10));
        let area = ArgumentArea { head, unread_bytes: random.u64(..2), tail };
        let (redacted, marks) = redaction.apply(&area);
        let shown = [redacted.head.as_slice(), &redacted.tail].concat();
        let found = shown.windows(MARK.len()).filter(|part| *part == MARK.as_bytes()).count();
        assert_eq!(found, marks, "{area:?}");
        let arguments = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
        assert_eq!(
            arguments(&redacted.head),
            if area.unread_bytes == 0 { arguments(&area.head) + arguments(&area.tail) } else { arguments(&area.head) }
        );
    }
}
