//! The `format` file of a tracepoint in tracefs (`Documentation/trace/events.rst`): where its fields are.
//!
//! ```text
//! name: sched_process_exec
//! format:
//!         field:__data_loc char[] filename;       offset:8;       size:4; signed:0;
//! ```

/// The offset of a field in what the tracepoint writes.
pub fn offset(format: &[u8], field: &str) -> Option<u32> {
    let text = std::str::from_utf8(format).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        let name = declaration.rsplit(' ').next()?;
        let offset = parts.find_map(|part| part.strip_prefix("offset:"))?;
        (name.split('[').next() == Some(field)).then(|| offset.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &[u8] = b"name: sched_process_exec\nID: 300\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:char parent_comm[16];\toffset:12;\tsize:16;\tsigned:0;\n\
        \tfield:pid_t pid;\toffset:28;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"filename=%s pid=%d\", __get_str(filename), REC->pid\n";

    #[test]
    fn a_field_is_where_the_kernel_says() {
        let at = ["filename", "parent_comm", "pid", "common_pid"].map(|field| offset(FORMAT, field));
        assert_eq!(at, [Some(8), Some(12), Some(28), Some(4)]);
        assert_eq!((offset(FORMAT, "ret"), offset(b"", "pid"), offset(b"field:pid;", "pid")), (None, None, None));
        assert_eq!(offset(b"field:int pid; offset:x;", "pid"), None);
        assert_eq!(offset(b"field:int pid; offset:99999999999;", "pid"), None);
    }

    #[test]
    fn mangled_formats_never_panic() {
        let mut random = fastrand::Rng::with_seed(12);
        for _ in 0..5000 {
            let mut mangled = FORMAT.to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..mangled.len());
                mangled[at] = random.u8(..);
            }
            mangled.truncate(random.usize(..=mangled.len()));
            assert!(offset(&mangled, "no such field").is_none());
        }
    }
}
