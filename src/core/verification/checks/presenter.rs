//! Which containers of a pod present a token to Microsoft Entra, and at which path each reads it.
//!
//! A pod needs one that can: an application may use a sidecar, and the sidecar of a mesh sends no request.
//! The rules of pods, settings and the Entra auth sidecar apply to those that can, or else to those that try.

use std::collections::BTreeMap;

use super::{Context, pod::audience, pod::workload};
use crate::core::workload::{Container, MountedToken, Pod, Texts};

/// The variable from which the Azure SDKs take the path of their token.
pub(super) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// Prefix of the variables of the sidecar's credentials; an index and a name follow.
pub(super) const CREDENTIALS: &str = "AzureAd__ClientCredentials__";
/// The kind of credential that is a projected token.
pub(super) const FILE: &str = "SignedAssertionFilePath";

/// A container that is configured with the path of its token.
pub(super) struct Presenter<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) environment: BTreeMap<String, Option<String>>,
    /// Whether more variables may exist than can be read.
    pub(super) may_have_more: bool,
    /// Whether it is the Entra auth sidecar, and not a program with an Azure SDK.
    pub(super) is_sidecar: bool,
}

/// The path at which a container reads its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenPath<'a> {
    At(&'a str),
    /// It comes from a Secret.
    Unreadable,
    Unnamed,
}

/// How far a container gets, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// There is no token at its path.
    Nothing,
    /// It finds a token for another audience.
    OtherAudience,
    Token,
}

/// The containers of each pod that get furthest.
pub(super) fn presenters<'a>(case: &Context<'a>) -> Vec<Presenter<'a>> {
    split(case).0
}

/// The containers that do not get as far as another one of their pod.
pub(super) fn others<'a>(case: &Context<'a>) -> Vec<Presenter<'a>> {
    split(case).1
}

fn split<'a>(case: &Context<'a>) -> (Vec<Presenter<'a>>, Vec<Presenter<'a>>) {
    let (mut best, mut others) = (Vec::new(), Vec::new());
    for pod in workload(case).into_iter().flat_map(|workload| &workload.pods) {
        let candidates = candidates(case, pod);
        let furthest = candidates.iter().map(|it| it.reach(audience(case))).max();
        for candidate in candidates {
            if Some(candidate.reach(audience(case))) == furthest {
                best.push(candidate);
            } else {
                others.push(candidate);
            }
        }
    }
    (best, others)
}

/// The containers of a pod that are configured with the path of their token.
pub(super) fn candidates<'a>(case: &Context<'a>, pod: &'a Pod) -> Vec<Presenter<'a>> {
    let Some(workload) = workload(case) else { return Vec::new() };
    pod.all_containers().filter_map(|it| Presenter::of(pod, it, &workload.config_maps)).collect()
}

impl<'a> Presenter<'a> {
    fn of(pod: &'a Pod, container: &'a Container, config_maps: &BTreeMap<String, Texts>) -> Option<Self> {
        let environment = container.environment(config_maps);
        let may_have_more = container.has_unknown_variables(config_maps);
        let is_sidecar = environment.keys().any(|name| name.starts_with(CREDENTIALS));
        (is_sidecar || environment.contains_key(TOKEN_FILE)).then_some(Self {
            pod,
            container,
            environment,
            may_have_more,
            is_sidecar,
        })
    }

    pub(super) fn in_words(&self) -> String {
        in_words(self.pod, self.container)
    }

    /// The value of a variable; `None` if it is empty, missing or unreadable.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name)?.as_deref().filter(|value| !value.is_empty())
    }

    /// Whether a variable is certainly missing or empty.
    pub(super) fn lacks(&self, name: &str) -> bool {
        match self.environment.get(name) {
            None => !self.may_have_more,
            Some(value) => value.as_ref().is_some_and(String::is_empty),
        }
    }

    /// The sorted, unique indices of the sidecar's credentials; `None` for a variable without a number.
    pub(super) fn indices(&self) -> Vec<Option<usize>> {
        let rest = self.environment.keys().filter_map(|name| name.strip_prefix(CREDENTIALS));
        let mut indices: Vec<_> =
            rest.map(|rest| rest.split("__").next().and_then(|index| index.parse().ok())).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    /// The kinds of the sidecar's credentials, in the order in which they are tried.
    pub(super) fn kinds(&self) -> Vec<(usize, &str)> {
        let indices = self.indices().into_iter().flatten();
        indices
            .filter_map(|index| Some((index, self.variable(&format!("{CREDENTIALS}{index}__SourceType"))?)))
            .collect()
    }

    /// The sidecar's first credential that is a file.
    pub(super) fn file_credential(&self) -> Option<usize> {
        self.kinds().into_iter().find(|(_, kind)| *kind == FILE).map(|(index, _)| index)
    }

    /// The path at which it reads its token.
    pub(super) fn place(&self) -> TokenPath<'_> {
        let named = |name: &str| match self.environment.get(name) {
            Some(Some(path)) if path.is_empty() => TokenPath::Unnamed,
            Some(Some(path)) => TokenPath::At(path),
            Some(None) => TokenPath::Unreadable,
            None if self.may_have_more => TokenPath::Unreadable,
            None => TokenPath::Unnamed,
        };
        if !self.is_sidecar {
            return named(TOKEN_FILE);
        }
        let Some(index) = self.file_credential() else { return TokenPath::Unnamed };
        match named(&format!("{CREDENTIALS}{index}__SignedAssertionFileDiskPath")) {
            TokenPath::Unnamed => named(TOKEN_FILE),
            place => place,
        }
    }

    /// The token that it finds.
    pub(super) fn token(&self) -> Option<MountedToken<'_>> {
        match self.place() {
            TokenPath::At(path) => self.pod.token_at(self.container, path),
            TokenPath::Unreadable | TokenPath::Unnamed => None,
        }
    }

    /// Whether there is certainly no token at its path.
    pub(super) fn has_no_token(&self) -> bool {
        match self.place() {
            TokenPath::At(path) => self.token().is_none() && !self.pod.is_unknown_at(self.container, path),
            TokenPath::Unreadable => false,
            TokenPath::Unnamed => true,
        }
    }

    fn reach(&self, audience: &str) -> Reach {
        match self.token() {
            Some(found) if found.token.audience != audience => Reach::OtherAudience,
            None if self.has_no_token() => Reach::Nothing,
            _ => Reach::Token,
        }
    }
}

pub(super) fn in_words(pod: &Pod, container: &Container) -> String {
    format!("container `{}` of pod `{}`", container.name, pod.metadata.name)
}
