use std::collections::BTreeSet;

use super::*;
use crate::core::verification::checks;

fn explained(answer: Option<StsAnswer>) -> &'static str {
    match answer {
        Some(StsAnswer::Refused(refusal)) => refusal.explained.map_or("nothing", |row| row.meaning),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn aws_error(code: &str, text: &str) -> Option<StsAnswer> {
    aws::parse(
        format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    <Type>Sender</Type>\n    \
             <Code>{code}</Code>\n    <Message>{text}</Message>\n  </Error>\n  <RequestId>r-1</RequestId>\n</ErrorResponse>"
        )
        .as_bytes(),
    )
}

#[test]
fn an_error_of_aws_is_explained_by_its_text_before_its_code() {
    let meaning = |code: &str, text: &str| explained(aws_error(code, text));
    let provider = "No OpenIDConnect provider found in your account for https://issuer.example";
    assert!(meaning("InvalidIdentityToken", provider).contains("no OIDC identity provider"));
    assert!(meaning("InvalidIdentityToken", "Incorrect token audience").contains("no client id"));
    assert!(meaning("InvalidIdentityToken", "Something new").contains("could not validate"));
    assert!(meaning("AccessDenied", "Not authorized").contains("trust policy"));
    assert_eq!(meaning("Novel", "Something new"), "nothing");
    let Some(StsAnswer::Refused(refusal)) = aws_error("AccessDenied", "a &lt;b&gt; &amp;lt;") else {
        panic!()
    };
    assert_eq!((refusal.text.as_str(), refusal.request_id.as_str()), ("a <b> &lt;", "r-1"));
}

#[test]
fn the_answer_of_aws_is_what_its_clients_take() {
    let answer = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Audience>sts.amazonaws.com</Audience>\
                  <AssumedRoleUser><AssumedRoleId>AROA:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/app/s</Arn>\
                  </AssumedRoleUser><Provider>arn:aws:iam::1:oidc-provider/issuer.example</Provider><Credentials>\
                  <AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session\
                  </SessionToken><Expiration>2030-01-02T03:04:05Z</Expiration></Credentials>\
                  <SubjectFromWebIdentityToken>system:serviceaccount:a:b</SubjectFromWebIdentityToken>\
                  </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let Some(StsAnswer::Issued(issued)) = aws::parse(answer.as_bytes()) else { panic!("it is issued") };
    let process: serde_json::Value = serde_json::from_str(issued.credentials.as_str()).expect("it is JSON");
    assert_eq!(
        process,
        serde_json::json!({"Version": 1, "AccessKeyId": "ASIA", "SecretAccessKey": "secret", "SessionToken": "session",
            "Expiration": "2030-01-02T03:04:05Z"})
    );
    assert_eq!(issued.facts[0], ("role", "arn:aws:sts::1:assumed-role/app/s".to_owned()));
    assert_eq!(issued.facts.len(), 4);
    assert!(!format!("{issued:?}").contains("secret"));
    for other in ["", "<html></html>", "{}", "<Error></Error>", "<Credentials></Credentials>"] {
        assert!(aws::parse(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn a_token_is_sent_to_hosts_of_aws_alone() {
    for host in ["sts.amazonaws.com", "sts.eu-west-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"] {
        assert!(aws::is_host(host), "{host}");
    }
    assert!(aws::is_host("sts.cn-north-1.amazonaws.com.cn"));
    for host in [
        "amazonaws.com",
        "sts.a.b.amazonaws.com",
        "sts..amazonaws.com",
        "sts.x.amazonaws.com.example",
        "x.sts.amazonaws.com",
    ] {
        assert!(!aws::is_host(host), "{host}");
    }
    for region in [None, Some("eu-west-1"), Some("cn-north-1")] {
        let url = url::Url::parse(&aws::endpoint(region)).expect("a URL");
        assert!(aws::is_host(url.host_str().expect("a host")), "{url}");
    }
    assert!(google::is_host("sts.googleapis.com") && !google::is_host("sts.googleapis.com.example"));
}

#[test]
fn an_answer_of_google_is_a_token_or_a_refusal() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let Some(StsAnswer::Issued(issued)) = google::parse(br#"{"access_token": "t", "expires_in": 60}"#, now)
    else {
        panic!("it is issued")
    };
    assert_eq!(issued.expires_at, "2030-01-01T00:01:00Z".parse().ok());
    let refused = |error: &str, text: &str| {
        explained(google::parse(
            serde_json::json!({"error": error, "error_description": text}).to_string().as_bytes(),
            now,
        ))
    };
    assert!(refused("invalid_grant", "ID Token issued at 1 is stale to sign-in.").contains("expired"));
    assert!(
        refused("invalid_grant", "Error connecting to the given credential's issuer.").contains("documents")
    );
    assert!(refused("invalid_grant", "Something new").contains("does not accept"));
    let denied = br#"{"error": {"status": "PERMISSION_DENIED", "message": "Permission 'iam.serviceAccounts.getAccessToken' denied"}}"#;
    assert!(explained(google::parse_impersonation(denied)).contains("service account"));
    for other in ["", "[]", "{}", "<html>"] {
        assert!(google::parse(other.as_bytes(), now).is_none(), "{other}");
        assert!(google::parse_impersonation(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn every_check_that_predicts_a_refusal_exists_and_the_code_itself_is_explained_last() {
    let known: BTreeSet<_> = checks().map(|check| check.id).collect();
    for rows in [aws::ERRORS, google::ERRORS] {
        for (index, row) in rows.iter().enumerate() {
            assert!(row.checks.iter().all(|check| known.contains(check)), "{row:?}");
            let is_hidden = rows[..index].iter().any(|it| it.code == row.code && row.says.contains(it.says));
            assert!(!is_hidden, "{row:?}");
        }
    }
}
