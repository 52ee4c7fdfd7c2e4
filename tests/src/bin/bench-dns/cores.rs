//! Divides the cores. Takes those that this process may use, returns those of the servers and those of the generator.
//! Called by `main`.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How cores are divided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cores {
    /// How many threads the servers on them have.
    pub(crate) threads: usize,
    servers: Vec<usize>,
    generator: Vec<usize>,
}

impl Cores {
    /// Divides the cores this process may use: servers with so many threads get the first, the generator the next; if
    /// there is none, it goes wherever servers leave it room.
    ///
    /// # Errors
    /// When the system doesn't tell.
    pub(crate) fn divide(threads: usize) -> Result<Self, String> {
        let set = sched_getaffinity(Pid::from_raw(0))
            .map_err(|error| format!("the system doesn't tell which cores there are: {error}"))?;
        let all: Vec<usize> = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect();
        Ok(Self::among(&all, threads))
    }

    fn among(all: &[usize], threads: usize) -> Self {
        let servers = all[..threads.min(all.len())].to_vec();
        // Bound to one of them it would leave the others idle whenever that one is behind.
        let generator = all.get(threads).map_or_else(|| servers.clone(), |&core| vec![core]);
        Self { threads, servers, generator }
    }

    /// How many cores its servers have.
    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// Whether the generator works where servers do.
    pub(crate) fn shared(&self) -> bool {
        self.generator.iter().any(|core| self.servers.contains(core))
    }

    /// Puts the calling thread, and so what it starts, on the servers' cores while `start` runs; then back on the
    /// generator's.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn on_servers<T>(&self, start: impl FnOnce() -> T) -> Result<T, String> {
        pin(&self.servers)?;
        let started = start();
        self.on_generator()?;
        Ok(started)
    }

    /// Puts the calling thread on the generator's cores.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn on_generator(&self) -> Result<(), String> {
        pin(&self.generator)
    }

    /// Gives each of some threads one of the servers' cores, in turn. Woken by a generator, those of a server would be
    /// put on one core together, and stay there for as long as a measurement takes.
    ///
    /// # Errors
    /// When the system refuses, or a thread has ended.
    pub(crate) fn spread(&self, threads: &[u32]) -> Result<(), String> {
        for (&thread, &core) in threads.iter().zip(self.servers.iter().cycle()) {
            pin_thread(i32::try_from(thread).unwrap_or(i32::MAX), &[core])?;
        }
        Ok(())
    }

    /// In words.
    pub(crate) fn description(&self) -> String {
        let [servers, generator] = [&self.servers, &self.generator].map(|cores| match &cores[..] {
            [core] => format!("core {core}"),
            cores => format!("cores {}", cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        });
        match self.shared() {
            true => format!("servers and the generator share {servers}"),
            false => format!("servers on {servers}, the generator on {generator}"),
        }
    }
}

fn pin(cores: &[usize]) -> Result<(), String> {
    pin_thread(0, cores)
}

/// Puts a thread on cores; 0 is the calling one.
fn pin_thread(thread: i32, cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    cores
        .iter()
        .try_for_each(|&core| set.set(core))
        .and_then(|()| sched_setaffinity(Pid::from_raw(thread), &set))
        .map_err(|error| format!("the system doesn't let this run on core {cores:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_a_core_of_its_own_where_there_is_one() {
        let description = |all: &[usize], threads| {
            let cores = Cores::among(all, threads);
            (cores.servers.clone(), cores.generator.clone(), cores.shared())
        };
        assert_eq!(description(&[0, 1], 1), (vec![0], vec![1], false));
        assert_eq!(description(&[2, 3, 5], 2), (vec![2, 3], vec![5], false));
        assert_eq!(description(&[0, 1], 2), (vec![0, 1], vec![0, 1], true));
        assert_eq!(description(&[0], 1), (vec![0], vec![0], true));
        assert_eq!(description(&[0], 4), (vec![0], vec![0], true));
        assert_eq!(Cores::among(&[0, 1], 2).description(), "servers and the generator share cores 0, 1");
        assert_eq!(Cores::among(&[0, 1], 1).description(), "servers on core 0, the generator on core 1");
    }
}
