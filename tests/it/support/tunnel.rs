//! A forward proxy that opens tunnels (`CONNECT`, RFC 9110 section 9.3.6) to one server for any host: a
//! corporate proxy resolves names that its clients cannot.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) struct Tunnel {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// Forwards to `HOST:PORT`. It ends with the tests.
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (server, log) = (server.to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, log) = (server.clone(), Arc::clone(&log));
                thread::spawn(move || lead(client, &server, &log));
            }
        });
        Self { address, seen }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The heads of all requests since the last call.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("nobody panics while holding it"))
    }
}

fn lead(client: TcpStream, server: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    // The client sends nothing after its head before it is answered.
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let is_tunnel = head.starts_with("CONNECT ");
    log.lock().expect("nobody panics while holding it").push(head);
    let mut client = client;
    if !is_tunnel {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut to_server = server;
    let _ = io::copy(&mut client, &mut to_server);
    let _ = to_server.shutdown(Shutdown::Both);
    let _ = back.join();
    Ok(())
}
