//! Which core does what: the cores this process may use enter, those of servers and of the generator leave.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How cores are divided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cores {
    servers: Vec<usize>,
    generator: usize,
}

impl Cores {
    /// Divides the cores this process may use: servers with so many threads get the first, the generator the next.
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
        let generator = all.get(threads).or(all.last()).copied().unwrap_or(0);
        Self { servers, generator }
    }

    /// Whether the generator works where servers do.
    pub(crate) fn shared(&self) -> bool {
        self.servers.contains(&self.generator)
    }

    /// Puts the calling thread, and so what it starts, on the servers' cores while `start` runs; then back on the generator's.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn on_servers<T>(&self, start: impl FnOnce() -> T) -> Result<T, String> {
        pin(&self.servers)?;
        let started = start();
        self.on_generator()?;
        Ok(started)
    }

    /// Puts the calling thread on the generator's core.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn on_generator(&self) -> Result<(), String> {
        pin(&[self.generator])
    }

    /// In words.
    pub(crate) fn told(&self) -> String {
        let list = self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let plural = if self.servers.len() == 1 { "core" } else { "cores" };
        let shared = if self.shared() { ", which they share: figures are worth less" } else { "" };
        format!("servers on {plural} {list}, the generator on core {}{shared}", self.generator)
    }
}

fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    cores
        .iter()
        .try_for_each(|&core| set.set(core))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("the system doesn't let this run on core {cores:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_a_core_of_its_own_where_there_is_one() {
        let told = |all: &[usize], threads| {
            let cores = Cores::among(all, threads);
            (cores.servers.clone(), cores.generator, cores.shared())
        };
        assert_eq!(told(&[0, 1], 1), (vec![0], 1, false));
        assert_eq!(told(&[2, 3, 5], 2), (vec![2, 3], 5, false));
        assert_eq!(told(&[0, 1], 2), (vec![0, 1], 1, true));
        assert_eq!(told(&[0], 1), (vec![0], 0, true));
        assert_eq!(told(&[0], 4), (vec![0], 0, true));
    }
}
