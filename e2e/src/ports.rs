//! Free ports for programs that cannot bind port 0 themselves.
//!
//! A lease is exclusive among all runs of this machine and avoids the range from which the kernel
//! takes ports for outgoing connections, so nobody else grabs a port between its release here and
//! the moment the program binds it. What is left (a program outside the suite) shows as a failed
//! start, which [`with_leases`] repeats with another port.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use anyhow::{Result, bail};
use rand::Rng as _;

/// Lowest port that is handed out.
const LOWEST: u16 = 15_000;
/// First port of the kernel's own range where it cannot be read.
const USUAL_EPHEMERAL: u16 = 32_768;
/// Ports tried before giving up; a machine with that many busy ones has another problem.
const TRIES: usize = 200;

/// A port that belongs to this run until the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    port: u16,
    /// Keeps the port busy until the program that gets it is about to start.
    held: Option<TcpListener>,
    /// Name in the kernel's abstract socket namespace: visible to every run, gone with this process.
    _mark: UnixListener,
}

impl Lease {
    /// Takes a free port of the loopback interface.
    ///
    /// # Errors
    /// When none was free.
    pub fn take() -> Result<Self> {
        let range = LOWEST..ephemeral_start().max(LOWEST + 1);
        let mut rng = rand::rng();
        for _ in 0..TRIES {
            if let Some(lease) = Self::try_take(rng.random_range(range.clone())) {
                return Ok(lease);
            }
        }
        bail!("no free port between {} and {}", range.start, range.end)
    }

    fn try_take(port: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("dub-e2e-port-{port}")).ok()?;
        let mark = UnixListener::bind_addr(&name).ok()?;
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self {
            port,
            held: Some(held),
            _mark: mark,
        })
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the port go so that a program can bind it; other runs still leave it alone.
    pub fn release(&mut self) -> u16 {
        self.held = None;
        self.port
    }

    /// Whether nothing listens on the port (any more).
    pub fn is_free(&self) -> bool {
        self.held.is_some() || TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }
}

/// Runs `start` with `N` released leases, and again with others when it fails because one of the
/// ports was busy after all.
///
/// # Errors
/// When no port is free, or `start` fails for another reason or too often.
pub fn with_leases<const N: usize, T>(
    mut start: impl FnMut([u16; N]) -> Result<T>,
) -> Result<([Lease; N], T)> {
    const ATTEMPTS: usize = 3;
    let mut attempt = 1;
    loop {
        let leases: Vec<_> = (0..N).map(|_| Lease::take()).collect::<Result<_>>()?;
        let leases = <[Lease; N]>::try_from(leases);
        let mut leases = leases.expect("as many as were taken");
        let ports = leases.each_mut().map(Lease::release);
        match start(ports) {
            Ok(started) => return Ok((leases, started)),
            Err(error) if attempt < ATTEMPTS && is_busy(&error) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error says that a port was taken: the words of the kernel, quoted by every server.
fn is_busy(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    text.contains("address already in use") || text.contains("(98:")
}

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(USUAL_EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_exclusive_until_dropped() {
        let mut lease = Lease::take().unwrap();
        let port = lease.port();
        assert!(
            Lease::try_take(port).is_none(),
            "handed out twice while held"
        );
        lease.release();
        assert!(
            Lease::try_take(port).is_none(),
            "handed out twice while released for a program"
        );
        assert!(lease.is_free());
        let program = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!lease.is_free());
        drop((lease, program));
        assert!(Lease::try_take(port).is_some(), "not handed out again");
    }

    #[test]
    fn leases_stay_out_of_the_kernels_range() {
        let leases: Vec<_> = (0..50).map(|_| Lease::take().unwrap()).collect();
        let kernels = ephemeral_start();
        assert!(
            leases
                .iter()
                .all(|lease| (LOWEST..kernels.max(LOWEST + 1)).contains(&lease.port()))
        );
    }

    #[test]
    fn a_busy_port_is_replaced() {
        let mut tried = Vec::new();
        let (leases, ()) = with_leases::<2, _>(|ports| {
            tried.push(ports);
            if tried.len() == 1 {
                bail!(
                    "bind() to 127.0.0.1:{} failed (98: Address already in use)",
                    ports[0]
                );
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(tried.len(), 2);
        assert_eq!(leases.map(|lease| lease.port()), tried[1]);
    }

    #[test]
    fn another_failure_is_not_repeated() {
        let mut tried = 0;
        let error = with_leases::<1, ()>(|_| {
            tried += 1;
            bail!("no such module")
        })
        .unwrap_err();
        assert_eq!((tried, error.to_string().as_str()), (1, "no such module"));
    }
}
