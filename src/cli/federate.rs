//! `signpost federate`.

use std::collections::BTreeSet;

use clap::Subcommand;

use super::{Failure, Output, block_on, confirm::Confirm, eprint, error_report::ExitStatus, print};
use crate::{
    app::federate::{self, Applied, Done, FederateError, IdentityName, Planned, Progress, RemovalWish, Wish},
    core::federation::{
        Change, DesiredCredential, Removal, Stop, Write,
        delegation::{ACCESS_AS_USER, MICROSOFT_GRAPH},
    },
};

mod flags;
mod json;
mod text;

use flags::{ClusterFlags, IdentityFlags, SignInFlags, TrustFlags};

#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  signpost federate apply --client-id $CLIENT --issuer https://oidc.example.com/c1 \\
    --service-account team/app
  signpost federate list --cluster --source kubernetes:prod
  signpost federate apply --cluster --source kubernetes:prod
  signpost federate apply --client-id $CLIENT --moved-from https://old.example.com/c1 \\
    --issuer https://oidc.example.com/c1

Signs in as the environment says, else with the Azure CLI (`--sign-in`).
Exit codes: 0 everything is as it should be; 1 it is not; 2 error.")]
pub(super) enum FederateVerb {
    /// Show what `apply` would write
    Plan {
        #[command(flatten)]
        wish: WishFlags,
        #[command(flatten)]
        common: CommonFlags,
    },
    /// Write what is missing, and correct audiences; leave everything else alone
    Apply {
        #[command(flatten)]
        wish: WishFlags,
        /// Do not ask before credentials are removed or corrected
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: CommonFlags,
    },
    /// List the federated credentials of an identity, or a cluster's service accounts beside them
    List {
        #[command(flatten)]
        identity: IdentityFlags,
        #[command(flatten)]
        cluster: ClusterFlags,
        /// Audience of the cluster's tokens [default: what the cloud recommends]
        #[arg(long, value_name = "A", requires = "cluster")]
        audience: Option<String>,
        #[command(flatten)]
        common: CommonFlags,
    },
    /// Remove federated credentials
    Remove {
        #[command(flatten)]
        identity: IdentityFlags,
        #[command(flatten)]
        which: WhichFlags,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        common: CommonFlags,
    },
    /// Let users ask for tokens of an agent blueprint: its identifier URI, and the scope `access_as_user`
    Blueprint {
        /// Client id of the blueprint
        #[arg(long, value_name = "ID")]
        client_id: String,
        #[command(flatten)]
        delegation: DelegationFlags,
    },
    /// Grant an agent identity delegated scopes, so that it can act on behalf of users
    Consent {
        /// Client id of the agent identity
        #[arg(long, value_name = "ID")]
        agent: String,
        /// A delegated scope, such as `User.Read`; repeatable
        #[arg(long, value_name = "SCOPE", required = true)]
        scope: Vec<String>,
        /// Application id of the resource [default: Microsoft Graph]
        #[arg(long, value_name = "ID", default_value = MICROSOFT_GRAPH, hide_default_value = true)]
        resource: String,
        /// Object id of the only user that this is for [default: all users]
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        delegation: DelegationFlags,
    },
}

#[derive(clap::Args)]
pub(super) struct DelegationFlags {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    common: CommonFlags,
}

#[derive(clap::Args)]
pub(super) struct CommonFlags {
    /// Output format: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    output: Output,

    #[command(flatten)]
    sign_in: SignInFlags,
}

