//! Reserves ports from their choice until their use.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::components;

// Below the ephemeral range of Linux: while a component is stopped for a restart on its port, no outgoing
// connection can be given that port.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port on 127.0.0.1 that no other test holds, in this process or another.
#[derive(Clone)]
pub(crate) struct Port {
    number: u16,
    // Locked as long as a clone lives; the kernel unlocks it when a test process is killed.
    _lock: Arc<File>,
}

impl Port {
    pub(crate) fn free() -> Self {
        static TRIED: AtomicU16 = AtomicU16::new(0);
        let locks = components::cache().join("ports");
        fs::create_dir_all(&locks).expect("the cache is writable");
        // Processes that start together begin at different ports, to avoid collisions.
        let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
        for _ in 0..COUNT {
            let step = TRIED.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (start.wrapping_mul(61).wrapping_add(step)) % COUNT;
            let lock = File::create(locks.join(number.to_string())).expect("the cache is writable");
            let unused = || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if lock.try_lock().is_ok() && unused() {
                return Self { number, _lock: Arc::new(lock) };
            }
        }
        panic!("no port is free from {FIRST} to {}", FIRST + COUNT - 1);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }
}
