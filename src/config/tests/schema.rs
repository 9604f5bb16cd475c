//! The structs, the reader and the documentation agree.

use serde_json::{Value, json};

use super::load;
use crate::config::{
    Flags, flags,
    schema::{example, expected, json_schema, reference, sections},
};

/// A file with every section, and `{…}` where a key of a section can be added.
fn with_key(section: &str, line: &str) -> String {
    let place = |at: &str| if at == section { format!("{line}, ") } else { String::new() };
    format!(
        "{{{root}tls: {{{tls}certificate: /c, private_key: /k}}, events: {{{events}pod: a/b}}, issuers: [{{{issuer}issuer: https://oidc.example.com/kind, sources: [\
         {{{api}kind: api-server, instances: [{{{instance}url: 'https://10.0.0.1:6443'}}]}}, \
         {{{files}kind: files, paths: [/a]}}, {{{url}kind: url, url: 'https://a/jwks'}}], \
         targets: [{{{target}url: 's3://bucket'}}]}}, \
         {{issuer: https://oidc.example.com/b, \
         sources: [{{{embedded}kind: embedded}}, {{{announcements}kind: announcements}}], \
         ledger: {{{ledger}config_map: a/b}}, previous_issuers: [{{{previous}issuer: 'https://old.example.com/kind'}}], \
         verify: {{{verify}exchange: {{{exchange}tenant: a.b, client_id: 85075aa5-1d73-42de-812a-95348218e4b2}}}}, \
         rotate_within: {{{rotate_within}opens: '0 2 * * *', for: 4h}}, \
         signer: {{{signer}pkcs11: {{{pkcs11}module: /m, token_label: t, pin_file: /p}}, additional_verification_keys: [{{{legacy}file: /a}}]}}}}]}}",
        root = place("the top level"),
        tls = place("tls"),
        events = place("events"),
        issuer = place("issuers[]"),
        api = place("issuers[].sources[] of kind `api-server`"),
        instance = place("issuers[].sources[].instances[]"),
        files = place("issuers[].sources[] of kind `files`"),
        url = place("issuers[].sources[] of kind `url`"),
        announcements = place("issuers[].sources[] of kind `announcements`"),
        target = place("issuers[].targets[]"),
        embedded = place("issuers[].sources[] of kind `embedded`"),
        ledger = place("issuers[].ledger"),
        previous = place("issuers[].previous_issuers[]"),
        verify = place("issuers[].verify"),
        exchange = place("issuers[].verify.exchange"),
        rotate_within = place("issuers[].rotate_within"),
        signer = place("issuers[].signer"),
        pkcs11 = place("issuers[].signer.pkcs11"),
        legacy = place("issuers[].signer.additional_verification_keys[]"),
    )
}

fn optional_keys() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    sections().iter().flat_map(|section| {
        let required = section.schema["required"].as_array().cloned().unwrap_or_default();
        let optional = section.properties().iter().filter(move |(key, _)| !required.contains(&json!(key)));
        optional.map(|(key, schema)| (section.path.as_str(), key.as_str(), schema))
    })
}

/// What `with_key` writes itself, and cannot write twice.
fn written_anyway(key: &str) -> &'static str {
    match key {
        "instances" => ", instances: [{url: 'https://10.0.0.1:6443'}]",
        "targets" => ", targets: [{url: 's3://bucket'}]",
        "pkcs11" => "pkcs11: {module: /m, token_label: t, pin_file: /p}, ",
        "additional_verification_keys" => "additional_verification_keys: [{file: /a}]",
        "events" => "events: {pod: a/b}, ",
        "tls" => "tls: {certificate: /c, private_key: /k}, ",
        "ledger" => ", ledger: {config_map: a/b}",
        "previous_issuers" => ", previous_issuers: [{issuer: 'https://old.example.com/kind'}]",
        "verify" => ", verify: {exchange: {tenant: a.b, client_id: 85075aa5-1d73-42de-812a-95348218e4b2}}",
        // Its example is of another party.
        "exchange" | "for" => "exchange: {tenant: a.b, client_id: 85075aa5-1d73-42de-812a-95348218e4b2}",
        "rotate_within" => ", rotate_within: {opens: '0 2 * * *', for: 4h}",
        _ => "\0",
    }
}

