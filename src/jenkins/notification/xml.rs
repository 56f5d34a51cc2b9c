//! Notifications as XML, as `XStream` writes them: one pass over the text, into the draft. Pure.
//!
//! A field counts only at its own place, so a parameter or an artifact may be called anything. Of references only
//! those to characters and the five that XML itself knows are resolved, and only in fields that are needed: a log holds
//! `&#x1b;`, which is not XML 1.0. There is no document type definition, hence no entity to expand.

use std::borrow::Cow;

use quick_xml::Error;
use quick_xml::errors::SyntaxError;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};
use quick_xml::reader::Reader;

use super::draft::{Draft, Section, Slot};
use crate::jenkins::document::json::{Collector as _, Meaning};
use crate::jenkins::document::value::Value;
use crate::jenkins::document::{Extent, Format, PayloadError};

/// The plugin's deepest element, an artifact's, is the seventh.
const DEEPEST: usize = 64;

/// Whether the document came to its end.
pub(super) fn read<'a>(text: &'a str, extent: Extent, draft: &mut Draft<'a>) -> Result<bool, PayloadError> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.allow_dangling_amp = true;
    let mut walk = Walk { draft, depth: 0, sections: Vec::with_capacity(3), field: None, root_seen: false };
    loop {
        let position = reader.buffer_position();
        let step = match reader.read_event() {
            Ok(Event::Eof) if walk.is_over() => return Ok(true),
            Ok(Event::DocType(_)) | Err(Error::Syntax(SyntaxError::UnclosedDoctype)) => {
                return Err(PayloadError::DocumentType);
            }
            Ok(Event::Eof) | Err(Error::Syntax(_)) if extent == Extent::CutOff => return Ok(false),
            Ok(Event::Start(tag)) => walk.enter(tag.name().as_ref())?,
            Ok(Event::End(_)) => walk.leave(),
            Ok(Event::Text(text)) => walk.text(text.into_inner()),
            Ok(Event::CData(text)) => walk.text(text.into_inner()),
            Ok(Event::GeneralRef(reference)) => walk.reference(&reference),
            Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_)) => Some(()),
            Ok(Event::Eof | Event::Empty(_)) | Err(_) => None,
        };
        if step.is_none() {
            return Err(misstep(text, position));
        }
    }
}

/// Where in the document the reading is. A step that is not XML gives `None`.
struct Walk<'d, 'a> {
    draft: &'d mut Draft<'a>,
    /// How many elements are open.
    depth: usize,
    /// The open sections, outermost first: each the child of the one before.
    sections: Vec<Section>,
    /// The field that is being read, directly below the innermost section.
    field: Option<Field<'a>>,
    root_seen: bool,
}

struct Field<'a> {
    slot: Slot,
    text: Cow<'a, str>,
    has_elements: bool,
}

