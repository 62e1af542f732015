//! The TCP socket under the library, which does not hand it out.
//!
//! Only the kernel knows when bytes last arrived, pings included, and only a `shutdown` of the
//! socket frees a writer that is stuck in it for sure. The link's runtime has its own epoll
//! instance, and `/proc/self/fdinfo` lists what that instance watches: an anchor of ours tells
//! which instance it is, and the one TCP socket in it is the link's. Where this is not to be had
//! (no procfs, a seccomp filter, not Linux) the link works without.

use std::time::Duration;

/// What the kernel knows about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketState {
    /// Since the last byte arrived.
    pub(super) silent: Duration,
    /// Neither side has closed.
    pub(super) open: bool,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Socket;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Socket;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::fs;
    use std::net::{Shutdown, TcpStream};
    use std::os::fd::{AsRawFd as _, RawFd};
    use std::time::Duration;

    use rustix::net::sockopt;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use tokio::runtime::Handle;

    use super::SocketState;

    /// A duplicate of the link's TCP socket.
    #[derive(Debug)]
    pub(crate) struct Socket(TcpStream);

    impl Socket {
        /// Finds the TCP socket that `runtime` watches.
        pub(crate) fn find(runtime: &Handle) -> Option<Self> {
            // Registering needs the runtime's context; the anchor's only job is its number.
            let _context = runtime.enter();
            let anchor = tokio::net::UnixDatagram::unbound().ok()?;
            let anchor_fd = anchor.as_raw_fd();
            let watched = fs::read_dir("/proc/self/fdinfo")
                .ok()?
                .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
                .map(|info| targets(&info))
                .find(|fds| fds.contains(&anchor_fd))?;
            let this_process = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
            watched
                .into_iter()
                // Duplicating through a pidfd fails where the number is stale, and needs no
                // promise that it is not.
                .filter_map(|fd| pidfd_getfd(&this_process, fd, PidfdGetfdFlags::empty()).ok())
                .map(TcpStream::from)
                .find(|socket| socket.peer_addr().is_ok())
                .map(Self)
        }

        /// Sets what the library leaves alone: small messages leave at once instead of waiting
        /// for the peer's delayed acknowledgement (40 ms), and the kernel ends the connection
        /// when data stays unacknowledged for `limit`.
        pub(crate) fn tune(&self, limit: Duration) {
            let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            // Best effort: without the one the link is slower, and the emit timeout covers what
            // the other is for.
            let _ = self.0.set_nodelay(true);
            let _ = sockopt::set_tcp_user_timeout(&self.0, millis);
        }

        /// What the kernel knows; `None` if it does not say.
        pub(crate) fn state(&self) -> Option<SocketState> {
            let info = nix::sys::socket::getsockopt(&self.0, TcpInfo).ok()?;
            let silent = info
                .get(LAST_DATA_RECV..LAST_DATA_RECV + 4)?
                .try_into()
                .ok()?;
            Some(SocketState {
                silent: Duration::from_millis(u64::from(u32::from_ne_bytes(silent))),
                open: info.first() == Some(&ESTABLISHED),
            })
        }

        /// Ends the connection at once, both ways; readers and writers wake up.
        pub(crate) fn shutdown(&self) {
            let _ = self.0.shutdown(Shutdown::Both);
        }
    }

    /// Descriptors an epoll instance watches, from its `fdinfo`.
    fn targets(info: &str) -> BTreeSet<RawFd> {
        info.lines()
            .filter_map(|line| {
                line.strip_prefix("tfd:")?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .collect()
    }

    /// `TCP_INFO`, its first 64 bytes: the same in every kernel.
    #[derive(Debug, Clone, Copy)]
    struct TcpInfo;
    type Head = [u8; 64];
    /// `tcpi_state` comes first; this is `TCP_ESTABLISHED`.
    const ESTABLISHED: u8 = 1;
    /// Offset of `tcpi_last_data_recv`, ms.
    const LAST_DATA_RECV: usize = 52;

    nix::getsockopt_impl!(
        TcpInfo,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        Head,
        nix::sys::socket::sockopt::GetStruct<Head>
    );

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn epoll_fdinfo_is_read() {
            let info = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1060\n\
                        tfd:        7 events: 80000019 data: 1 pos:0 ino:424 sdev:10\n\
                        tfd:       12 events: 8000201d data: 2 pos:0 ino:1b sdev:9\n";
            assert_eq!(targets(info), BTreeSet::from([7, 12]));
            assert_eq!(targets("pos:\t0\nflags:\t02\n"), BTreeSet::new());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::time::Duration;

    use super::SocketState;

    /// Out of reach on this system.
    #[derive(Debug)]
    pub(crate) struct Socket;

    impl Socket {
        pub(crate) fn find(_: &tokio::runtime::Handle) -> Option<Self> {
            None
        }
        pub(crate) fn tune(&self, _: Duration) {}
        pub(crate) fn state(&self) -> Option<SocketState> {
            None
        }
        pub(crate) fn shutdown(&self) {}
    }
}
