use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;

use super::{Changes, compare};
use crate::{
    config::{Config, Flags, IssuerConfig, Seconds, load},
    core::jose::issuer::Issuer,
};

fn config(text: &str) -> Config {
    let file = Some((Path::new("signpost.yaml"), text));
    load(&Flags::default(), file, Path::new("/work"), Timestamp::UNIX_EPOCH).expect("no faults")
}

fn issuer(index: u8, margin: u8) -> IssuerConfig {
    let text = "issuers: [{issuer: 'https://issuer.example', sources: [{kind: files, paths: [/sa.pub]}]}]";
    let template = config(text).issuers.remove(0);
    let issuer = Issuer::parse(&format!("https://issuer.example/{index}")).expect("valid");
    IssuerConfig { issuer, margin: Seconds::new(margin.into()), ..template }
}

/// A few of several issuers, in any order, each in one of two variants.
fn some_issuers() -> impl Strategy<Value = Vec<IssuerConfig>> {
    let indices = Just((0..6).collect::<Vec<u8>>()).prop_shuffle();
    (indices, prop::collection::vec(0..2_u8, 0..6)).prop_map(|(indices, margins)| {
        indices.into_iter().zip(margins).map(|(index, margin)| issuer(index, margin)).collect()
    })
}

fn by_issuer(configs: &[IssuerConfig]) -> BTreeMap<Issuer, IssuerConfig> {
    configs.iter().map(|config| (config.issuer.clone(), config.clone())).collect()
}

proptest! {
    #[test]
    fn carrying_out_the_changes_leads_to_the_new_configuration_and_touches_nothing_that_is_the_same(
        before in some_issuers(),
        after in some_issuers(),
    ) {
        let Changes { changed, added, removed } = compare(&before, &after);
        let mut running = by_issuer(&before);
        for issuer in &removed {
            prop_assert!(running.remove(issuer).is_some(), "removed what did not run");
        }
        for config in changed {
            let before = running.insert(config.issuer.clone(), config.clone());
            prop_assert!(before.is_some_and(|before| before != config), "restarted what is the same");
        }
        for config in added {
            prop_assert!(running.insert(config.issuer.clone(), config).is_none(), "started what runs");
        }
        prop_assert_eq!(running, by_issuer(&after));
    }
}

#[test]
fn nothing_changes_when_the_order_alone_does() {
    let (one, other) = (issuer(1, 0), issuer(2, 0));
    assert_eq!(compare(&[one.clone(), other.clone()], &[other, one]), Changes::default());
}

#[test]
fn what_a_running_process_cannot_change_is_named_all_at_once() {
    let issuers = "issuers: [{issuer: 'https://issuer.example', sources: [{kind: files, paths: [/sa.pub]}]}]";
    let now = config(&format!("listen: 0.0.0.0:80\nadmin_listen: 127.0.0.1:81\ndata_dir: /data\n{issuers}"));
    let next =
        config(&format!("listen: 0.0.0.0:82\nadmin_listen: 127.0.0.1:83\ndata_dir: /other\n{issuers}"));
    let refused = now.changes_to(&next).expect_err("all three differ");
    assert_eq!(
        refused.to_string(),
        "3 problems in the new configuration
admin_listen: is `127.0.0.1:83`, expected `127.0.0.1:81` while the process runs
  hint: restart signpost to change it
data_dir: is `/other`, expected `/data` while the process runs
  hint: restart signpost to change it
listen: is `0.0.0.0:82`, expected `0.0.0.0:80` while the process runs
  hint: restart signpost to change it"
    );
    assert_eq!(now.changes_to(&now).expect("the same"), Changes::default());
}
