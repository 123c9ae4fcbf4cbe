//! Execs of which the kernel tells little (`nobtf`), completed from `/proc` while the process is there.
//!
//! What `/proc` shows may be of another program already, because a process can execute as often as it likes. So what
//! was seen counts only when no later exec of the process is in the ring after the look, and when its arguments lie
//! where the record says; another exec puts them elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use collector_common::collector::Failure;
use collector_common::parse::exec_record::ExecRecord;
use collector_common::parse::proc_pid::{Stat, Uids};
use collector_common::root::Root;

use super::HELD_UP;
use super::apart::{self, Undone};
use super::bpf::TICK_NS;
use super::connector::STACK_BYTES;
use super::image::{Image, parent_executable, start_ticks};

/// What `/proc` showed.
#[derive(Clone, Default)]
struct Seen {
    image: Image,
    /// When who has the number of the parent was made; 0 where it is who `/proc` names.
    parent_start_ticks: u64,
}

/// Records on their way to events.
#[derive(Default)]
pub struct Glance {
    fresh: Vec<ExecRecord>,
    ready: VecDeque<(ExecRecord, Image)>,
}

impl Glance {
    /// Completes what `fill` takes out of the ring and says how many records it was. `fill` appends all there is.
    pub async fn complete(
        &mut self,
        root: &Root,
        mut fill: impl FnMut(&mut Vec<ExecRecord>),
    ) -> Result<usize, Failure> {
        if self.fresh.is_empty() {
            fill(&mut self.fresh);
        }
        let seen = look(root, &self.fresh).await?;
        let records = mem::take(&mut self.fresh);
        fill(&mut self.fresh);
        // Of a process that executed again only its last program was there to be seen, or one that is not known yet.
        let mut later: BTreeSet<i32> = self.fresh.iter().map(|record| record.pid).collect();
        let count = records.len();
        let mut completed = VecDeque::with_capacity(count);
        for record in records.into_iter().rev() {
            let image = whole(&record, seen.get(&record.pid).cloned().unwrap_or_default(), &later);
            later.insert(record.pid);
            completed.push_front((record, image));
        }
        self.ready.append(&mut completed);
        Ok(count)
    }

    /// Completes all without a look at anything, because the agent stops.
    pub fn finish(&mut self, mut fill: impl FnMut(&mut Vec<ExecRecord>)) {
        fill(&mut self.fresh);
        for record in mem::take(&mut self.fresh) {
            let image = whole(&record, Seen::default(), &BTreeSet::new());
            self.ready.push_back((record, image));
        }
    }

    /// Whether there is a next exec.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next exec of which all is known that will be.
    pub fn next(&mut self) -> Option<(ExecRecord, Image)> {
        self.ready.pop_front()
    }
}

/// Looks in a thread, which does not come back when a process holds it up; only reading arguments can.
async fn look(root: &Root, records: &[ExecRecord]) -> Result<BTreeMap<i32, Seen>, Failure> {
    if records.is_empty() {
        return Ok(BTreeMap::new());
    }
    let of = |record: &ExecRecord| (record.pid, (record.parent_pid, record.arguments.is_some()));
    let processes: BTreeMap<i32, (i32, bool)> = records.iter().map(of).collect();
    let root = root.clone();
    let see = move |(pid, (parent, has_arguments))| {
        let mut image = if has_arguments { Image::read_without_arguments(&root, pid) } else { Image::read(&root, pid) };
        let mut parent_start_ticks = 0;
        if parent > 0 {
            image.parent_executable = parent_executable(&root, parent);
            // After its program: a number that is given away in between belongs to who is younger.
            parent_start_ticks = start_ticks(&root, parent).unwrap_or(u64::MAX);
        }
        (pid, Seen { image, parent_start_ticks })
    };
    let looked = move || processes.into_iter().map(see).collect();
    apart::done("exec-glance", STACK_BYTES, HELD_UP, looked).await.map_err(|undone| match undone {
        Undone::HeldUp => Failure("a process holds up whoever reads its files in /proc: end it".to_owned()),
        Undone::Failed(why) => Failure(format!("looking at /proc failed: {why}")),
    })
}

