//! A look at the Agent's door for whoever wants to know, without sending anything: an empty line, which the Agent passes
//! over, shows whether somebody reads.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::link::{Link, LinkError};
use super::target::AgentTarget;

/// Whether what is sent gets read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readership {
    /// The Agent took what lay before its door.
    Reads,
    /// It is there, and leaves everything lying.
    Unread,
    /// By UDP to another host, or another network namespace, nobody says no, and nobody says yes either.
    Unknown,
}

/// There is no door, or it is shut. Says what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NoAgent(#[from] LinkError);

/// More than a Unix socket's queue usually holds (`net.unix.max_dgram_qlen`, 10 or 512).
const KNOCKS: usize = 1_000;
/// An Agent that reads at all has read within this time.
const READING_TIME: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Knocks, and sees whether that is heard. Takes a second at most, besides the look-up of a name.
///
/// # Errors
/// When nothing can be sent.
pub async fn examine(target: &AgentTarget) -> Result<Readership, NoAgent> {
    let target = target.clone();
    let addresses: Vec<SocketAddr> = match &target {
        AgentTarget::Udp { host, port } => {
            tokio::net::lookup_host((host.as_str(), *port)).await.map(Iterator::collect).unwrap_or_default()
        }
        AgentTarget::Unix(_) => Vec::new(),
    };
    let knocking = tokio::task::spawn_blocking(move || match &target {
        AgentTarget::Unix(path) => Ok(is_taken_in(&Link::to_socket(path)?)),
        AgentTarget::Udp { host, .. } => {
            let link = Link::to_any_address(&addresses, host)?;
            Ok(if addresses.iter().any(|address| link.leads_to_the_agent(&[*address]) && address.ip().is_loopback()) {
                is_read_here(&addresses)
            } else {
                Readership::Unknown
            })
        }
    });
    // Fails only while the runtime shuts down.
    knocking.await.unwrap_or(Ok(Readership::Unknown))
}

/// A Unix socket that is not read is full before long, and stays so.
fn is_taken_in(link: &Link) -> Readership {
    if (0..KNOCKS).all(|_| link.has_room()) {
        return Readership::Reads;
    }
    let until = Instant::now() + READING_TIME;
    while Instant::now() < until {
        if link.has_room() {
            return Readership::Reads;
        }
        thread::sleep(PAUSE);
    }
    Readership::Unread
}

/// The kernel tells how much lies unread before each UDP socket of this network namespace.
fn is_read_here(addresses: &[SocketAddr]) -> Readership {
    let Some(port) = addresses.first().map(SocketAddr::port) else { return Readership::Unknown };
    let until = Instant::now() + READING_TIME;
    loop {
        let tables =
            ["/proc/net/udp", "/proc/net/udp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
        match tables.iter().filter_map(|table| unread_bytes(table, port)).reduce(u64::saturating_add) {
            None => return Readership::Unknown,
            Some(0) => return Readership::Reads,
            Some(_) if Instant::now() >= until => return Readership::Unread,
            Some(_) => thread::sleep(PAUSE),
        }
    }
}

/// Of all sockets at this port in a table such as `/proc/net/udp` (`proc_pid_net(5)`); `None` when there is none.
fn unread_bytes(table: &str, port: u16) -> Option<u64> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, at) = fields.nth(1)?.rsplit_once(':')?;
        let (_, unread) = fields.nth(2)?.split_once(':')?;
        (u16::from_str_radix(at, 16).ok()? == port).then(|| u64::from_str_radix(unread, 16).ok())?
    });
    sockets.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn what_lies_unread_stands_in_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            1: 0100007F:1FBD 00000000:0000 07 00000000:00000300 00:00000000 00000000  0 0 1 2 0 0\n\
            2: 00000000:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 1 2 0 0\n\
            3: 00000000:1FBD 00000000:0000 07 00000000:00000001 00:00000000 00000000  0 0 1 2 0 0\n\
            odd\n";
        for (port, expected) in [(8125, Some(0x301)), (8126, Some(0)), (8127, None)] {
            assert_eq!(unread_bytes(table, port), expected, "{port}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_reads_is_told_from_one_that_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dsd.socket");
        let target = AgentTarget::Unix(path.clone());
        assert!(examine(&target).await.unwrap_err().to_string().contains("no socket at"));
        let agent = UnixDatagram::bind(&path).unwrap();
        assert_eq!(examine(&target).await.unwrap(), Readership::Unread);
        thread::spawn(move || while agent.recv(&mut [0; 16]).is_ok() {});
        assert_eq!(examine(&target).await.unwrap(), Readership::Reads);

        let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target: AgentTarget = format!("udp://{}", agent.local_addr().unwrap()).parse().unwrap();
        assert_eq!(examine(&target).await.unwrap(), Readership::Unread);
        thread::spawn(move || while agent.recv(&mut [0; 16]).is_ok() {});
        assert_eq!(examine(&target).await.unwrap(), Readership::Reads);
        let nobody: AgentTarget = "udp://127.0.0.1:1".parse().unwrap();
        assert!(examine(&nobody).await.unwrap_err().to_string().contains("nothing listens"));
    }
}
