use proptest::prelude::*;

use super::in_utf8;

fn in_utf16(text: &str, mark: [u8; 2], unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.into_iter().chain(text.encode_utf16().flat_map(unit)).collect()
}

proptest! {
    #[test]
    fn text_is_read_however_it_was_saved(text in any::<String>()) {
        let marked = ["\u{feff}", &text].concat().into_bytes();
        let little = in_utf16(&text, [0xff, 0xfe], u16::to_le_bytes);
        let big = in_utf16(&text, [0xfe, 0xff], u16::to_be_bytes);
        for saved in [marked, little, big] {
            prop_assert_eq!(text.as_bytes(), &*in_utf8(&saved));
        }
    }

    #[test]
    fn whatever_begins_without_a_mark_stays_as_it_is(bytes in any::<Vec<u8>>()) {
        let is_marked = [&[0xef, 0xbb, 0xbf][..], &[0xff, 0xfe], &[0xfe, 0xff]].iter().any(|mark| bytes.starts_with(mark));
        prop_assert!(is_marked || *in_utf8(&bytes) == bytes);
    }
}

#[test]
fn what_is_no_text_stays_as_it_is() {
    for bytes in [&[0xff, 0xfe, b'a'][..], &[0xff, 0xfe, 0x00, 0xd8], &[0xfe, 0xff, 0xd8, 0x00, 0x00]] {
        assert_eq!(bytes, &*in_utf8(bytes));
    }
}
