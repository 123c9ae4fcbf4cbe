//! What a secret looks like in a command line. Each row has an example, and a test holds the row to it: what comes out
//! is the example with the mark in the place of `S3CRETvalue`.

use Part::{After, All, Behind};
use Takes::{Attached, Either, Next, Nth};

/// An option of programs that are known for it.
pub struct ProgramOption {
    /// The programs, by the last part of their path.
    pub programs: &'static [&'static str],
    /// A word that has to come first, such as `login` of `docker login`; empty for none.
    pub word: &'static str,
    /// The option, or a word that stands for one.
    pub flag: &'static str,
    pub takes: Takes,
    pub part: Part,
    #[cfg_attr(not(test), expect(dead_code, reason = "it is what the tests hold the row to"))]
    pub example: &'static str,
}

/// Where the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `-pX` only: `-p X` means something else.
    Attached,
    /// `-p X` only.
    Next,
    /// Both.
    Either,
    /// The argument that comes so many after the options, once a cluster of short options holds the flag.
    Nth(u8),
}

/// What of the value is the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// What is behind this byte.
    After(u8),
    /// What is behind this beginning.
    Behind(&'static str),
}

const fn row(
    programs: &'static [&'static str],
    flag: &'static str,
    takes: Takes,
    part: Part,
    example: &'static str,
) -> ProgramOption {
    ProgramOption { programs, word: "", flag, takes, part, example }
}

const fn login(programs: &'static [&'static str], example: &'static str) -> ProgramOption {
    ProgramOption { programs, word: "login", flag: "-p", takes: Either, part: All, example }
}

const MYSQL: &[&str] = &[
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mysqlimport",
    "mysqlcheck",
    "mysqlshow",
    "mysqlbinlog",
    "mariadb",
    "mariadb-dump",
    "mariadb-admin",
];
const ARCHIVERS: &[&str] = &["7z", "7za", "7zr", "7zz", "rar", "unrar"];
const LDAP: &[&str] = &["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldapcompare", "ldappasswd"];
const SNMP: &[&str] =
    &["snmpget", "snmpgetnext", "snmpwalk", "snmpbulkwalk", "snmpbulkget", "snmpset", "snmptrap", "snmptable"];
