use std::os::unix::fs::symlink;

use rustix::fs::{CWD, mkfifoat};
use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn only_a_regular_file_is_read_and_only_up_to_a_size() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "four").expect("it is ours");
    symlink(path("file"), path("link")).expect("it is ours");
    symlink("/dev/zero", path("device")).expect("it is ours");
    mkfifoat(CWD, path("pipe"), Mode::RWXU).expect("it is ours");
    assert_eq!(read(&path("file"), 4).expect("it fits"), b"four");
    assert_eq!(read(&path("link"), 4).expect("it is followed"), b"four");
    assert_eq!(read(&path("file"), 3).expect_err("it does not").kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(read(&path("none"), 4).expect_err("it is not there").kind(), io::ErrorKind::NotFound);
    assert_eq!(read(folder.path(), 4).expect_err("no file").kind(), io::ErrorKind::IsADirectory);
    for name in ["pipe", "device"] {
        let error = read(&path(name), 4).expect_err("it is no file").to_string();
        assert_eq!(error, "a pipe, a socket or a device, expected a regular file", "{name}");
    }
    assert!(read_no_follow(&path("file"), 4).is_ok());
    let error = read_no_follow(&path("link"), 4).expect_err("it is a link").to_string();
    assert_eq!(error, "a symbolic link, expected a regular file");
    let error = read_stream(Path::new("/dev/zero"), 4).expect_err("it has no end");
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn what_is_written_follows_no_link_and_leaves_nothing_else_behind() {
    let folder = folder();
    let (place, precious) = (folder.path().join("place"), folder.path().join("precious"));
    fs::write(&precious, "precious").expect("it is ours");
    symlink(&precious, &place).expect("it is ours");
    replace(&place, b"new", PRIVATE_FILE).expect("it can be written");
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    assert_eq!(fs::read(&place).expect("it is there"), b"new");
    assert_eq!(names(folder.path()), ["place", "precious"]);

    fs::create_dir(folder.path().join("directory")).expect("it is ours");
    let error = replace(&folder.path().join("directory"), b"", PRIVATE_FILE).expect_err("it is in the way");
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    drop(Staged::write(&place, b"newer", PRIVATE_FILE).expect("it can be written"));
    assert_eq!(fs::read(&place).expect("it is there"), b"new");
    assert_eq!(names(folder.path()), ["directory", "place", "precious"]);
    move_aside(&folder.path().join("directory")).expect("it is ours");
    replace(&folder.path().join("directory"), b"new", PRIVATE_FILE).expect("it is out of the way");
}

#[test]
fn what_a_crash_left_is_removed_once_it_is_old() {
    let folder = folder();
    let place = folder.path().join("place");
    let staged = |name: &str, age: i64| {
        let file = File::create(folder.path().join(name)).expect("it is ours");
        let modified = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs((clock::now().as_second() - age).unsigned_abs());
        file.set_modified(modified).expect("it is ours");
    };
    staged(".signpost-old.tmp", 2 * LEFT_BEHIND);
    staged(".signpost-new.tmp", 0);
    staged(".other.tmp", 2 * LEFT_BEHIND);
    replace(&place, b"new", PRIVATE_FILE).expect("it can be written");
    assert_eq!(names(folder.path()), [".other.tmp", ".signpost-new.tmp", "place"]);

    let half_bound = folder.path().join(".signpost-bound.tmp");
    fs::create_dir(&half_bound).expect("it is ours");
    let socket = UnixListener::bind(half_bound.join(SOCKET)).expect("it can be bound");
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_hours(24);
    File::open(&half_bound).and_then(|it| it.set_modified(long_ago)).expect("it is ours");
    bind_socket(&folder.path().join("bound"), PRIVATE_FILE, None).expect("it can be bound");
    assert_eq!(names(folder.path()), [".other.tmp", ".signpost-new.tmp", "bound", "place"]);
    drop(socket);
}

#[test]
fn a_lock_is_a_file_of_that_name() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    mkfifoat(CWD, path("pipe"), Mode::RWXU).expect("it is ours");
    symlink(path("elsewhere"), path("link")).expect("it is ours");
    for name in ["pipe", "link"] {
        let error = open_lock(&path(name), PRIVATE_FILE).expect_err("it is no file").to_string();
        assert!(error.ends_with("expected a regular file"), "{name}: {error}");
    }
    assert!(!path("elsewhere").exists());
}
