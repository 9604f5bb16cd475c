//! What nodes say of their keys, as it is posted.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::json;
use signpost::core::signer::announcement::{Announcement, SignedAnnouncement};

use super::{now, told};

const MARGIN: Duration = Duration::from_mins(5);

/// As it stands in a `ConfigMap`, and as what is signed there: the same bytes would be mostly base64.
pub(super) fn run(bytes: &[u8]) -> bool {
    let announcement = Announcement::parse(bytes);
    match &announcement {
        Ok(announcement) => {
            let rendered = announcement.to_json();
            assert_eq!(Ok(announcement), Announcement::parse(&rendered).as_ref());
            assert!(announcement.content_eq(announcement));
            let keys = announcement.keys();
            assert!(announcement.listed(now(), MARGIN).all(|key| keys.get(key.jwk.kid()) == Some(key)));
        }
        Err(invalid) => drop(told(invalid)),
    }
    let unsigned = json!({"payload": Base64UrlUnpadded::encode_string(bytes), "signatures": []});
    for posted in [bytes, unsigned.to_string().as_bytes()] {
        match SignedAnnouncement::read(posted) {
            Ok(posted) => {
                let keys = posted.announcement().keys();
                assert!(posted.signed_by().iter().all(|kid| keys.contains_key(kid)));
            }
            Err(invalid) => drop(told(&invalid)),
        }
    }
    announcement.is_ok()
}