const SAMBA: &[&str] = &["smbclient", "rpcclient", "smbget", "winexe"];
const MOSQUITTO: &[&str] = &["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"];
const ACCOUNTS: &[&str] = &["useradd", "usermod", "groupadd", "groupmod"];
const MONGO: &[&str] =
    &["mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "cqlsh", "ncftpput"];

/// Options whose name does not say it.
pub const OPTIONS: &[ProgramOption] = &[
    row(MYSQL, "-p", Attached, All, "mysql -u root -pS3CRETvalue shop"),
    row(&["mysqladmin"], "password", Next, All, "mysqladmin -u root password S3CRETvalue"),
    row(MONGO, "-p", Either, All, "mongodump -u admin -p S3CRETvalue"),
    row(&["sshpass"], "-p", Either, All, "sshpass -p S3CRETvalue ssh root@board"),
    row(ARCHIVERS, "-p", Attached, All, "7z a -pS3CRETvalue backup.7z /etc"),
    row(ARCHIVERS, "-hp", Attached, All, "rar a -hpS3CRETvalue backup.rar /etc"),
    row(&["zip", "unzip"], "-P", Either, All, "zip -P S3CRETvalue backup.zip /etc"),
    row(&["curl"], "-u", Either, After(b':'), "curl -u admin:S3CRETvalue https://hub.example/"),
    row(&["curl"], "--user", Either, After(b':'), "curl --user admin:S3CRETvalue https://hub.example/"),
    row(&["curl"], "-U", Either, After(b':'), "curl -U admin:S3CRETvalue -x proxy:3128 https://hub.example/"),
    row(&["curl"], "--proxy-user", Either, After(b':'), "curl --proxy-user=admin:S3CRETvalue https://hub.example/"),
    row(&["curl"], "--oauth2-bearer", Either, All, "curl --oauth2-bearer S3CRETvalue https://hub.example/"),
    row(&["lftp"], "-u", Either, After(b','), "lftp -u admin,S3CRETvalue ftp.example"),
    row(&["openssl"], "-passin", Next, Behind("pass:"), "openssl rsa -passin pass:S3CRETvalue -in key.pem"),
    row(&["openssl"], "-passout", Next, Behind("pass:"), "openssl genrsa -passout pass:S3CRETvalue"),
    row(&["openssl"], "-pass", Next, Behind("pass:"), "openssl enc -pass pass:S3CRETvalue -in a"),
    row(&["openssl"], "-k", Next, All, "openssl enc -aes-256-cbc -k S3CRETvalue -in a"),
    row(&["openssl"], "-K", Next, All, "openssl enc -aes-256-cbc -K S3CRETvalue -in a"),
    row(&["redis-cli"], "-a", Next, All, "redis-cli -h db -a S3CRETvalue ping"),
    row(MOSQUITTO, "-P", Either, All, "mosquitto_pub -u board -P S3CRETvalue -t a -m b"),
    row(&["ipmitool"], "-P", Either, All, "ipmitool -H bmc -U admin -P S3CRETvalue power status"),
    row(LDAP, "-w", Either, All, "ldapsearch -x -D cn=admin -w S3CRETvalue"),
    row(&["ldappasswd"], "-s", Either, All, "ldappasswd -s S3CRETvalue uid=u"),
    row(&["ldappasswd"], "-a", Either, All, "ldappasswd -a S3CRETvalue uid=u"),
    row(SNMP, "-A", Either, All, "snmpget -v3 -A S3CRETvalue board sysName.0"),
    row(SNMP, "-X", Either, All, "snmpwalk -v3 -X S3CRETvalue board"),
    row(SNMP, "-c", Either, All, "snmpwalk -v2c -c S3CRETvalue board"),
    row(SAMBA, "-U", Either, After(b'%'), "smbclient //nas/share -U admin%S3CRETvalue"),
    row(SAMBA, "--user", Either, After(b'%'), "smbclient //nas/share --user=admin%S3CRETvalue"),
    row(&["plink", "pscp", "psftp"], "-pw", Next, All, "plink -ssh -pw S3CRETvalue root@board"),
    row(&["sqlcmd", "bcp"], "-P", Either, All, "sqlcmd -S db -U sa -P S3CRETvalue"),
    row(&["xfreerdp", "wlfreerdp"], "/p:", Attached, All, "xfreerdp /u:admin /p:S3CRETvalue /v:pc"),
    row(&["rdesktop"], "-p", Either, All, "rdesktop -u admin -p S3CRETvalue pc"),
    row(&["nmcli"], "password", Next, All, "nmcli device wifi connect net password S3CRETvalue"),
    row(&["rclone"], "obscure", Next, All, "rclone obscure S3CRETvalue"),
    row(&["aws"], "aws_secret_access_key", Next, All, "aws configure set aws_secret_access_key S3CRETvalue"),
    row(ACCOUNTS, "-p", Either, All, "usermod -p S3CRETvalue admin"),
    row(&["htpasswd"], "b", Nth(3), All, "htpasswd -cb /etc/nginx/users admin S3CRETvalue"),
    row(&["wpa_passphrase"], "", Nth(2), All, "wpa_passphrase net S3CRETvalue"),
    login(
        &["docker", "podman", "nerdctl", "buildah", "skopeo", "az", "oc", "helm"],
        "docker login -u ci -p S3CRETvalue",
    ),
];

/// What the name of an option, a variable, a field or a header ends in when its value is a secret, in small letters
/// and without `-`, `_` and `.`.
pub const NAMES: &[(&str, &str)] = &[
    ("password", "tool --password S3CRETvalue"),
    ("passwd", "wget --http-passwd=S3CRETvalue http://a.example/"),
    ("passphrase", "gpg --passphrase S3CRETvalue -d a"),
    ("passcode", "tool --passcode=S3CRETvalue"),
    ("pass", "keytool -storepass S3CRETvalue"),
    ("pwd", "env MYSQL_PWD=S3CRETvalue mysql"),
    ("secret", "tool --client-secret S3CRETvalue"),
    ("token", "env GITHUB_TOKEN=S3CRETvalue make"),
    ("apikey", "curl -H 'X-Api-Key: S3CRETvalue' https://a.example/"),
    ("accesskey", "env AWS_SECRET_ACCESS_KEY=S3CRETvalue aws s3 ls"),
    ("secretkey", "s3cmd --secret_key=S3CRETvalue ls"),
    ("privatekey", "wg-tool --private-key S3CRETvalue"),
    ("accountkey", "az --account-key S3CRETvalue"),
    ("authkey", "tailscale up --authkey S3CRETvalue"),
    ("psk", "tool --psk S3CRETvalue"),
    ("credential", "tool --credential S3CRETvalue"),
    ("credentials", "tool --credentials=S3CRETvalue"),
    ("authorization", "curl -H 'Authorization: Basic S3CRETvalue' https://a.example/"),
    ("cookie", "curl -H 'Cookie: S3CRETvalue' https://a.example/"),
];

/// Ends of names that count only behind `=`: alone they are too common.
pub const ASSIGNED_NAMES: &[(&str, &str)] =
    &[("key", "env DEPLOY_KEY=S3CRETvalue make"), ("sig", "curl 'https://a.example/?sv=1&sig=S3CRETvalue&se=2'")];

/// Names that only look like it.
pub const NO_SECRETS: &[&str] = &["pwd", "oldpwd", "bypass", "compass", "nopass", "nopassword", "nopasswd"];

/// A secret that is known by its own beginning.
pub struct Token {
    pub prefix: &'static str,
    /// How many bytes of letters, digits, `_`, `-`, `.` (and for some more) follow at least.
    pub min_bytes: usize,
    pub more: &'static [u8],
    #[cfg_attr(not(test), expect(dead_code, reason = "it is what the tests hold the row to"))]
    pub example: &'static str,
}

const fn token(prefix: &'static str, min_bytes: usize, example: &'static str) -> Token {
    Token { prefix, min_bytes, more: b"", example }
}

/// Beginnings stay in the command line, because they say what kind of key it was.
pub const TOKENS: &[Token] = &[
    Token { prefix: "Bearer ", min_bytes: 8, more: b"~+/=", example: "tool 'send Bearer S3CRETvalue on'" },
    token("AKIA", 12, "tool AKIAS3CRETvalueS3"),
    token("ASIA", 12, "tool ASIAS3CRETvalueS3"),
    token("eyJ", 30, "tool eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    token("ghp_", 20, "tool ghp_0123456789abcdefghijABCDEFGHIJ012345"),
    token("gho_", 20, "tool gho_0123456789abcdefghijABCDEFGHIJ012345"),
    token("ghu_", 20, "tool ghu_0123456789abcdefghijABCDEFGHIJ012345"),
    token("ghs_", 20, "tool ghs_0123456789abcdefghijABCDEFGHIJ012345"),
    token("ghr_", 20, "tool ghr_0123456789abcdefghijABCDEFGHIJ012345"),
    token("github_pat_", 20, "tool github_pat_0123456789abcdefghijABCDEFGHIJ"),
    token("glpat-", 16, "tool glpat-0123456789abcdefghij"),
    token("xoxa-", 10, "tool xoxa-0123456789-abcdefghij"),
    token("xoxb-", 10, "tool xoxb-0123456789-abcdefghij"),
    token("xoxp-", 10, "tool xoxp-0123456789-abcdefghij"),
    token("xoxr-", 10, "tool xoxr-0123456789-abcdefghij"),
    token("xoxs-", 10, "tool xoxs-0123456789-abcdefghij"),
    token("xapp-", 10, "tool xapp-0123456789-abcdefghij"),
    token("sk_live_", 16, "tool sk_live_0123456789abcdefghij"),
    token("rk_live_", 16, "tool rk_live_0123456789abcdefghij"),
    token("AIza", 30, "tool AIza0123456789abcdefghijABCDEFGHIJ012345"),
    token("ya29.", 20, "tool ya29.0123456789abcdefghijABCDEFGHIJ"),
    token("npm_", 30, "tool npm_0123456789abcdefghijABCDEFGHIJ012345"),
    token("pypi-", 30, "tool pypi-0123456789abcdefghijABCDEFGHIJ012345"),
    token("dop_v1_", 30, "tool dop_v1_0123456789abcdefghijABCDEFGHIJ012345"),
    token("hf_", 30, "tool hf_0123456789abcdefghijABCDEFGHIJ012345"),
    token("SG.", 30, "tool SG.0123456789abcdefghijABCDEFGHIJ012345"),
    token("sk-", 32, "tool sk-0123456789abcdefghijABCDEFGHIJ012345"),
];
