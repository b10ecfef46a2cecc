//! Elements taken out of a list inside a JSON text. Every other byte stays as it came.

use serde_json::value::RawValue;

/// `text` without the elements for which `stays` says no, and the comma that each of them had. `None` when all stay.
/// The elements must be those of one list, borrowed from `text` in their order.
pub fn without(
    text: &str,
    elements: &[&RawValue],
    mut stays: impl FnMut(&RawValue) -> bool,
) -> Option<String> {
    let base = text.as_ptr().addr();
    let start = |element: &RawValue| element.get().as_ptr().addr() - base;
    let end = |element: &RawValue| start(element) + element.get().len();
    let mut whole = String::new();
    let mut copied = 0;
    let mut any_stays = false;
    for (index, element) in elements.iter().enumerate() {
        if stays(element) {
            any_stays = true;
            continue;
        }
        // The comma before it, or, while nothing stands before it, the one behind.
        let (from, to) = match (any_stays, elements.get(index + 1)) {
            (true, _) => (end(elements[index - 1]), end(element)),
            (false, Some(next)) => (start(element), start(next)),
            (false, None) => (start(element), end(element)),
        };
        whole.push_str(&text[copied..from]);
        copied = to;
    }
    if copied == 0 {
        return None;
    }
    whole.push_str(&text[copied..]);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn odd(text: &str) -> Option<String> {
        let elements: Vec<&RawValue> = serde_json::from_str(text).expect("a list");
        without(text, &elements, |element| {
            element.get().parse::<u64>().expect("a number") % 2 == 1
        })
    }

    #[test]
    fn what_stays_is_not_touched() {
        for (text, expected) in [
            ("[1, 3]", None),
            ("[]", None),
            ("[2]", Some("[]")),
            ("[ 2 ,\n 4 ]", Some("[  ]")),
            ("[1 , 2 , 3]", Some("[1 , 3]")),
            ("[2,1]", Some("[1]")),
            ("[ 2, 4 , 1 ]", Some("[ 1 ]")),
            ("[1,2]", Some("[1]")),
            ("[1, 2, 4 ]", Some("[1 ]")),
            ("[2,1,4,3,6]", Some("[1,3]")),
        ] {
            assert_eq!(odd(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_rest_is_the_list_without_them(numbers in prop::collection::vec(0_u64..20, 0..12)) {
            let text = serde_json::to_string(&numbers).expect("a list");
            let left: Vec<u64> = numbers.iter().copied().filter(|number| number % 2 == 1).collect();
            let found = odd(&text).unwrap_or(text);
            let found: Value = serde_json::from_str(&found).expect("a list");
            prop_assert_eq!(found, serde_json::json!(left));
        }
    }
}
