//! Reconciles a signing node: passes it its desired state, and lets it do what is due.

use std::{sync::Arc, time::Duration};

use tokio::{select, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    blocking, clock,
    core::{
        signer::{DesiredState, SignerStep},
        text::{Hint, redaction::error_line},
    },
    signer::Node,
    telemetry::FailureLog,
};

/// Time between two reconciliations: keys expire at a time, not with an event.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a node: to create a key takes seconds on a busy machine, and longer in a PKCS#11 token.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which reading files that others may write counts as hanging.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// Reconciles a node and reads the announcements of others, until `stop`. The node continues with what is on
/// its disk whatever happens to the publisher and to the files of others.
pub async fn run_signer<T>(
    node: Arc<Node>,
    heard: watch::Receiver<T>,
    orders: impl Fn(&T) -> DesiredState,
    stop: CancellationToken,
) {
    let listening = read_peers(Arc::clone(&node), stop.clone());
    tokio::join!(reconcile(node, heard, orders, stop), listening);
}

async fn read_peers(node: Arc<Node>, stop: CancellationToken) {
    loop {
        let listened = {
            let node = Arc::clone(&node);
            let directory = node.settings().announcements.clone();
            async move { blocking::in_turn(&directory, move || node.read_peers()).await }
        };
        tokio::pin!(listened);
        let mut hangs = false;
        loop {
            select! {
                () = stop.cancelled() => return,
                () = &mut listened => break,
                () = sleep(SLOW_AFTER), if !hangs => {
                    let directory = node.settings().announcements.display();
                    warn!(%directory, "reading the announcements of other nodes hangs");
                    hangs = true;
                }
            }
        }
        if hangs {
            info!("the announcements of other nodes are read again");
        }
        select! {
            () = stop.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}

async fn reconcile<T>(
    node: Arc<Node>,
    mut heard: watch::Receiver<T>,
    orders: impl Fn(&T) -> DesiredState,
    stop: CancellationToken,
) {
    let (name, issuer, margin, keyring) = {
        let settings = node.settings();
        (settings.node.clone(), settings.issuer.clone(), settings.margin, settings.keyring.clone())
    };
    let mut trouble = FailureLog::default();
    let mut distrusted = Vec::new();
    loop {
        let orders = orders(&heard.borrow_and_update());
        let refused = orders.key(&node.journal(), clock::now(), margin).err();
        let reconciled = {
            let node = Arc::clone(&node);
            blocking::within(TIMEOUT, &keyring, move || node.reconcile(&orders, clock::now()))
        };
        let reconciled = select! {
            () = stop.cancelled() => return,
            reconciled = reconciled => reconciled,
        };
        let hint =
            || Some(format!("check what `{}` is mounted from, and whether that responds", keyring.display()));
        let now_wrong = match (&reconciled, &refused) {
            (Err(hangs), _) => Some((error_line(hangs), hint())),
            (Ok(Err(error)), _) => Some((error_line(error), error.hint())),
            (Ok(Ok(_)), Some(refused)) => Some((error_line(refused), None)),
            (Ok(Ok(_)), None) => None,
        };
        node.metrics().record_reconcile(now_wrong.as_ref().map(|(text, _)| text.clone()));
        match now_wrong {
            Some((text, hint)) => {
                if trouble.record_failure(&text) {
                    error!(%issuer, node = %name, error = text, hint, "signer reconciliation failed");
                }
            }
            None => {
                if let Some(failures) = trouble.record_success() {
                    info!(%issuer, node = %name, failures, "signer reconciliation works again");
                }
            }
        }
        // A hanging thread may hold its lock.
        let now_distrusted = if reconciled.is_ok() { node.rejected() } else { distrusted.clone() };
        for reason in now_distrusted.iter().filter(|reason| !distrusted.contains(*reason)) {
            let hint = reason.hint();
            warn!(%issuer, node = %name, reason = %reason, hint, "announcement rejected");
        }
        distrusted = now_distrusted;
        for step in reconciled.iter().flatten().flatten() {
            let (what, kid) = match step {
                SignerStep::Generate => ("key generated", None),
                SignerStep::Begin { kid, ordered: None } => ("signs for the API server only", Some(kid)),
                SignerStep::Begin { kid, ordered: Some(_) } | SignerStep::Allow { kid, .. } => {
                    ("signs for external audiences", Some(kid))
                }
                // The error above gives the reason.
                SignerStep::Refuse { .. } => ("order refused", None),
                SignerStep::Reassert { .. } => ("announced again, the last announcement was rejected", None),
                SignerStep::Stop { kid } => ("stopped signing", Some(kid)),
                SignerStep::Exclude { kid } => ("excluded from discovery", Some(kid)),
                SignerStep::Destroy { kid } => ("private key destroyed", Some(kid)),
            };
            info!(%issuer, node = %name, kid = kid.map(tracing::field::display), what, "signing key");
        }
        select! {
            () = stop.cancelled() => return,
            changed = heard.changed() => if changed.is_err() { return },
            () = sleep(EVERY) => {}
        }
    }
}
