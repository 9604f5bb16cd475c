//! An HTTP server within the test process, on a thread of its own.
//!
//! Only for what cannot be had as a program. What it stands for, and on which documents its answers
//! rest, is said where its routes are written.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::port::Port;

pub(crate) struct InProcess {
    port: Port,
    listening: Option<(oneshot::Sender<Infallible>, JoinHandle<()>)>,
}

impl InProcess {
    pub(crate) fn serve(router: Router) -> Self {
        let port = Port::free();
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let number = port.number();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).await;
                let listener = listener.expect("the port is free");
                listening.send(()).expect("the test waits");
                tokio::select! {
                    // The sender is dropped with the server; nothing is ever sent.
                    _ = stopped => {}
                    served = axum::serve(listener, router) => served.expect("it serves"),
                }
            });
        });
        is_listening.recv().expect("it listens");
        Self { port, listening: Some((stop, thread)) }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.listening.take() {
            drop(stop);
            // If it panicked, it has said so, and a second panic here would abort the tests.
            let _ = thread.join();
        }
    }
}
