//! Ids of Entra: GUIDs, and the subjects of tokens that are made for an exchange.

use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::core::jose::publication::hex;

/// Whether the text is a GUID, as Microsoft writes one: 32 hexadecimal digits in five groups.
#[must_use]
pub fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The order in which .NET writes the bytes of a GUID: the first three groups with the lowest byte first.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A GUID as subjects have it: base64url of its bytes in the order of .NET.
#[must_use]
pub fn encoded_guid(guid: &str) -> Option<String> {
    let digits: String = guid.chars().filter(|digit| *digit != '-').collect();
    if !is_guid(guid) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("two digits");
    Some(Base64UrlUnpadded::encode_string(&ORDER.map(byte)))
}

/// The GUID that a subject has.
#[must_use]
pub fn decoded_guid(text: &str) -> Option<String> {
    let bytes: [u8; 16] = Base64UrlUnpadded::decode_vec(text).ok()?.try_into().ok()?;
    // The order is its own inverse.
    let hex = hex(&ORDER.map(|at| bytes[at]));
    let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Some(groups.join("-"))
}

/// The subject of a token that is made for an exchange: `/eid1/c/pub/t/TENANT/a/APPLICATION/PATH`.
///
/// Source: observed in tokens of blueprints, of Azure DevOps and of bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeSubject<'a> {
    /// As [`encoded_guid`] has it.
    pub tenant: &'a str,
    /// As [`encoded_guid`] has it.
    pub application: &'a str,
    /// For a blueprint, the client id of the agent identity.
    pub path: &'a str,
}

impl<'a> ExchangeSubject<'a> {
    #[must_use]
    pub fn parse(subject: &'a str) -> Option<Self> {
        let (tenant, rest) = subject.strip_prefix("/eid1/c/pub/t/")?.split_once("/a/")?;
        let (application, path) = rest.split_once('/')?;
        Some(Self { tenant, application, path })
    }
}

#[cfg(test)]
mod tests;
