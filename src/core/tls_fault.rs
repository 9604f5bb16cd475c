//! Explains TLS errors of a server.
//!
//! The types of TLS errors are private to the clients; the messages of OpenSSL are stable.

use std::{error::Error, fmt};

/// The reason that is followed by a verdict on the certificate.
const VERIFY_FAILED: &str = "certificate verify failed";

/// Why a TLS connection failed: OpenSSL's verdict on the certificate, else its reason for the failed
/// handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault(String);

impl TlsFault {
    /// Finds the fault in an error or its causes.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        causes
            .map(ToString::to_string)
            .find(|text| text.contains("SSL routines"))
            .map(|text| Self::in_text(&text))
    }

    /// Parses `error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:DATA`, followed by the verdict on the
    /// certificate, which one client puts in parentheses and another after a colon.
    fn in_text(text: &str) -> Self {
        let reason = text.split(':').nth(4).unwrap_or(text);
        let in_brackets =
            text.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(verdict, _)| verdict);
        let behind =
            || text.rsplit_once(": ").map(|(_, verdict)| verdict).filter(|_| reason == VERIFY_FAILED);
        let verdict = in_brackets.or_else(behind);
        Self(verdict.map_or_else(|| reason.to_owned(), |verdict| format!("certificate: {verdict}")))
    }

    /// What to do about it. `authorities` names the setting for trusted CA certificates.
    #[must_use]
    pub fn fix(&self, authorities: &str) -> String {
        let says = |words: &[&str]| words.iter().any(|word| self.0.contains(word));
        if says(&["issuer certificate", "self-signed", "first certificate"]) {
            format!(
                "name the certificate of a private authority in {authorities}; one of a public authority is sent with its whole chain"
            )
        } else if says(&["hostname mismatch", "IP address mismatch"]) {
            "use a host that the certificate names, or give the server a certificate for this one".to_owned()
        } else if says(&["expired", "not yet valid"]) {
            "renew the certificate of the server; if it is good, set the clock of this machine".to_owned()
        } else {
            "check that TLS is spoken there: `openssl s_client -connect HOST:PORT`".to_owned()
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer(#[source] std::io::Error);

    fn fault(text: &str) -> Option<TlsFault> {
        TlsFault::of(&Outer(std::io::Error::other(text.to_owned())))
    }

    #[test]
    fn the_verdict_on_a_certificate_is_all_that_is_shown_of_the_text_of_openssl() {
        let verify = |verdict: &str| {
            fault(&format!(
                "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                 ../ssl/statem/statem_clnt.c:1889: ({verdict})"
            ))
            .expect("it is one")
        };
        let unknown = verify("unable to get local issuer certificate");
        assert_eq!("certificate: unable to get local issuer certificate", unknown.to_string());
        assert!(unknown.fix("`ca_file`").contains("in `ca_file`"));
        assert!(verify("self-signed certificate").fix("`ca_file`").contains("`ca_file`"));
        assert!(verify("hostname mismatch").fix("").contains("a host that the certificate names"));
        assert!(verify("certificate has expired").fix("").contains("renew"));
    }

    #[test]
    fn the_verdict_is_found_where_either_client_puts_it() {
        let begin = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                     ../ssl/statem/statem_clnt.c:1889:";
        for text in [format!("{begin} (hostname mismatch)"), format!("{begin}: hostname mismatch")] {
            assert_eq!("certificate: hostname mismatch", fault(&text).expect("it is one").to_string());
        }
        assert_eq!(VERIFY_FAILED, fault(begin).expect("it is one").to_string());
    }

    #[test]
    fn a_server_without_tls_is_told_in_the_words_of_the_handshake() {
        let text =
            "error:0A00010B:SSL routines:tls_validate_record_header:wrong version number:../ssl/x.c:77:";
        let fault = fault(text).expect("it is one");
        assert_eq!("wrong version number", fault.to_string());
        assert!(fault.fix("").contains("`openssl s_client"));
    }

    #[test]
    fn other_errors_are_none() {
        assert_eq!(None, fault("Connection refused (os error 111)"));
    }
}
