//! What a look for secrets costs: `cargo bench -p collector-common --bench redact`. It prints figures and asserts nothing.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use collector_common::parse::cmdline::ArgumentArea;
use collector_common::redact::Redaction;

fn main() {
    let redaction = Redaction::default();
    let script = "for f in /etc/*.conf; do grep -q password \"$f\" && echo \"$f\"; done | sort -u > /tmp/list";
    let cases: [(&str, Vec<&str>); 5] = [
        ("/bin/true", vec!["/bin/true"]),
        ("ls -la --color=auto /var/lib/edgewarden", vec!["ls", "-la", "--color=auto", "/var/lib/edgewarden"]),
        ("mysql -u root -pSECRET shop", vec!["mysql", "-u", "root", "-pSECRET", "shop"]),
        ("sh -c of 91 bytes", vec!["sh", "-c", script]),
        ("a compiler's 60 arguments of 30 bytes", vec!["-I/usr/include/some/directory/"; 60]),
    ];
    for (name, arguments) in cases {
        let area = ArgumentArea::whole(
            arguments.iter().flat_map(|text| [text, "\0"].concat().into_bytes()).collect::<Vec<_>>(),
        );
        print(name, &redaction, &area);
    }
    print("8,192 bytes of one word", &redaction, &ArgumentArea::whole(vec![b'x'; 8192]));
    print("8,192 bytes of '='", &redaction, &ArgumentArea::whole(vec![b'='; 8192]));
    let hostile = b"https://u:".repeat(819);
    print("8,192 bytes of 'https://u:'", &redaction, &ArgumentArea::whole(hostile));
    print(
        "8,192 bytes of '-----BEGIN PRIVATE KEY '",
        &redaction,
        &ArgumentArea::whole(b"-----BEGIN PRIVATE KEY ".repeat(356)),
    );
    print("8,192 bytes of 'Cookie:a '", &redaction, &ArgumentArea::whole(b"Cookie:a ".repeat(910)));
}

/// The best of several rounds: the machine may be busy with something else.
fn print(name: &str, redaction: &Redaction, area: &ArgumentArea) {
    const TIMES: u32 = 2000;
    let round = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            black_box(redaction.apply(black_box(area)));
        }
        start.elapsed() / TIMES
    };
    let best = (0..20).map(|_| round()).min().unwrap_or_default();
    println!("{name}: {} ns", best.as_nanos());
}