/// What is known of an exec, the kernel's words first: `/proc` has no say in who it was and with which arguments.
/// `later` are those who executed after it, up to the look.
fn whole(exec: &ExecRecord, seen: Seen, later: &BTreeSet<i32>) -> Image {
    let Seen { image: mut seen, parent_start_ticks } = seen;
    let parent_executable = seen.parent_executable.take();
    let is_last = !later.contains(&exec.pid);
    let image = if is_last && is_of(&seen, exec) { seen } else { Image::default() };
    // The parent may have ended long ago, and another process may have its number.
    let made = image.stat.as_ref().map_or(u64::MAX, |stat| stat.start_ticks).min(exec.boottime_ns / TICK_NS);
    let is_parent = parent_start_ticks <= made;
    // Who it became since does not tell who it was.
    let uids = image.uids.filter(|uids| uids.real == exec.uid);
    let parent_pid = match &image.stat {
        Some(stat) if exec.parent_pid == 0 => stat.parent_pid,
        _ => exec.parent_pid,
    };
    let start_ticks = image.stat.as_ref().map_or(0, |stat| stat.start_ticks);
    Image {
        is_only_asked_for: image.executable.is_none() && exec.asked.is_some(),
        executable: image.executable.or_else(|| exec.asked.clone()),
        arguments: exec.arguments.clone().or(image.arguments),
        uids: Some(Uids { real: exec.uid, effective: uids.map_or(exec.uid, |uids| uids.effective) }),
        parent_executable: parent_executable.filter(|_| is_parent && parent_pid != 0 && !later.contains(&parent_pid)),
        // Nobody is the parent of the first process.
        stat: (parent_pid != 0 || exec.pid == 1).then(|| Stat::of_exec(exec.name.clone(), parent_pid, start_ticks)),
        ..image
    }
}

