//! Several hosts on this machine with a network between them: each host is a Linux network namespace, and a cable (a
//! pair of virtual Ethernet devices) joins it to a bridge. A test pulls a host's cable and plugs it in again. No packet
//! leaves. Used by tests of fleets.

use std::net::Ipv4Addr;
use std::process::Stdio;

use crate::namespace::Namespace;

/// The hosts and what joins them.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Namespace>,
    /// Where the bridge is. It is dropped after the hosts.
    hub: Namespace,
}

impl Network {
    /// A network of so many hosts, at most 200; `None` where the machine forbids it.
    #[must_use]
    pub fn new(hosts: u8) -> Option<Self> {
        let hub = Namespace::new()?;
        run(&hub, "ip link add bridge0 type bridge && ip link set bridge0 up")?;
        let mut network = Self { hosts: Vec::new(), hub };
        (0..hosts).try_for_each(|_| network.add_host())?;
        Some(network)
    }

    fn add_host(&mut self) -> Option<()> {
        let host = self.hub.another()?;
        let (cable, address) = (cable(self.hosts.len()), address(self.hosts.len()));
        let keeper = host.keeper();
        let plugged = format!(
            "ip link add {cable} type veth peer name eth0 netns {keeper} && \
             ip link set {cable} master bridge0 && ip link set {cable} up"
        );
        run(&self.hub, &plugged)?;
        run(&host, &format!("ip address add {address}/24 dev eth0 && ip link set eth0 up"))?;
        self.hosts.push(host);
        Some(())
    }

    /// The namespace of a host, counted from 0.
    #[must_use]
    pub fn host(&self, number: usize) -> &Namespace {
        &self.hosts[number]
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, number: usize) -> Ipv4Addr {
        assert!(number < self.hosts.len(), "there is no host {number}");
        address(number)
    }

    /// Pulls the cable of a host. It reaches itself only.
    ///
    /// # Panics
    /// If that can't be done.
    pub fn cut(&self, number: usize) {
        run(&self.hub, &format!("ip link set {} down", cable(number))).expect("the cable is pulled");
    }

    /// Plugs the cable of a host in again.
    ///
    /// # Panics
    /// If that can't be done.
    pub fn heal(&self, number: usize) {
        run(&self.hub, &format!("ip link set {} up", cable(number))).expect("the cable is plugged in");
    }
}

fn cable(host: usize) -> String {
    format!("cable{host}")
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).expect("few hosts"))
}

/// Runs a script; `None` if it fails.
fn run(namespace: &Namespace, script: &str) -> Option<()> {
    let mut command = namespace.command("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok().filter(std::process::ExitStatus::success).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(network: &Network, from: usize, to: usize) -> bool {
        let address = network.address(to);
        // A port that nobody listens on is refused at once by a host that is reached.
        let script = format!("timeout 2 bash -c '</dev/tcp/{address}/9' 2>&1 | grep -q refused");
        run(network.host(from), &script).is_some()
    }

    #[test]
    fn a_host_whose_cable_is_pulled_reaches_nobody() {
        let Some(network) = Network::new(3) else {
            eprintln!("skipped: this machine allows no network namespaces");
            return;
        };
        assert!(reaches(&network, 0, 1) && reaches(&network, 1, 2));
        network.cut(1);
        assert!(!reaches(&network, 0, 1) && !reaches(&network, 1, 2));
        assert!(reaches(&network, 0, 2) && reaches(&network, 1, 1));
        network.heal(1);
        assert!(reaches(&network, 0, 1) && reaches(&network, 1, 2));
    }
}
