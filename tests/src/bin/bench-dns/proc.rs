//! What processes have cost. Takes a process group, returns the CPU time and the memory of all its processes, as
//! `/proc` has them. Called by `server`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use bailiwick_tests::process::text_of;

/// CPU time spent so far.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    /// Nanoseconds on a core, by the scheduler's account, of each thread: one that ends takes its account with it.
    threads: BTreeMap<u32, u64>,
    /// Ticks outside the kernel.
    user: u64,
    /// Ticks within it.
    system: u64,
}

/// CPU time spent between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spent {
    /// Nanoseconds on a core, of the threads there are at the end.
    pub(crate) nanoseconds: u64,
    /// Ticks outside the kernel.
    user: u64,
    /// Ticks within it.
    system: u64,
}

impl Cpu {
    /// The `count` threads that spent most since `earlier`, by their ids; those that spent nothing are none of them.
    pub(crate) fn busiest(&self, earlier: &Self, count: usize) -> Vec<u32> {
        let spent = |id: &u32, now: u64| now.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0));
        let mut all: Vec<(u64, u32)> = self.threads.iter().map(|(id, &now)| (spent(id, now), *id)).collect();
        all.retain(|&(spent, _)| spent > 0);
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().take(count).map(|(_, id)| id).collect()
    }

    /// What was spent since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let of_thread = |(id, now): (&u32, &u64)| now.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0));
        Spent {
            nanoseconds: self.threads.iter().map(of_thread).sum(),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Spent {
    /// The nanoseconds outside the kernel. Ticks are coarse: only their share is used.
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    pub(crate) fn user_nanoseconds(self) -> f64 {
        let ticks = self.user + self.system;
        if ticks == 0 { 0.0 } else { self.nanoseconds as f64 * self.user as f64 / ticks as f64 }
    }
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq)]
struct Stat {
    /// Whether it has ended and only waits to be reaped.
    ended: bool,
    group: i32,
    user: u64,
    system: u64,
}

/// Reads a line of `/proc/PID/stat`. The second field is the program's name and may hold anything, parentheses and
/// spaces too.
fn stat(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from 1; the first two were cut off.
    let field = |number: usize| fields.get(number - 3).copied();
    let ended = matches!(field(3)?, "Z" | "X");
    Some(Stat {
        ended,
        group: field(5)?.parse().ok()?,
        user: field(14)?.parse().ok()?,
        system: field(15)?.parse().ok()?,
    })
}

/// The first field of a `schedstat`: nanoseconds on a core.
fn schedstat(line: &str) -> Option<u64> {
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The proportional set size in a `smaps_rollup`, in octets.
fn pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The processes of a group, with their `stat`.
fn members(group: i32) -> Vec<(u32, Stat)> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, stat(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?)))
        .filter(|(_, stat)| stat.group == group)
        .collect()
}

/// Whether any process of a group still runs.
pub(crate) fn runs(group: i32) -> bool {
    members(group).iter().any(|(_, stat)| !stat.ended)
}

/// What a group's processes have cost so far, all threads together.
pub(crate) fn cpu(group: i32) -> Cpu {
    let mut cpu = Cpu::default();
    for (id, stat) in members(group) {
        cpu.user += stat.user;
        cpu.system += stat.system;
        let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let times = threads.filter_map(|thread| {
            let time = schedstat(&fs::read_to_string(thread.path().join("schedstat")).ok()?)?;
            Some((thread.file_name().to_str()?.parse().ok()?, time))
        });
        let times: BTreeMap<u32, u64> = times.collect();
        // A kernel without the scheduler's account leaves ticks.
        match times.values().any(|&time| time > 0) {
            true => cpu.threads.extend(times),
            false => _ = cpu.threads.insert(id, (stat.user + stat.system) * tick()),
        }
    }
    cpu
}

