//! Words that stand for those of the evidence.
//!
//! Each run of letters and digits is replaced by a word that stands for it everywhere, in the same case, unless it
//! is one that everybody uses; what lies between stays. So equal stays equal, a slash stays a slash, and nothing
//! else survives.

use std::collections::BTreeMap;

use crate::core::{
    entra::{ExchangeSubject, TOKEN_EXCHANGE, decoded_guid, encoded_guid, is_guid},
    verification::is_public_host,
};

/// Words that everybody uses, in lower case.
const COMMON: &str = "https http system serviceaccount api azureadtokenexchange azureadtokenexchangeusgov \
    azureadtokenexchangechina azureadmyorg aksidentitybinding kubernetes default svc cluster local internal localhost \
    login microsoftonline com us cn org net io dev eu partner chinacloudapi microsoft windows sts graph management \
    azure core vault storage usgovcloudapi microsoftgraph token actions githubusercontent gitlab app terraform oic \
    prod aks eks amazonaws container googleapis accounts google repo ref refs heads tags pull request environment \
    project path type branch main openid v1 v2 0 jwks well known configuration keys discovery oauth2 oauth certs \
    eid1 c pub t a sc spiffe ns sa vstoken common organizations consumers onmicrosoft onmschina b2clogin me offline access as user read";

pub(super) const TENANT: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(super) const CLIENT: &str = "11111111-1111-4111-8111-111111111111";
pub(super) const OBJECT: &str = "22222222-2222-4222-8222-222222222222";
const ZEROS: &str = "00000000-0000-0000-0000-000000000000";
/// A word of more characters keeps its length.
const LONG: usize = 40;

/// The words that stand for those of the evidence.
#[derive(Default)]
pub(super) struct Words {
    /// By the word in lower case: its number, and its spellings.
    replaced: BTreeMap<String, (usize, Vec<String>)>,
    guids: BTreeMap<String, String>,
    numbers: BTreeMap<String, usize>,
    kids: BTreeMap<String, usize>,
    addresses: BTreeMap<String, usize>,
}

impl Words {
    /// The text in which each word is replaced.
    pub(super) fn anonymous(&mut self, text: &str) -> String {
        if let Some(ExchangeSubject { tenant, application, path }) = ExchangeSubject::parse(text) {
            let [tenant, application] = [tenant, application].map(|guid| self.encoded_guid(guid));
            return format!("/eid1/c/pub/t/{tenant}/a/{application}/{}", self.anonymous(path));
        }
        if let Some(address) = self.address(text) {
            return address;
        }
        let mut rest = text;
        let mut result = String::new();
        while let Some(first) = rest.chars().next() {
            let guid = rest.get(..36).filter(|it| is_guid(it));
            let is_word = |it: char| it.is_alphanumeric();
            let length = if guid.is_some() { 36 } else { rest.find(|it| !is_word(it)).unwrap_or(rest.len()) };
            let (taken, after) =
                if length == 0 { rest.split_at(first.len_utf8()) } else { rest.split_at(length) };
            result += &match guid {
                Some(guid) => self.guid(guid),
                None if length == 0 => mark(first).to_string(),
                None => self.word(taken),
            };
            rest = after;
        }
        result
    }

    /// A URL at an address: one at an address of the same kind.
    fn address(&mut self, text: &str) -> Option<String> {
        let url = url::Url::parse(text).ok()?;
        let host = url.host()?;
        let next = self.addresses.len() + 1;
        let number = *self.addresses.entry(host.to_string()).or_insert(next) % 250;
        let stands_for = match host {
            url::Host::Domain(_) => return None,
            url::Host::Ipv4(it) if it.is_loopback() => "127.0.0.1".to_owned(),
            url::Host::Ipv6(it) if it.is_loopback() => "[::1]".to_owned(),
            _ if is_public_host(&host) => format!("203.0.113.{number}"),
            _ => format!("10.0.0.{number}"),
        };
        // As it is written, not as it is parsed: a slash more or less matters.
        let rest = text.split_once("://")?.1;
        let path = rest.find('/').map_or("", |at| &rest[at..]).to_owned();
        let port = url.port().map(|port| format!(":{}", self.word(&port.to_string()))).unwrap_or_default();
        Some(format!("{}://{stands_for}{port}{}", url.scheme(), self.anonymous(&path)))
    }

    fn word(&mut self, word: &str) -> String {
        let lower = word.to_lowercase();
        if COMMON.split_whitespace().any(|common| common == lower) {
            return word.to_owned();
        }
        if word.bytes().all(|it| it.is_ascii_digit()) {
            let next = self.numbers.len();
            return (1000 + *self.numbers.entry(lower).or_insert(next)).to_string();
        }
        let next = self.replaced.len() + 1;
        let (number, spellings) = self.replaced.entry(lower).or_insert((next, Vec::new()));
        let place = spellings.iter().position(|it| it == word).unwrap_or_else(|| {
            spellings.push(word.to_owned());
            spellings.len() - 1
        });
        // Letters of a number in base 26, each in a case of its own.
        let cases = ["name", "Name", "NAME", "nAme", "naMe", "namE", "NAme", "nAMe", "naME"];
        let unusual = if word.is_ascii() { "" } else { "\u{e9}" };
        let fill = "x".repeat(if word.len() > LONG { word.len() - LONG } else { 0 });
        format!("{}{number}{unusual}{fill}", cases[place.min(cases.len() - 1)])
    }

    fn guid(&mut self, guid: &str) -> String {
        let lower = guid.to_lowercase();
        if lower == TOKEN_EXCHANGE || lower == ZEROS {
            return guid.to_owned();
        }
        let next = self.guids.len() + 1;
        let known =
            self.guids.entry(lower.clone()).or_insert_with(|| format!("bbbbbbbb-bbbb-4bbb-8bbb-{next:012}"));
        if guid == lower { known.clone() } else { known.to_uppercase() }
    }

    fn encoded_guid(&mut self, encoded: &str) -> String {
        let guid = decoded_guid(encoded);
        let known = guid.map(|guid| self.guid(&guid));
        known.and_then(|guid| encoded_guid(&guid)).unwrap_or_else(|| self.word(encoded))
    }

    /// The name of the key with this id.
    pub(super) fn kid(&mut self, kid: &str) -> String {
        let next = self.kids.len();
        format!("key-{}", 1 + *self.kids.entry(kid.to_owned()).or_insert(next))
    }

    /// Has these ids stand for what they are.
    pub(super) fn name(&mut self, guid: Option<&str>, stands_for: &str) {
        if let Some(guid) = guid.filter(|it| is_guid(it) && *it != ZEROS) {
            self.guids.entry(guid.to_lowercase()).or_insert_with(|| stands_for.to_owned());
        }
    }
}

/// A character between words; those that nobody uses there are told by one.
fn mark(character: char) -> char {
    if character.is_ascii() || character.is_whitespace() { character } else { '\u{b7}' }
}

#[cfg(test)]
mod tests;
