//! How much of what was written to a server its machine has not taken yet.
//!
//! The kernel buffers megabytes, which at a usual bit rate is half a minute of media: without
//! looking there, a server that has stopped reading is noticed only when they are full.

use std::collections::HashSet;
use std::fs;

/// Established, in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// Bytes in the send queues of this process's connections to `port`; 0 where the system does not
/// tell.
pub(crate) fn unsent(port: u16) -> u64 {
    let own = own_sockets();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        let queues = queues_to(port, &table);
        let mine = queues.iter().filter(|(inode, _)| own.contains(inode));
        let mine: Vec<u64> = mine.map(|(_, bytes)| *bytes).collect();
        // Each table is a walk through all connections of the machine.
        if !mine.is_empty() {
            return mine.iter().sum();
        }
    }
    0
}

/// Inode and send queue of the connections to `port`.
fn queues_to(port: u16, table: &str) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, remote_port) = fields.get(2)?.rsplit_once(':')?;
        let (queue, _) = fields.get(4)?.split_once(':')?;
        let queue = u64::from_str_radix(queue, 16).ok()?;
        let fits =
            u16::from_str_radix(remote_port, 16).ok()? == port && *fields.get(3)? == ESTABLISHED;
        let inode = fields.get(9)?.parse().ok()?;
        fits.then_some((inode, queue))
    };
    table.lines().filter_map(line).collect()
}

fn own_sockets() -> HashSet<u64> {
    let Ok(files) = fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    let inode = |file: fs::DirEntry| {
        let link = fs::read_link(file.path()).ok()?;
        let text = link.to_str()?;
        text.strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    };
    files.flatten().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_peer_that_does_not_read_shows_at_once() {
        does_not_read("127.0.0.1");
        // Not every machine has it.
        if TcpListener::bind("[::1]:0").is_ok() {
            does_not_read("::1");
        }
    }

    fn does_not_read(host: &str) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stream = TcpStream::connect((host, port)).unwrap();
        let _peer = listener.accept().unwrap();
        assert_eq!(unsent(port), 0);
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = stream.write(&[0; 65_536]) {
            written += bytes as u64;
        }
        let waiting = unsent(port);
        assert!(waiting > 0 && waiting <= written, "{waiting} of {written}");
        assert_eq!(unsent(port ^ 1), 0);
    }

    #[test]
    fn only_open_connections_to_the_port_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:487A 0100007F:078F 01 00000100:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
   1: 0100007F:487B 0100007F:078F 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   2: 0100007F:487C 0100007F:078F 06 00000100:00000000 00:00000000 00000000     0        0 13 1 0
   3: 0100007F:078F 0100007F:487A 01 00000100:00000000 00:00000000 00000000     0        0 14 1 0
   4: broken
";
        assert_eq!(queues_to(1935, table), [(11, 256), (12, 0)]);
    }
}