#[test]
fn every_key_is_read() {
    load(&Flags::default(), Some(&with_key("none", ""))).expect("the sections are valid without more keys");
    for (section, key, schema) in optional_keys() {
        let expected = expected(schema);
        // A key that is not rejected might also be ignored.
        let (wrong, what) =
            if expected.starts_with("a mapping") { ("[]", "a list") } else { ("{}", "a mapping") };
        let yaml = with_key(section, &format!("{key}: {wrong}")).replace(written_anyway(key), "");
        let yaml = yaml.replace("{kind: announcements}", "{kind: announcements, directory: /d}");
        let invalid = load(&Flags::default(), Some(&yaml)).expect_err(key).to_string();
        let expected = format!("{key}: is {what}, expected {expected}");
        assert!(invalid.starts_with("1 problem") && invalid.contains(&expected), "{invalid}\n{yaml}");
    }
}

#[test]
fn every_example_is_valid() {
    for (section, key, schema) in optional_keys().filter(|(_, key, _)| *key != "signer") {
        // The file of the test has one issuer after the other, and some keys exclude each other.
        let line = format!("{key}: {}", example(schema));
        let yaml = with_key(section, &line).replace(written_anyway(key), "");
        let yaml = yaml.replace("{kind: announcements}", "{kind: announcements, directory: /d}");
        let yaml =
            if key == "admin_listen" { yaml.replace("{kind: embedded}", "{kind: api-server}") } else { yaml };
        load(&Flags::default(), Some(&yaml)).unwrap_or_else(|invalid| panic!("{invalid}\n{yaml}"));
    }
}

#[test]
fn every_flag_of_the_reference_is_a_flag() {
    let command = <Flags as clap::Args>::augment_args(clap::Command::new("signpost"));
    let flags: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
    for section in sections() {
        for flag in section.properties().keys().filter_map(|key| flags::of(&section.path, key)) {
            assert!(flags.contains(&flag.trim_start_matches("--")), "{flag}");
        }
    }
}

#[test]
fn the_schema_documents_every_key_and_refuses_others() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    assert_eq!("https://json-schema.org/draft/2020-12/schema", schema["$schema"]);
    let mut objects = vec![&schema];
    let mut keys = 0;
    while let Some(object) = objects.pop() {
        assert_eq!(false, object["additionalProperties"]);
        for (name, property) in object["properties"].as_object().expect("an object") {
            assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
            keys += 1;
            objects.extend(property.get("properties").map(|_| property));
            let items = &property["items"];
            objects.extend(items.get("properties").map(|_| items));
            objects.extend(items["oneOf"].as_array().into_iter().flatten());
        }
    }
    // A previous issuer has targets of the same kind.
    let of_target = sections().iter().find(|section| section.path == "issuers[].targets[]");
    let all = sections().iter().chain(of_target).map(|section| section.properties().len()).sum::<usize>();
    assert_eq!(all, keys);
}

#[test]
fn the_schema_knows_types_defaults_and_what_is_required() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    assert_eq!(json!(["certificate", "private_key"]), schema["properties"]["tls"]["required"]);
    assert_eq!(1000, schema["properties"]["max_connections"]["default"]);
    let issuer = &schema["properties"]["issuers"]["items"];
    assert_eq!(json!(["issuer", "sources"]), issuer["required"]);
    assert_eq!("5m", issuer["properties"]["jwks_max_age"]["default"]);
    assert_eq!(false, issuer["properties"]["allow_issuer_mismatch"]["default"]);
    assert_eq!(json!(["entra", "all"]), issuer["properties"]["profile"]["enum"]);
    assert_eq!(1, issuer["properties"]["sources"]["minItems"]);
    let kinds = issuer["properties"]["sources"]["items"]["oneOf"].as_array().expect("kinds");
    let kinds: Vec<_> = kinds.iter().map(|kind| &kind["properties"]["kind"]["const"]).collect();
    assert_eq!(["api-server", "files", "url", "announcements", "embedded"], kinds[..]);
}

#[test]
fn the_reference_has_a_line_for_every_key() {
    let reference = reference();
    for section in sections() {
        assert!(reference.contains(&format!("## {}\n", section.path)));
        for key in section.properties().keys() {
            assert!(reference.contains(&format!("| `{key}` |")), "{key}");
        }
    }
}
