//! Another user of this machine.

use std::thread;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// `nobody`, who owns nothing and is in no group.
pub(crate) const NOBODY: u32 = 65_534;

/// Runs a function as `nobody`, on a separate thread; `None` without root, when we cannot change the user.
pub(crate) fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> Option<T> {
    as_somebody(&[], act)
}

/// The same, with a supplementary group.
pub(crate) fn as_member_of<T: Send>(group: u32, act: impl FnOnce() -> T + Send) -> Option<T> {
    as_somebody(&[Gid::from_raw(group)], act)
}

fn as_somebody<T: Send>(groups: &[Gid], act: impl FnOnce() -> T + Send) -> Option<T> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let become_nobody = || {
        set_thread_groups(groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    };
    thread::scope(|scope| {
        let acted = scope.spawn(|| become_nobody().ok().map(|()| act()));
        acted.join().expect("the other user does not panic")
    })
}

/// Reports a part of a test that is skipped.
#[expect(clippy::print_stderr, reason = "a test that does less must not look like the whole one")]
pub(crate) fn not_root(what: &str) {
    eprintln!("this user is not root: {what}");
}
