//! What clients were built with stays: each field, value and method as a line, and no line ever goes or changes. A field may go when its
//! number and its name are reserved.

use super::messages;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::collections::BTreeSet;

/// Ends every problem that `--write` mends.
const NEW: &str = "is not in the baseline: `cargo xtask proto --write`";

/// Whether it is only new.
pub fn is_new(problem: &str) -> bool {
    problem.ends_with(NEW)
}

/// What would break clients, and what is new, a line each.
pub fn check(baseline: &str, files: &[FileDescriptorProto]) -> Vec<String> {
    let now = lines(files);
    let then: BTreeSet<String> = baseline.lines().map(str::to_owned).collect();
    let gone = then.difference(&now).filter(|line| !is_reserved(line, &now));
    let mut problems: Vec<String> = gone.map(|line| format!("{}: clients were built with: {line}", super::DIRECTORY)).collect();
    problems.extend(now.difference(&then).map(|line| format!("{}: {line} {NEW}", super::DIRECTORY)));
    problems
}

/// The baseline as it is to be.
pub fn text(files: &[FileDescriptorProto]) -> String {
    lines(files).into_iter().map(|line| line + "\n").collect()
}

/// Whether a field that went left its number and its name reserved.
fn is_reserved(line: &str, now: &BTreeSet<String>) -> bool {
    let mut words = line.split(' ');
    let (Some("field"), Some(message), Some(number), Some(name)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    now.contains(&format!("reserved {message} {number}")) && now.contains(&format!("reserved {message} {name}"))
}

fn lines(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in files {
        let package = file.package();
        for service in &file.service {
            for method in &service.method {
                let stream = |is: bool| if is { "stream " } else { "" };
                let (from, to) = (method.input_type(), method.output_type());
                let (sends, answers) = (stream(method.client_streaming()), stream(method.server_streaming()));
                lines.insert(format!("rpc {package}.{}/{} {sends}{from} -> {answers}{to}", service.name(), method.name()));
            }
        }
        for kind in &file.enum_type {
            values(package, kind, &mut lines);
        }
        for (name, _, message) in messages(file) {
            lines.insert(format!("message {name}"));
            for field in &message.field {
                let of = field.oneof_index.filter(|_| !field.proto3_optional());
                let of = of
                    .and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?))
                    .map(|oneof| format!(" in {}", oneof.name()));
                let (number, field_name) = (field.number(), field.name());
                lines.insert(format!("field {name} {number} {field_name} {}{}", kind_of(field), of.unwrap_or_default()));
            }
            for range in &message.reserved_range {
                // The end is not within. Ranges up to the last number there is are said as such.
                let numbers = range.start()..range.end().min(range.start() + 1000);
                lines.extend(numbers.map(|number| format!("reserved {name} {number}")));
            }
            lines.extend(message.reserved_name.iter().map(|reserved| format!("reserved {name} {reserved}")));
            for kind in &message.enum_type {
                values(&name, kind, &mut lines);
            }
        }
    }
    lines
}

fn values(prefix: &str, kind: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    lines.extend(kind.value.iter().map(|value| format!("value {prefix}.{} {} {}", kind.name(), value.number(), value.name())));
}

fn kind_of(field: &FieldDescriptorProto) -> String {
    let presence = match field.label() {
        Label::Repeated => "repeated ",
        Label::Optional | Label::Required if field.proto3_optional() => "optional ",
        Label::Optional | Label::Required => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        plain => plain.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("{presence}{kind}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::changed;
    use super::*;

    fn broken(from: &str, to: &str) -> Vec<String> {
        let baseline = text(&changed("", ""));
        check(&baseline, &changed(from, to)).into_iter().filter(|problem| !is_new(problem)).collect()
    }

    #[test]
    fn whatever_breaks_clients_is_refused() {
        assert_eq!(check(&text(&changed("", "")), &changed("", "")), Vec::<String>::new());
        for (from, to, line) in [
            ("string name = 1;\n  // How", "string name = 9;\n  // How", "field skep.v1.Thing 1 name string"),
            ("string name = 1;\n  // How", "bytes name = 1;\n  // How", "field skep.v1.Thing 1 name string"),
            ("string name = 1;\n  // How", "optional string name = 1;\n  // How", "field skep.v1.Thing 1 name string"),
            ("string name = 1;\n  // How", "string title = 1;\n  // How", "field skep.v1.Thing 1 name string"),
            ("  string name = 1;\n  // How", "  // How", "field skep.v1.Thing 1 name string"),
            ("  string name = 1;\n  // How", "  reserved 1;\n  // How", "field skep.v1.Thing 1 name string"),
            ("repeated Thing parts", "Thing parts", "field skep.v1.Thing 4 parts repeated .skep.v1.Thing"),
            ("    bool small = 3;", "    bool little = 5;", "field skep.v1.Thing 3 small bool in kind"),
            ("  reserved 7;\n", "", "reserved skep.v1.Thing 7"),
            ("THING_STATE_GOOD = 1", "THING_STATE_GOOD = 2", "value skep.v1.ThingState 1 THING_STATE_GOOD"),
            ("THING_STATE_GOOD = 1", "THING_STATE_FINE = 1", "value skep.v1.ThingState 1 THING_STATE_GOOD"),
            ("rpc Create(", "rpc Make(", "rpc skep.v1.Things/Create .skep.v1.CreateThingRequest -> .skep.v1.Thing"),
            (
                "returns (Thing)",
                "returns (CreateThingRequest)",
                "rpc skep.v1.Things/Create .skep.v1.CreateThingRequest -> .skep.v1.Thing",
            ),
            (
                "returns (Thing)",
                "returns (stream Thing)",
                "rpc skep.v1.Things/Create .skep.v1.CreateThingRequest -> .skep.v1.Thing",
            ),
        ] {
            let problems = broken(from, to);
            assert!(problems.iter().any(|problem| problem.ends_with(line)), "{to}: {problems:?}");
        }
    }

    #[test]
    fn what_is_added_or_reserved_breaks_nobody() {
        assert_eq!(broken("  string name = 1;\n  // How", "  reserved 1;\n  reserved \"name\";\n  // How"), Vec::<String>::new());
        let added = ("string name = 1;\n}", "string name = 1;\n  // More.\n  string more = 2;\n}");
        assert_eq!(broken(added.0, added.1), Vec::<String>::new());
        let problems = check(&text(&changed("", "")), &changed(added.0, added.1));
        assert!(
            problems.iter().any(|problem| problem.contains("field skep.v1.CreateThingRequest 2 more string") && is_new(problem))
        );
    }
}