/// What the calling thread has cost so far, and nothing that it started.
pub(crate) fn own() -> Cpu {
    let read = |file: &str| fs::read_to_string(Path::new("/proc/thread-self").join(file)).unwrap_or_default();
    let Some(stat) = stat(&read("stat")) else { return Cpu::default() };
    let (user, system) = (stat.user, stat.system);
    let ticks = (user + system) * tick();
    let time = schedstat(&read("schedstat")).filter(|&time| time > 0).unwrap_or(ticks);
    Cpu { threads: BTreeMap::from([(0, time)]), user, system }
}

/// A tick in nanoseconds.
fn tick() -> u64 {
    static TICK: OnceLock<u64> = OnceLock::new();
    *TICK.get_or_init(|| 1_000_000_000 / text_of("getconf", ["CLK_TCK"]).trim().parse().unwrap_or(100))
}

/// The memory of a group's processes in octets; what they share with each other counts once.
pub(crate) fn memory(group: i32) -> u64 {
    let of = |id| pss(&fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?);
    members(group).into_iter().filter_map(|(id, _)| of(id)).sum()
}

/// The processor's name and the load of the last minute, for the report.
pub(crate) fn machine() -> (String, f64) {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let named = read("/proc/cpuinfo");
    let name = named.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    (name.map_or("an unnamed processor".to_owned(), |(_, name)| name.trim().to_owned()), load)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_programs_name_cant_confuse_the_fields() {
        let line = "4711 (a) b (c) S 1 4700 4700 0 -1 4194560 1 2 3 4 500 250 0 0 20 0 1 0 99 1 1 18446744073709551615";
        assert_eq!(stat(line), Some(Stat { ended: false, group: 4700, user: 500, system: 250 }));
        assert_eq!(stat("4711 (cut off) S 1"), None);
        assert!(stat(&line.replace(" S ", " Z ")).is_some_and(|stat| stat.ended));
    }

    #[test]
    fn user_time_is_the_share_of_ticks() {
        let cpu =
            |threads: &[(u32, u64)], user, system| Cpu { threads: threads.iter().copied().collect(), user, system };
        let earlier = cpu(&[(1, 1_000), (2, 90_000)], 10, 10);
        let later = cpu(&[(1, 4_000), (3, 1_000)], 11, 13);
        let spent = later.since(&earlier);
        assert_eq!(spent, Spent { nanoseconds: 4_000, user: 1, system: 3 }, "the second thread has ended");
        assert!((spent.user_nanoseconds() - 1_000.0).abs() < 1e-9);
        assert!(earlier.since(&earlier).user_nanoseconds().abs() < 1e-9);
        assert_eq!(later.busiest(&earlier, 1), [1], "the third has less");
        assert_eq!(later.busiest(&earlier, 3), [1, 3]);
        assert_eq!(later.busiest(&later, 3), [0; 0]);
    }

    #[test]
    fn memory_is_measured_in_octets() {
        assert_eq!(pss("5581 [rollup]\nRss:  900 kB\nPss:            1028 kB\nPss_Dirty: 1 kB\n"), Some(1028 * 1024));
        assert_eq!(pss(""), None);
    }

    #[test]
    fn this_groups_time_grows_as_it_works() {
        let group = nix::unistd::getpgrp().as_raw();
        let (before, began) = (cpu(group), Instant::now());
        let mut sum = 0_u64;
        while cpu(group).since(&before).nanoseconds < 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(began.elapsed() < Duration::from_secs(30), "a millisecond of work shows");
        }
        assert!(memory(group) > 100_000);
    }

    #[test]
    fn this_threads_own_time_is_not_that_of_what_it_starts() {
        let (before, began) = (own(), Instant::now());
        bailiwick_tests::process::run("sh", ["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
        let (waited, idle) = (began.elapsed(), own().since(&before).nanoseconds);
        assert!(u128::from(idle) < waited.as_nanos() / 2, "{idle} ns of {waited:?}, in which the shell worked");
        let mut sum = 0_u64;
        while own().since(&before).nanoseconds < idle + 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(began.elapsed() < Duration::from_secs(30), "a millisecond of work shows");
        }
    }
}