impl<'a> Walk<'_, 'a> {
    fn is_over(&self) -> bool {
        self.root_seen && self.depth == 0
    }

    fn enter(&mut self, name: &str) -> Result<Option<()>, PayloadError> {
        if self.is_over() {
            return Ok(None);
        }
        if self.depth == DEEPEST {
            return Err(PayloadError::TooDeep { limit: DEEPEST });
        }
        let parent = self.sections.last().copied().filter(|_| self.sections.len() == self.depth);
        let meaning = match parent {
            None if self.depth > 0 => Meaning::Unneeded,
            None if name == "job" => Meaning::Section(Section::Job),
            None => return Err(PayloadError::ForeignRoot),
            Some(section) => Draft::meaning_of(section, name),
        };
        match meaning {
            Meaning::Section(section) => {
                self.draft.open(section, true);
                self.sections.push(section);
            }
            Meaning::Field(slot) => self.field = Some(Field { slot, text: Cow::Borrowed(""), has_elements: false }),
            Meaning::Unneeded => {
                if let Some(field) = &mut self.field {
                    field.has_elements = true;
                }
            }
        }
        self.depth += 1;
        self.root_seen = true;
        Ok(Some(()))
    }

    fn leave(&mut self) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        if self.depth < self.sections.len() {
            self.sections.pop();
        } else if self.depth == self.sections.len()
            && let Some(field) = self.field.take()
        {
            let value = if field.has_elements { Value::Other } else { Value::text(field.text) };
            self.draft.fill(field.slot, value);
        }
        Some(())
    }

    fn text(&mut self, more: Cow<'a, str>) -> Option<()> {
        match &mut self.field {
            Some(field) if field.text.is_empty() => field.text = more,
            Some(field) => field.text.to_mut().push_str(&more),
            None if self.depth == 0 => return more.trim_ascii().is_empty().then_some(()),
            None => {}
        }
        Some(())
    }

    fn reference(&mut self, reference: &BytesRef<'a>) -> Option<()> {
        let Some(field) = &mut self.field else { return (self.depth > 0).then_some(()) };
        match reference.resolve_char_ref() {
            Ok(Some(character)) => field.text.to_mut().push(character),
            // No such character.
            Err(_) => field.text.to_mut().push(char::REPLACEMENT_CHARACTER),
            Ok(None) => field.text.to_mut().push_str(resolve_xml_entity(reference)?),
        }
        Some(())
    }
}

