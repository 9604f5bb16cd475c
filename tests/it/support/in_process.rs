//! An HTTP server within the test process, on a separate thread.
//!
//! Only for services that are not available as a program. The definition of its routes names the service and
//! the documents that its answers follow.

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
                    // The sender is never used, and dropped with the server.
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
            // A panic is already reported, and a second one here would abort the tests.
            let _ = thread.join();
        }
    }
}
