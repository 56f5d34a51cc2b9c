//! The `Link` header, by which Sentry pages (`sentry.utils.cursors`, `BaseEndpoint.build_cursor_link`):
//! `<address>; rel="next"; results="true"; cursor="0:100:0"`. Pure.
//!
//! The address is passed over: the next question is put where the last one was, with another cursor.

use super::Fault;

/// Longer than any: three numbers.
const MAX_CURSOR: usize = 100;

/// The cursor of the next page, if there is one.
///
/// # Errors
/// When there is one, and it is not a cursor.
pub(super) fn next<'h>(headers: impl Iterator<Item = &'h str>) -> Result<Option<String>, Fault> {
    for link in headers.flat_map(links) {
        let is_next = link.parameter("rel") == Some("next") && link.parameter("results") == Some("true");
        if is_next {
            let cursor = link.parameter("cursor").unwrap_or_default();
            let is_cursor = (1..=MAX_CURSOR).contains(&cursor.len())
                && cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.-_=".contains(&byte));
            return if is_cursor {
                Ok(Some(cursor.to_owned()))
            } else {
                Err(Fault::Foreign { what: "the next cursor" })
            };
        }
    }
    Ok(None)
}

/// What stands behind one address.
struct Link<'h>(&'h str);

/// Each begins with an address in angle brackets, which may hold any other character.
fn links(header: &str) -> impl Iterator<Item = Link<'_>> {
    header.split('<').skip(1).filter_map(|link| link.split_once('>')).map(|(_, rest)| Link(rest))
}

impl<'h> Link<'h> {
    fn parameter(&self, name: &str) -> Option<&'h str> {
        self.0.split([';', ',']).find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            (key.trim() == name).then(|| value.trim().trim_matches('"'))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For all headers: what is taken for a cursor can do no harm in an address, and a next page is never invented.
        #[test]
        fn nothing_but_a_cursor_is_taken(header in r#"[<>;,="a-z0:. ]{0,40}(rel="next"; ?results="true"; ?cursor="?[^"]{0,9}"?)?.{0,20}"#) {
            if let Ok(Some(cursor)) = next(std::iter::once(header.as_str())) {
                prop_assert!(header.contains("next") && header.contains("true") && header.contains(&cursor));
                prop_assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.-_=".contains(&byte)));
            }
        }
    }

    #[test]
    fn the_next_cursor_is_taken_and_no_address() {
        let previous = r#"<https://evil/?cursor=0:0:1>; rel="previous"; results="true"; cursor="0:0:1""#;
        let table = [
            (
                format!(r#"{previous}, <https://evil/>; rel="next"; results="true"; cursor="0:100:0""#),
                Ok(Some("0:100:0")),
            ),
            (r#"<x>; cursor="17:0:0"; results="true"; rel="next""#.to_owned(), Ok(Some("17:0:0"))),
            (r"<x,;y>;rel=next;results=true;cursor=1:0:0".to_owned(), Ok(Some("1:0:0"))),
            (r#"<x>; rel="next"; results="false"; cursor="0:100:0""#.to_owned(), Ok(None)),
            (previous.to_owned(), Ok(None)),
            (String::new(), Ok(None)),
            ("<<<>>>;;;,,,===".to_owned(), Ok(None)),
            (r#"<x>; rel="next"; results="true""#.to_owned(), Err(())),
            (r#"<x>; rel="next"; results="true"; cursor="../../x""#.to_owned(), Err(())),
            (format!(r#"<x>; rel="next"; results="true"; cursor="{}""#, "1".repeat(101)), Err(())),
        ];
        for (header, expected) in table {
            let found = next(std::iter::once(header.as_str()));
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(|_| ()), expected, "{header}");
        }
    }
}