fn misstep(text: &str, position: u64) -> PayloadError {
    let position = usize::try_from(position).unwrap_or(usize::MAX).min(text.len());
    let before = text.as_bytes().get(..position).unwrap_or_default();
    let (mut line, mut column) = (0, 1);
    for part in before.split(|byte| *byte == b'\n') {
        line += 1;
        column = part.len() + 1;
    }
    PayloadError::Syntax { format: Format::Xml, line, column }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::build::BuildReport;
    use crate::jenkins::document::{self, Reading};

    fn read(body: impl AsRef<[u8]>) -> Result<Reading, PayloadError> {
        document::read(body.as_ref(), Extent::Whole).map(|document| document.reading)
    }

    fn report(body: impl AsRef<[u8]>) -> BuildReport {
        match read(body.as_ref()) {
            Ok(Reading::Report(report)) => *report,
            other => panic!("{other:?} from {}", String::from_utf8_lossy(body.as_ref())),
        }
    }

    fn started(more: &str) -> String {
        format!("<job><url>job/a/</url><build>{more}<number>1</number><phase>STARTED</phase></build></job>")
    }

    #[test]
    fn a_field_counts_only_at_its_own_place() {
        let table = [
            "<parameters><entry><string>number</string><number>9</number></entry></parameters>",
            "<artifacts><job><url>job/x/</url><build><number>9</number></build></job></artifacts>",
            "<artifacts><build><number>9</number></build></artifacts>",
            "<scm><number>9</number><changes><branch>x</branch></changes></scm>",
            "<scm><scm><branch>x</branch></scm></scm>",
            "<log><number>9</number></log>",
            "<log><![CDATA[<number>9</number></log>]]></log>",
            "<!-- <number>9</number> -->",
            "<job><build><number>9</number></build></job>",
            "<number/>",
            "<number> </number>",
            "<Number>9</Number>",
            "<x number='9'/>",
        ];
        for more in table {
            let given = report(started(more));
            assert_eq!((given.job.as_str(), given.number, given.scm_branch), ("a", 1, None), "{more}");
        }
    }

    #[test]
    fn texts_are_pieced_together_and_references_resolved_once() {
        let table = [
            ("a&amp;b", "a&b"),
            ("a&amp;lt;b", "a&lt;b"),
            ("&lt;a&gt;&quot;&apos;", "<a>\"'"),
            ("<![CDATA[a&amp;b]]>", "a&amp;b"),
            ("a<!-- no -->b<![CDATA[c]]>&#100;", "abcd"),
            ("a&#x1b;b", "a\u{1b}b"),
            ("a&#0;b&#xD800;c", "a\u{FFFD}b\u{FFFD}c"),
            ("\n  a\n  ", "a"),
            ("a & b", "a & b"),
        ];
        for (written, expected) in table {
            let given = report(started(&format!("<scm><branch>{written}</branch></scm>")));
            assert_eq!(given.scm_branch.as_deref(), Some(expected), "{written}");
        }
    }

    #[test]
    fn a_log_may_hold_anything_that_xstream_writes() {
        let table = ["&#x1b;[31m &#0; &#xFFFF;", "&nbsp; &unknown;", "a & b && c &", "\u{1b}\u{0}", "]]>", ""];
        for log in table {
            assert_eq!(report(started(&format!("<log>{log}</log>"))).number, 1, "{log:?}");
        }
        assert_eq!(
            report(
                [
                    &b"<job><url>job/a/</url><build><number>1</number><phase>STARTED</phase><log>"[..],
                    &b"\xFF\xC3</log></build></job>"[..]
                ]
                .concat()
            )
            .number,
            1
        );
    }

    #[test]
    fn a_declaration_and_what_surrounds_the_root_do_no_harm() {
        let body = format!("\u{FEFF}\n<?xml version=\"1.1\" encoding='UTF-8'?>\n<!-- x -->{}\n<?x y?>\n", started(""));
        assert_eq!(report(body).number, 1);
    }

    #[test]
    fn what_is_not_the_plugins_xml_is_refused() {
        let syntax = |line, column| PayloadError::Syntax { format: Format::Xml, line, column };
        let table = [
            ("<html><body>Log in</body></html>", PayloadError::ForeignRoot),
            ("<Job/>", PayloadError::ForeignRoot),
            ("<!DOCTYPE html><html></html>", PayloadError::DocumentType),
            ("<!DOCTYPE job [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><job/>", PayloadError::DocumentType),
            ("<!doctype job", PayloadError::DocumentType),
            ("<job/>", PayloadError::Missing { field: "build" }),
            ("<job/><job/>", syntax(1, 7)),
            ("<job/>s3cret", syntax(1, 7)),
            ("<job/>&amp;", syntax(1, 7)),
            ("<job>\n <s3cret>\n</job>", syntax(3, 1)),
            ("</s3cret>", syntax(1, 1)),
            ("<job>", syntax(1, 6)),
            ("<job><url>&s3cret;</url></job>", syntax(1, 11)),
            ("<", syntax(1, 1)),
            ("<?xml version='1.0'?>", syntax(1, 22)),
            ("<job><url><x>job/a/</x></url></job>", PayloadError::Missing { field: "build" }),
        ];
        for (body, expected) in table {
            let error = read(body).unwrap_err();
            assert_eq!(error, expected, "{body}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }

    #[test]
    fn a_document_type_is_refused_in_a_body_that_was_cut_off_too() {
        for body in ["<!DOCTYPE job [", "<!DOCTYPE job><job>"] {
            let given = document::read(body.as_bytes(), Extent::CutOff);
            assert_eq!(given, Err(PayloadError::DocumentType), "{body}");
        }
    }

    #[test]
    fn depth_has_a_limit() {
        let log = |depth| format!("{}{}", "<x>".repeat(depth), "</x>".repeat(depth));
        assert_eq!(report(started(&log(DEEPEST - 2))).number, 1);
        assert_eq!(read(started(&log(DEEPEST - 1))), Err(PayloadError::TooDeep { limit: DEEPEST }));
    }

    #[test]
    fn a_needed_field_with_elements_in_it_is_of_the_wrong_kind() {
        let body = "<job><url>job/a/</url><build><number>1<x/></number><phase>STARTED</phase></build></job>";
        assert!(matches!(read(body), Err(PayloadError::WrongKind { field: "build.number", .. })));
    }
}
