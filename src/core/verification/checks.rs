//! The table of checks. The rules behind it: of the [`token`] itself, and of the [`documents`] that are
//! published.

mod documents;
mod token;

use documents::{
    discovery_can_be_read, discovery_is_complete, discovery_is_there, discovery_names_the_issuer,
    documents_are_json, issuer_is_public, issuer_is_usable, jwks_can_be_read, jwks_is_there,
    jwks_uri_is_usable, key_is_for_signatures, key_is_published, signature_verifies,
};
use token::{
    does_not_live_long, has_a_known_type, has_its_claims, has_the_audience, has_the_issuer, has_the_subject,
    is_alive, is_jws, names_a_key, signs_with_rs256,
};

use super::{
    Certainty::{Documented, Inferred, Observed},
    Check,
    Level::{Error, Note, Warning},
    Verdict,
};

/// The check without which nothing is accepted.
pub(super) const SIGNATURE: &str = "SIG";

/// All checks, in the order in which a relying party can make them.
pub const CHECKS: &[Check] = &[
    Check { id: "TOK-JWS", level: Error, codes: &[50_027], certainty: Observed, judge: is_jws },
    Check {
        id: "TOK-ALG",
        level: Error,
        codes: &[5_002_738],
        certainty: Documented,
        judge: signs_with_rs256,
    },
    Check { id: "TOK-TYP", level: Error, codes: &[5_002_727], certainty: Observed, judge: has_a_known_type },
    Check { id: "TOK-KID", level: Error, codes: &[5_002_723], certainty: Observed, judge: names_a_key },
    Check { id: "TOK-CLAIMS", level: Error, codes: &[90_014], certainty: Documented, judge: has_its_claims },
    Check { id: "TOK-ISS", level: Error, codes: &[700_211], certainty: Documented, judge: has_the_issuer },
    Check { id: "TOK-SUB", level: Error, codes: &[700_213], certainty: Documented, judge: has_the_subject },
    Check { id: "TOK-AUD", level: Error, codes: &[700_212], certainty: Documented, judge: has_the_audience },
    Check { id: "TOK-TIME", level: Error, codes: &[700_024], certainty: Documented, judge: is_alive },
    Check { id: "TOK-LIFE", level: Warning, codes: &[], certainty: Inferred, judge: does_not_live_long },
    Check { id: "ISS-SYNTAX", level: Error, codes: &[501_661], certainty: Inferred, judge: issuer_is_usable },
    Check {
        id: "ISS-PUBLIC",
        level: Note,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: issuer_is_public,
    },
    Check {
        id: "PUB-DISCOVERY",
        level: Error,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: discovery_is_there,
    },
    Check {
        id: "DISC-PARSE",
        level: Error,
        codes: &[501_661],
        certainty: Observed,
        judge: discovery_can_be_read,
    },
    Check {
        id: "DISC-ISS",
        level: Error,
        codes: &[501_661],
        certainty: Inferred,
        judge: discovery_names_the_issuer,
    },
    Check {
        id: "DISC-FIELDS",
        level: Error,
        codes: &[501_661],
        certainty: Observed,
        judge: discovery_is_complete,
    },
    Check {
        id: "DISC-JWKSURI",
        level: Error,
        codes: &[501_661],
        certainty: Inferred,
        judge: jwks_uri_is_usable,
    },
    Check {
        id: "PUB-JWKS",
        level: Error,
        codes: &[501_661, 90_061],
        certainty: Observed,
        judge: jwks_is_there,
    },
    Check { id: "PUB-CTYPE", level: Warning, codes: &[], certainty: Inferred, judge: documents_are_json },
    Check { id: "JWKS-PARSE", level: Error, codes: &[900_612], certainty: Observed, judge: jwks_can_be_read },
    Check {
        id: "JWKS-USE",
        level: Error,
        codes: &[7_000_272],
        certainty: Inferred,
        judge: key_is_for_signatures,
    },
    Check { id: "JWKS-KID", level: Error, codes: &[7_000_272], certainty: Observed, judge: key_is_published },
    Check {
        id: SIGNATURE,
        level: Error,
        codes: &[7_000_274],
        certainty: Observed,
        judge: signature_verifies,
    },
];

fn holds(observed: impl Into<String>) -> Verdict {
    Verdict::Holds(observed.into())
}

fn violated(observed: impl Into<String>, fix: impl Into<String>) -> Verdict {
    Verdict::Violated { observed: observed.into(), fix: fix.into() }
}

/// The commonest difference deserves words.
fn slash(found: &str, expected: &str) -> &'static str {
    if found.trim_end_matches('/') == expected.trim_end_matches('/') {
        ": they differ in the final `/` alone"
    } else {
        ""
    }
}
