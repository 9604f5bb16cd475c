use std::sync::mpsc;

use super::*;

/// A writer that blocks until it is released.
struct Slow {
    may: mpsc::Receiver<()>,
    written: mpsc::Sender<Vec<u8>>,
}

impl Write for Slow {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.may.recv().map_err(io::Error::other)?;
        self.written.send(line.to_vec()).map_err(io::Error::other)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stops_holds_nobody_up_and_what_finds_no_room_is_counted() {
    let queue = Arc::<Queue>::default();
    let (may, allowed) = mpsc::channel();
    let (written, lines) = mpsc::channel();
    let writer = Arc::clone(&queue);
    thread::spawn(move || writer.write_all(&mut Slow { may: allowed, written }));
    let line = vec![b'x'; 1000];
    // The writer may hold one more line.
    let room = ROOM / line.len();
    for _ in 0..2 * room {
        queue.push(line.clone());
    }
    let dropped = queue.dropped.load(Ordering::Relaxed);
    assert!((room as u64 - 1..=room as u64).contains(&dropped), "{dropped}");
    for _ in 0..2 * room - usize::try_from(dropped).expect("few") {
        may.send(()).expect("it writes");
        assert_eq!(line, lines.recv().expect("it writes"));
    }
    queue.push(b"again".to_vec());
    may.send(()).expect("it writes");
    assert_eq!(b"again".to_vec(), lines.recv().expect("it writes"));
}