/// Whether an image is that of an exec, as far as can be told.
fn is_of(image: &Image, exec: &ExecRecord) -> bool {
    let Some(stat) = &image.stat else { return false };
    match (exec.arguments_at, stat.arguments_at()) {
        (0, _) | (_, 0) => stat.name == exec.name,
        (then, now) => then == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::parse::cmdline::ArgumentArea;

    fn exec(pid: i32, asked: &str) -> ExecRecord {
        ExecRecord {
            boottime_ns: u64::MAX,
            start_boottime_ns: 0,
            arguments_at: 0,
            pid,
            parent_pid: 7,
            uid: 1000,
            effective_uid: 0,
            login_uid: None,
            pid_namespace: 0,
            net_namespace: 0,
            deleted: false,
            name: b"x".to_vec(),
            arguments: Some(ArgumentArea::whole(*b"x\0y\0")),
            path: None,
            parent_path: None,
            asked: Some(asked.as_bytes().to_vec()),
            script: None,
            directory: None,
            cgroup: None,
        }
    }

    /// What comes of records, with others that come while `/proc` is looked at.
    async fn completed(mut records: Vec<ExecRecord>, mut later: Vec<ExecRecord>) -> Vec<Image> {
        let mut glance = Glance::default();
        let mut fill = |fresh: &mut Vec<ExecRecord>| {
            let which = if records.is_empty() { &mut later } else { &mut records };
            fresh.append(which);
        };
        while glance.complete(&Root::host(), &mut fill).await.unwrap() > 0 {}
        glance.finish(|_| {});
        std::iter::from_fn(|| glance.next().map(|(_, image)| image)).collect()
    }

    #[tokio::test]
    async fn of_a_process_that_is_gone_remains_what_the_kernel_told() {
        let gone = i32::MAX;
        let images =
            completed(vec![exec(gone, "/a"), ExecRecord { parent_pid: 0, ..exec(gone - 1, "./b") }], vec![]).await;
        for (image, asked) in images.iter().zip(["/a", "./b"]) {
            assert_eq!((image.executable.as_deref(), image.is_only_asked_for), (Some(asked.as_bytes()), true));
            assert_eq!(image.arguments, Some(ArgumentArea::whole(*b"x\0y\0")));
            assert_eq!(image.uids.map(|uids| uids.real), Some(1000));
        }
        assert_eq!(images[0].stat.as_ref().map(|stat| stat.parent_pid), Some(7));
        assert_eq!(images[1].stat, None);
    }

    #[tokio::test]
    async fn a_parent_that_executed_meanwhile_was_another_program() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Image::read(&Root::host(), pid).executable;
        let child = || ExecRecord { parent_pid: pid, ..exec(i32::MAX, "/a") };
        let parent = || exec(pid, "/b");
        let told = async |records, later| completed(records, later).await[0].parent_executable.clone();
        assert_eq!(told(vec![child()], vec![]).await, own);
        assert_eq!(told(vec![child(), parent()], vec![]).await, None);
        assert_eq!(told(vec![child()], vec![parent()]).await, None);
        assert_eq!(completed(vec![parent(), child()], vec![]).await[1].parent_executable, own);
    }

    #[tokio::test]
    async fn who_got_the_number_of_a_parent_that_ended_is_not_the_parent() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started_ns = start_ticks(&Root::host(), pid).unwrap() * TICK_NS;
        let told = async |executed_ns| {
            let child = ExecRecord { parent_pid: pid, boottime_ns: executed_ns, ..exec(i32::MAX, "/a") };
            completed(vec![child], vec![]).await[0].parent_executable.is_some()
        };
        assert!(told(started_ns).await && !told(started_ns - 1).await);
        // The first process is there, was made long before this one, and executed a moment ago.
        let name = Image::read(&Root::host(), 1).stat.unwrap().name;
        let child = ExecRecord { parent_pid: pid, name, ..exec(1, "/a") };
        assert_eq!(completed(vec![child], vec![]).await[0].parent_executable, None);
    }

    #[tokio::test]
    async fn who_became_another_since_says_nothing_of_who_executed() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Image::read(&Root::host(), pid);
        let (uids, stat) = (own.uids.unwrap(), own.stat.unwrap());
        let told = async |uid| {
            let record = ExecRecord { arguments_at: stat.arguments_at(), uid, ..exec(pid, "/a") };
            completed(vec![record], vec![]).await[0].uids.unwrap().effective
        };
        assert_eq!((told(uids.real).await, told(uids.real + 1).await), (uids.effective, uids.real + 1));
    }

    /// This process is there to be looked at, but what it runs is not what executed.
    #[tokio::test]
    async fn what_proc_shows_of_a_process_that_executed_again_is_not_believed() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Image::read(&Root::host(), pid);
        let stat = own.stat.clone().unwrap();
        let by_name = |name: &[u8]| ExecRecord { name: name.to_vec(), ..exec(pid, "/evil") };
        let by_place = |arguments_at| ExecRecord { arguments_at, ..exec(pid, "/evil") };
        let right = || by_place(stat.arguments_at());
        let mut told = Vec::new();
        for (records, later) in [
            (vec![right()], vec![]),
            (vec![by_name(&stat.name)], vec![]),
            (vec![by_name(b"other")], vec![]),
            (vec![by_place(stat.arguments_at() + 1)], vec![]),
            (vec![right(), right()], vec![]),
            (vec![right()], vec![right()]),
        ] {
            let images = completed(records, later).await;
            told.push(images.iter().map(|image| image.is_only_asked_for).collect::<Vec<_>>());
            assert!(images.iter().all(|image| image.is_only_asked_for || image.executable == own.executable));
        }
        let expected: [&[bool]; 6] = [&[false], &[false], &[true], &[true], &[true, false], &[true, false]];
        assert_eq!(told, expected);
    }
}
