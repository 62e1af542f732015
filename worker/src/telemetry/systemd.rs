//! Tells systemd how the worker is, where systemd asked for it (`NOTIFY_SOCKET`).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state`, such as `READY=1` or `WATCHDOG=1`. Never blocks; a manager that does not listen
/// misses it.
pub fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        // Nothing depends on it, and the next one comes in a second.
        let _ = send(&socket, state);
    }
}

fn send(socket: &OsStr, state: &str) -> std::io::Result<usize> {
    let addr = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("worker-test-{}", std::process::id());
        let listeners = [
            (
                path.as_os_str().to_owned(),
                UnixDatagram::bind(&path).unwrap(),
            ),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (socket, listener) in listeners {
            send(&socket, "READY=1").unwrap();
            let mut text = [0; 16];
            let count = listener.recv(&mut text).unwrap();
            assert_eq!(&text[..count], b"READY=1", "{}", socket.display());
        }
        assert!(send(dir.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
