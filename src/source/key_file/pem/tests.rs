use super::{Block, InvalidPem};

/// All blocks, or the first error.
fn blocks(bytes: &[u8]) -> Result<Vec<Block>, InvalidPem> {
    super::blocks(bytes).into_iter().collect()
}

const TWO: &str = "subject=x\r\n-----BEGIN PUBLIC KEY-----\r\nAAEC\r\n  AwQ=\r\n-----END PUBLIC KEY-----\r\n\
    between\n-----BEGIN X509 CRL-----\nBQ==\n-----END X509 CRL-----";

#[track_caller]
fn refuses(text: &str, reason: &str) {
    let refusal: InvalidPem = blocks(text.as_bytes()).err().expect(text);
    assert_eq!(reason, refusal.to_string());
}

#[test]
fn blocks_are_found_among_other_text_and_with_any_line_ends() {
    let found = blocks(TWO.as_bytes()).expect("well formed");
    let found: Vec<_> = found.iter().map(|block| (block.label.as_str(), block.der.as_slice())).collect();
    assert_eq!(vec![("PUBLIC KEY", &[0, 1, 2, 3, 4][..]), ("X509 CRL", &[5][..])], found);
}

#[test]
fn text_that_is_not_utf_8_may_stand_around_a_block() {
    let text = [b"issuer=M\xfcnchen\n".as_slice(), TWO.as_bytes(), b"\n\xff"].concat();
    assert_eq!(2, blocks(&text).expect("well formed").len());
}

#[test]
fn a_file_without_blocks_has_none() {
    assert!(blocks(b"").expect("well formed").is_empty());
    assert!(blocks(b"----- BEGIN nothing -----\nhello").expect("well formed").is_empty());
}

#[test]
fn an_encrypted_block_is_known_by_its_label_or_its_header() {
    let encrypted = |text: &str| blocks(text.as_bytes()).expect("well formed")[0].encrypted;
    assert!(encrypted("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----"));
    assert!(encrypted(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAA==\n\
         -----END RSA PRIVATE KEY-----"
    ));
    assert!(!encrypted(
        "-----BEGIN RSA PRIVATE KEY-----\nComment: mine\nAA==\n-----END RSA PRIVATE KEY-----"
    ));
}

#[test]
fn a_broken_block_is_named_by_its_number() {
    let good = "-----BEGIN A-----\nAA==\n-----END A-----\n";
    refuses(&format!("{good}-----BEGIN B-----\nAA=="), "block 2 (`B`) has no `-----END B-----` line");
    refuses(&format!("{good}-----BEGIN B-----\nAA==\n-----END C-----"), "block 2 (`B`) ends as `C`");
    refuses("-----BEGIN B-----\nA*==\n-----END B-----", "block 1 (`B`) is not base64");
    refuses("-----BEGIN B-----\nAAE\n-----END B-----", "block 1 (`B`) is not base64");
}

#[test]
fn a_key_that_lost_its_line_breaks_is_refused_and_not_repeated() {
    const REASON: &str = "block 1 has no label, expected a line `-----BEGIN LABEL-----`";
    refuses("-----BEGIN PRIVATE KEY-----MC4CAQAwBQYDK2Vw-----END PRIVATE KEY-----", REASON);
    refuses("-----BEGIN PRIVATE KEY----- MC4CAQAwBQYDK2Vw -----END PRIVATE KEY-----\n", REASON);
    refuses(&format!("-----BEGIN {}-----\n", "A".repeat(65)), REASON);
    refuses("-----BEGIN A-----\nAA==\n-----END A", "block 1 (`A`) has no `-----END A-----` line");
}

#[test]
fn a_broken_block_takes_no_other_one_along() {
    let broken = [
        "-----BEGIN B-----\n*\n-----END B-----\n",
        "-----BEGIN B-----\nAA==\n-----END C-----\n",
        "-----BEGIN b\n",
        "-----BEGIN B-----\nAA\n",
    ];
    for broken in broken {
        let found = super::blocks(format!("{broken}-----BEGIN A-----\nAA==\n-----END A-----\n").as_bytes());
        assert!(found[0].is_err(), "{broken}");
        assert_eq!(Some("A"), found[1].as_ref().ok().map(|block| block.label.as_str()), "{broken}");
    }
}
