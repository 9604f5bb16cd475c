use super::*;

#[test]
fn a_reason_and_its_action_are_words_of_kubernetes() {
    for (row, reason) in Reason::all().enumerate() {
        assert_eq!(reason as usize, row, "the row of {reason:?} is at another place");
        for word in [&reason.name(), reason.action()] {
            assert!(word.chars().all(|c| c.is_ascii_alphabetic()) && word.len() <= 128, "{word}");
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
        }
    }
}

#[test]
fn a_note_is_one_line_that_kubernetes_takes() {
    let note = |what: &str| Event::new(Reason::SourceFailed, "https://i.example", "s", what).note;
    assert_eq!(note("source `s`\nfailed"), "source `s` failed (issuer `https://i.example`)");
    for length in 900..1100 {
        let note = note(&"ü".repeat(length / 2));
        assert!(note.len() <= 1024, "{}", note.len());
        assert_eq!(note.ends_with('…'), length / 2 * 2 + " (issuer `https://i.example`)".len() > 1024);
    }
}
