//! Finds the process that uses an address, as far as the kernel permits: root sees all, others only their own
//! processes.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use crate::core::text::redaction::printable;

/// The state of a listening socket (`TCP_LISTEN` of the kernel).
const LISTENS: &str = "0A";

/// Describes the process that listens on an address; `None` where it is not visible.
pub(super) fn holder(address: SocketAddr) -> Option<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().find_map(|table| inode(table, address))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let has_it = |process: &fs::DirEntry| {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*socket))
    };
    // `/proc` also contains `self`.
    let id = |process: &fs::DirEntry| process.file_name().to_str()?.parse::<u32>().ok();
    let process = processes.into_iter().find(|process| id(process).is_some() && has_it(process))?;
    let id = id(&process)?;
    // A process chooses its own name.
    let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
    Some(format!("process {id}, `{}`", printable(name.trim_end())))
}

/// The inode of a socket that listens on an address or on all of them, from a table such as `/proc/net/tcp`
/// (proc(5)).
fn inode(table: &str, address: SocketAddr) -> Option<&str> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, .., inode] = fields.get(..10)? else { return None };
        let (ip, port) = local.split_once(':')?;
        let is_all = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        let meets = is_all(ip) || address.ip().is_unspecified() || ip == hex(address.ip());
        (*state == LISTENS && meets && port == format!("{:04X}", address.port())).then_some(*inode)
    })
}

/// An address in the kernel's format: hexadecimal words in native byte order.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    words.map(|word| format!("{word:08X}")).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests;