#[derive(clap::Args)]
pub(super) struct WishFlags {
    #[command(flatten)]
    identity: IdentityFlags,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Remove credentials of the cluster's issuer whose service account does not exist
    #[arg(long, requires = "cluster", conflicts_with = "namespace")]
    remove_dangling: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Selection {
    /// Name of a credential to remove; repeatable
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// Those of this issuer that have their counterpart at `--moved-to`
    #[arg(long, value_name = "URL", requires = "moved_to")]
    moved_from: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct WhichFlags {
    #[command(flatten)]
    selection: Selection,

    /// The place that the issuer has moved to
    #[arg(long, value_name = "URL")]
    moved_to: Option<String>,
}

/// An identity, and what came of it.
struct Outcome {
    identity: IdentityName,
    planned: Result<Planned, FederateError>,
    applied: Option<Applied>,
}

pub(super) fn run(verb: FederateVerb) -> Result<ExitStatus, Failure> {
    match verb {
        FederateVerb::Plan { wish, common } => carry_out(&wish, &common, None),
        FederateVerb::Apply { wish, yes, common } => carry_out(&wish, &common, Some(&Confirm::new(yes))),
        FederateVerb::List { identity, cluster, audience, common } => {
            list(&identity, &cluster, audience, &common)
        }
        FederateVerb::Remove { identity, which, confirm, common } => {
            let removal = match which.selection.moved_from {
                Some(from) => {
                    let to = which.moved_to.expect("clap demands both");
                    is_move(&from, &to)?;
                    RemovalWish::MovedAway { from, to }
                }
                None => RemovalWish::Named(which.selection.name),
            };
            let identity = identity.required()?;
            let wish = Wish { identity, desired: Vec::new(), moved: None, removal };
            settle(&[wish], &common, Some(&confirm))
        }
        FederateVerb::Blueprint { client_id, delegation } => {
            let azure = delegation.common.sign_in.connect()?;
            let done =
                block_on(federate::offer_to_users(&azure, flags::id(&client_id)?, !delegation.dry_run))?;
            let next =
                format!("a client of the user asks for the scope `api://{client_id}/{ACCESS_AS_USER}`");
            Ok(delegation.tell(&format!("agent blueprint {client_id}"), &done, &next))
        }
        FederateVerb::Consent { agent, scope, resource, user, confirm, delegation } => {
            let azure = delegation.common.sign_in.connect()?;
            let scopes: BTreeSet<_> =
                scope.iter().flat_map(|it| it.split_whitespace()).map(str::to_owned).collect();
            if scopes.is_empty() {
                return Err(Failure::plain("no scope is named", "name one, such as `--scope User.Read`"));
            }
            for id in [&agent, &resource].into_iter().chain(&user) {
                flags::id(id)?;
            }
            let named = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            let for_all =
                format!("agent identity {agent} may act with {named} on behalf of every user of the tenant");
            if user.is_none() && !delegation.dry_run && !confirm.is_given(&for_all)? {
                return Ok(ExitStatus::Negative);
            }
            let done = federate::consent(&azure, &agent, &resource, scopes, user, !delegation.dry_run);
            let next = format!("try it: `signpost exchange on-behalf-of --agent {agent} --user-token FILE`");
            let done = block_on(done)?;
            Ok(delegation.tell(&format!("agent identity {agent}"), &done, &next))
        }
    }
}

/// Refuses a move to where it began.
fn is_move(from: &str, to: &str) -> Result<(), Failure> {
    if from == to {
        return Err(Failure::plain(
            "the issuer is the same before and after",
            "pass its old URL as `--moved-from`",
        ));
    }
    Ok(())
}

/// Plans, and with a confirmation applies.
fn carry_out(
    flags: &WishFlags,
    common: &CommonFlags,
    confirm: Option<&Confirm>,
) -> Result<ExitStatus, Failure> {
    let wishes = if flags.cluster.cluster {
        let cluster = block_on(flags.cluster.read())?;
        if let Some(issuer) = flags.trust.issuer.as_ref().filter(|it| **it != cluster.issuer) {
            return Err(Failure::plain(
                &format!("the issuer of this cluster is `{}`, not `{issuer}`", cluster.issuer),
                "leave out `--issuer` and `SIGNPOST_ISSUER`, or correct `--service-account-issuer` of kube-apiserver",
            ));
        }
        let audience = flags.trust.audience(common.sign_in.cloud());
        let only = flags.identity.client_id()?;
        let wishes = federate::wishes(&cluster, &audience, only.as_deref(), flags.remove_dangling)?;
        for account in cluster.accounts.iter().filter(|it| it.client_id.is_none()) {
            eprint(&format!(
                "left out: service account `{}` names no identity, and has labelled pods",
                account.account
            ));
        }
        if wishes.is_empty() {
            return Err(Failure::plain(
                "no service account names an identity",
                "annotate it: `kubectl annotate serviceaccount NAME azure.workload.identity/client-id=ID`",
            ));
        }
        wishes
    } else {
        vec![flags.wish(common)?]
    };
    settle(&wishes, common, confirm)
}

/// Plans each wish, and with a confirmation applies it.
fn settle(wishes: &[Wish], common: &CommonFlags, confirm: Option<&Confirm>) -> Result<ExitStatus, Failure> {
    let azure = common.sign_in.connect()?;
    // One runtime: connections belong to it.
    let outcomes = block_on(async {
        let mut outcomes = Vec::new();
        for wish in wishes {
            let planned = federate::planned(&azure, wish).await;
            outcomes.push(Outcome { identity: wish.identity.clone(), planned, applied: None });
        }
        let taken: Vec<_> = outcomes.iter().flat_map(Outcome::taken_away).collect();
        let may_write = match confirm {
            None => false,
            Some(_) if taken.is_empty() => true,
            Some(confirm) => confirm.is_given(&format!(
                "{}\nWhat is removed or corrected here is refused from then on: {}.\nNothing is written without a yes.",
                text::outcomes(&outcomes).trim_end(),
                taken.join(", ")
            ))?,
        };
        for outcome in outcomes.iter_mut().filter(|_| may_write) {
            if let Ok(planned) = &outcome.planned {
                outcome.applied = Some(federate::apply(&azure, planned, |it| eprint(&progress(&it))).await);
            }
        }
        Ok::<_, Failure>(outcomes)
    })?;
    print(&match common.output {
        Output::Text => text::outcomes(&outcomes),
        Output::Json => json::outcomes(&outcomes),
    });
    Ok(exit(&outcomes))
}

fn progress(progress: &Progress) -> String {
    match progress {
        Progress::Written { write, number, of } => {
            let done = match write {
                Write::Create(credential) => format!("created `{}`", credential.name),
                Write::Update(credential) => format!("corrected `{}`", credential.name),
                Write::Delete(name) => format!("removed `{name}`"),
            };
            format!("{done} ({number} of {of})")
        }
        Progress::Waiting { seconds, reason } => format!("waiting {seconds} s: {reason}"),
    }
}

fn exit(outcomes: &[Outcome]) -> ExitStatus {
    let failed = |it: &Outcome| {
        let stop = it.applied.as_ref().and_then(|applied| applied.stopped.as_ref());
        it.planned.is_err() || stop.is_some_and(|stop| *stop != Stop::Conflicts)
    };
    match (outcomes.iter().any(failed), outcomes.iter().all(Outcome::is_settled)) {
        (true, _) => ExitStatus::Failure,
        (false, true) => ExitStatus::Success,
        (false, false) => ExitStatus::Negative,
    }
}

impl Outcome {
    /// The names of the credentials that would be removed or get another audience: some tokens are refused then.
    fn taken_away(&self) -> Vec<String> {
        let changes = self.planned.iter().flat_map(|planned| &planned.plan.changes);
        let removed = changes.filter_map(|it| match it {
            Change::Remove(Removal { name, .. }) | Change::SetAudience { name, .. } => {
                Some(format!("`{name}`"))
            }
            Change::Create(_) => None,
        });
        removed.collect()
    }

    /// Whether everything is as it should be now.
    fn is_settled(&self) -> bool {
        match (&self.planned, &self.applied) {
            (Ok(planned), None) => planned.plan.is_met() && planned.kept.is_empty(),
            (Ok(planned), Some(applied)) => applied.stopped.is_none() && planned.kept.is_empty(),
            (Err(_), _) => false,
        }
    }
}

fn list(
    identity: &IdentityFlags,
    cluster: &ClusterFlags,
    audience: Option<String>,
    common: &CommonFlags,
) -> Result<ExitStatus, Failure> {
    let azure = common.sign_in.connect()?;
    if cluster.cluster {
        let audience = audience.unwrap_or_else(|| common.sign_in.cloud().audience().to_owned());
        let (accounts, found) = block_on(async {
            let accounts = cluster.read().await?;
            let found = federate::side_by_side(&azure, &accounts, &audience).await?;
            Ok::<_, FederateError>((accounts, found))
        })?;
        print(&match common.output {
            Output::Text => text::side_by_side(&accounts.issuer, &found),
            Output::Json => json::side_by_side(&accounts.issuer, &found),
        });
        let is_good = found.unasked.is_empty() && found.inventory.is_complete();
        return Ok(if is_good { ExitStatus::Success } else { ExitStatus::Negative });
    }
    let wish = Wish {
        identity: identity.required()?,
        desired: Vec::new(),
        moved: None,
        removal: RemovalWish::Nothing,
    };
    let planned = block_on(federate::planned(&azure, &wish))?;
    print(&match common.output {
        Output::Text => text::credentials(&planned.present),
        Output::Json => json::credentials(&planned.present),
    });
    Ok(ExitStatus::Success)
}

impl DelegationFlags {
    fn tell(&self, whose: &str, done: &Done, next: &str) -> ExitStatus {
        print(&match self.common.output {
            Output::Text => text::delegation(whose, done, self.dry_run, next),
            Output::Json => json::delegation(done, self.dry_run),
        });
        let is_open = self.dry_run && !done.steps.is_empty();
        if is_open { ExitStatus::Negative } else { ExitStatus::Success }
    }
}

impl WishFlags {
    fn wish(&self, common: &CommonFlags) -> Result<Wish, Failure> {
        let TrustFlags { service_account, issuer, moved_from, name, .. } = &self.trust;
        let Some(issuer) = issuer else {
            return Err(Failure::plain(
                "there is no issuer to trust",
                "pass the public URL of the cluster's keys as `--issuer`, or `--cluster` to take it from there",
            ));
        };
        if let Some(from) = moved_from {
            is_move(from, issuer)?;
        }
        if service_account.is_empty() && moved_from.is_none() {
            return Err(Failure::plain(
                "there is no service account to trust",
                "pass `--service-account NAMESPACE/NAME`, `--moved-from URL` or `--cluster`",
            ));
        }
        if name.is_some() && service_account.len() != 1 {
            return Err(Failure::plain(
                "`--name` is for one credential",
                "leave it out: names are made from the service accounts",
            ));
        }
        let audience = self.trust.audience(common.sign_in.cloud());
        let desired = service_account
            .iter()
            .map(|account| DesiredCredential::of_account(issuer, account, &audience, name.as_deref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Wish {
            identity: self.identity.required()?,
            desired,
            moved: moved_from.clone().map(|from| (from, issuer.clone())),
            removal: RemovalWish::Nothing,
        })
    }
}
