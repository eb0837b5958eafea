//! buf's standard rules and its rules for comments, by their names there. What we do otherwise is declared, with the reason.

use super::messages;
use prost_types::field_descriptor_proto::Type;
use prost_types::{EnumDescriptorProto, FileDescriptorProto};
use std::collections::{BTreeMap, BTreeSet};

/// Rule, what is excepted, why. One that excepts nothing any more is a problem itself.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("RPC_REQUEST_STANDARD_NAME", "skep.v1.ConsoleInput", "a stream of bytes, not a request"),
    ("RPC_REQUEST_STANDARD_NAME", "skep.v1.ScreenInput", "a stream of bytes, not a request"),
    ("RPC_REQUEST_STANDARD_NAME", "skep.v1.GdbInput", "a stream of bytes, not a request"),
    ("RPC_REQUEST_STANDARD_NAME", "skep.v1.ChannelInput", "a stream of bytes, not a request"),
    ("RPC_REQUEST_RESPONSE_UNIQUE", "skep.v1.MachineActRequest", "what is to be done is in the method's name"),
    (
        REPEATABLE,
        "skep.v1.CreateTokenRequest",
        "its answer is a secret, of which only the hash is kept: there is nothing to answer a repeat with",
    ),
];
// SERVICE_SUFFIX is not ours: services are called after what they are about. RPC_RESPONSE_STANDARD_NAME neither: as Google's design
// guide (AIP-131 to 135) has it, methods about one object answer with it, with an operation, or with Empty; and so
// RPC_REQUEST_RESPONSE_UNIQUE counts for requests alone.

/// A rule of ours: what makes something can be asked for again.
const REPEATABLE: &str = "CREATE_REQUEST_ID";
/// How methods that make something begin.
const MAKES: [&str; 6] = ["Create", "Clone", "Import", "Fetch", "Launch", "Take"];

/// What is broken, a line each.
pub fn check(files: &[FileDescriptorProto]) -> Vec<String> {
    check_but(files, EXCEPTIONS)
}

fn check_but(files: &[FileDescriptorProto], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut requests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        found.extend(of_file(file, &mut requests).into_iter().map(|(rule, what)| (rule, what, file.name())));
    }
    for (request, methods) in &requests {
        if methods.len() > 1 {
            found.push(("RPC_REQUEST_RESPONSE_UNIQUE", request.clone(), "a request of several methods"));
        }
        let makes =
            |called: &String| called.rsplit('.').next().is_some_and(|name| MAKES.iter().any(|make| name.starts_with(make)));
        if methods.iter().any(makes) && !has_id(files, request, true) {
            found.push((REPEATABLE, request.clone(), "a request that makes something, without a request_id"));
        }
    }
    let excepted = |rule: &str, what: &str| exceptions.iter().position(|(r, w, _)| (*r, *w) == (rule, what));
    let mut used = BTreeSet::new();
    let mut problems = Vec::new();
    for (rule, what, place) in found {
        match excepted(rule, &what) {
            Some(at) => drop(used.insert(at)),
            None => problems.push(format!("{place}: {what}: {rule}")),
        }
    }
    let stale = exceptions.iter().enumerate().filter(|(at, _)| !used.contains(at));
    problems.extend(
        stale.map(|(_, (rule, what, _))| format!("xtask/src/proto/lint.rs: {what}: the exception from {rule} excepts nothing")),
    );
    problems
}

/// Whether a message, or one that is in it, has the id of a request.
fn has_id(files: &[FileDescriptorProto], name: &str, deeper: bool) -> bool {
    let all = files.iter().flat_map(messages);
    let Some((_, _, message)) = all.into_iter().find(|(called, _, _)| called == name) else { return false };
    message.field.iter().any(|field| {
        let inner = field.type_name().trim_start_matches('.');
        field.name() == "request_id" && field.r#type() == Type::String
            || deeper && !inner.is_empty() && has_id(files, inner, false)
    })
}

type Found = Vec<(&'static str, String)>;

fn of_file(file: &FileDescriptorProto, requests: &mut BTreeMap<String, Vec<String>>) -> Found {
    let mut found = Found::new();
    let mut say = |broken: bool, rule: &'static str, what: &str| {
        if broken {
            found.push((rule, what.to_owned()));
        }
    };
    let package = file.package();
    say(file.syntax() != "proto3", "SYNTAX_SPECIFIED", file.name());
    let version = package.rsplit('.').next().and_then(|last| last.strip_prefix('v')).unwrap_or_default();
    say(!package.contains('.') || version.parse::<u32>().is_err(), "PACKAGE_VERSION_SUFFIX", package);
    say(!is_snake(&package.replace('.', "_")), "PACKAGE_LOWER_SNAKE_CASE", package);
    let (directory, name) = file.name().rsplit_once('/').unwrap_or(("", file.name()));
    say(directory != package.replace('.', "/"), "PACKAGE_DIRECTORY_MATCH", package);
    say(!name.strip_suffix(".proto").is_some_and(is_snake), "FILE_LOWER_SNAKE_CASE", name);
    say(!file.public_dependency.is_empty(), "IMPORT_NO_PUBLIC", file.name());
    say(!file.weak_dependency.is_empty(), "IMPORT_NO_WEAK", file.name());
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    let commented: BTreeSet<&[i32]> =
        places.filter(|l| !l.leading_comments().trim().is_empty()).map(|l| l.path.as_slice()).collect();
    let silent = |place: &[i32]| !commented.contains(place);

    for (number, service) in (0..).zip(&file.service) {
        let name = format!("{package}.{}", service.name());
        say(!is_pascal(service.name()), "SERVICE_PASCAL_CASE", &name);
        say(silent(&[6, number]), "COMMENT_SERVICE", &name);
        for (place, method) in (0..).zip(&service.method) {
            let called = format!("{name}.{}", method.name());
            say(!is_pascal(method.name()), "RPC_PASCAL_CASE", &called);
            say(silent(&[6, number, 2, place]), "COMMENT_RPC", &called);
            let request = method.input_type().trim_start_matches('.').to_owned();
            say(!request.ends_with("Request") || !request.starts_with(package), "RPC_REQUEST_STANDARD_NAME", &request);
            requests.entry(request).or_default().push(called);
        }
    }
    let mut enums: Vec<(String, Vec<i32>, &EnumDescriptorProto)> =
        (0..).zip(&file.enum_type).map(|(n, e)| (format!("{package}.{}", e.name()), vec![5, n], e)).collect();
    for (name, place, message) in messages(file) {
        let inner = (0..).zip(&message.enum_type);
        enums.extend(inner.map(|(n, e)| (format!("{name}.{}", e.name()), [&place[..], &[4, n]].concat(), e)));
        if message.options.as_ref().is_some_and(|options| options.map_entry()) {
            continue;
        }
        say(!is_pascal(message.name()), "MESSAGE_PASCAL_CASE", &name);
        say(silent(&place), "COMMENT_MESSAGE", &name);
        for (number, field) in (0..).zip(&message.field) {
            let called = format!("{name}.{}", field.name());
            say(!is_snake(field.name()), "FIELD_LOWER_SNAKE_CASE", &called);
            say(silent(&[&place[..], &[2, number]].concat()), "COMMENT_FIELD", &called);
        }
        // Those that only stand for `optional` were never written.
        let written = |at: i32| message.field.iter().any(|f| f.oneof_index == Some(at) && !f.proto3_optional());
        for (number, oneof) in (0..).zip(&message.oneof_decl).filter(|(at, _)| written(*at)) {
            let called = format!("{name}.{}", oneof.name());
            say(!is_snake(oneof.name()), "ONEOF_LOWER_SNAKE_CASE", &called);
            say(silent(&[&place[..], &[8, number]].concat()), "COMMENT_ONEOF", &called);
        }
    }
    for (name, place, kind) in enums {
        say(!is_pascal(kind.name()), "ENUM_PASCAL_CASE", &name);
        say(silent(&place), "COMMENT_ENUM", &name);
        say(kind.options.as_ref().is_some_and(|options| options.allow_alias()), "ENUM_NO_ALLOW_ALIAS", &name);
        let prefix = format!("{}_", upper_snake(kind.name()));
        for (number, value) in (0..).zip(&kind.value) {
            let called = format!("{name}.{}", value.name());
            say(value.name().to_uppercase() != value.name(), "ENUM_VALUE_UPPER_SNAKE_CASE", &called);
            say(!value.name().starts_with(&prefix), "ENUM_VALUE_PREFIX", &called);
            say(value.number() == 0 && !value.name().ends_with("_UNSPECIFIED"), "ENUM_ZERO_VALUE_SUFFIX", &called);
            say(silent(&[&place[..], &[2, number]].concat()), "COMMENT_ENUM_VALUE", &called);
        }
    }
    found
}

fn is_snake(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    first && plain && !name.ends_with('_') && !name.contains("__")
}

fn is_pascal(name: &str) -> bool {
    name.chars().next().is_some_and(|c| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::changed;
    use super::*;

    #[test]
    fn every_rule_can_be_broken() {
        assert_eq!(check_but(&changed("", ""), &[]), Vec::<String>::new());
        for (from, to, rule) in [
            ("package skep.v1;", "package skep.api;", "PACKAGE_VERSION_SUFFIX"),
            ("package skep.v1;", "package skep.V1.v1;", "PACKAGE_LOWER_SNAKE_CASE"),
            ("package skep.v1;", "package skep.v2;", "PACKAGE_DIRECTORY_MATCH"),
            ("service Things", "service things", "SERVICE_PASCAL_CASE"),
            ("  // Known again by it.\n  string request_id = 2;\n", "", REPEATABLE),
            ("string request_id = 2;", "bytes request_id = 2;", REPEATABLE),
            ("// Things.\n", "", "COMMENT_SERVICE"),
            ("rpc Create(", "rpc create_one(", "RPC_PASCAL_CASE"),
            ("  // Makes one.\n", "", "COMMENT_RPC"),
            ("rpc Create(CreateThingRequest)", "rpc Create(Thing)", "RPC_REQUEST_STANDARD_NAME"),
            (
                "returns (Thing);",
                "returns (Thing);\n// Again.\nrpc Again(CreateThingRequest) returns (Thing);",
                "RPC_REQUEST_RESPONSE_UNIQUE",
            ),
            ("message Thing {", "// x\nmessage thing_two {}\n// A thing.\nmessage Thing {", "MESSAGE_PASCAL_CASE"),
            ("// A thing.\n", "", "COMMENT_MESSAGE"),
            ("string name = 1;\n  // How", "string theName = 1;\n  // How", "FIELD_LOWER_SNAKE_CASE"),
            ("  // Its name.\n", "", "COMMENT_FIELD"),
            ("oneof kind", "oneof Kind", "ONEOF_LOWER_SNAKE_CASE"),
            ("  // One of them.\n", "", "COMMENT_ONEOF"),
            ("// How it is.\nenum", "enum", "COMMENT_ENUM"),
            ("// A thing.", "// x\nenum other_kind {\n// x\nOTHER_KIND_UNSPECIFIED = 0;\n}\n// A thing.", "ENUM_PASCAL_CASE"),
            ("  // Not used.\n", "", "COMMENT_ENUM_VALUE"),
            ("THING_STATE_UNSPECIFIED", "THING_STATE_NONE", "ENUM_ZERO_VALUE_SUFFIX"),
            ("THING_STATE_GOOD", "GOOD", "ENUM_VALUE_PREFIX"),
            ("THING_STATE_GOOD", "THING_STATE_Good", "ENUM_VALUE_UPPER_SNAKE_CASE"),
            (
                "THING_STATE_GOOD = 1;",
                "THING_STATE_GOOD = 1;\noption allow_alias = true;\n// x\nTHING_STATE_FINE = 1;",
                "ENUM_NO_ALLOW_ALIAS",
            ),
        ] {
            let problems = check_but(&changed(from, to), &[]);
            assert!(problems.iter().any(|problem| problem.ends_with(&format!(": {rule}"))), "{rule}: {problems:?}");
        }
    }

    #[test]
    fn the_id_of_what_makes_something_may_stand_in_a_message_of_its_request() {
        let inner =
            "Header header = 2;\n}\n// What comes first.\nmessage Header {\n  // Known again by it.\n  string request_id = 1;";
        assert_eq!(check_but(&changed("string request_id = 2;", inner), &[]), Vec::<String>::new());
        // What makes nothing needs none.
        let gets = "rpc Get(GetThingRequest) returns (Thing);\n}\n// See Things.Get.\nmessage GetThingRequest {}";
        let files = changed("rpc Create(CreateThingRequest) returns (Thing);\n}", gets);
        assert_eq!(check_but(&files, &[]), Vec::<String>::new());
    }

    #[test]
    fn an_exception_counts_while_it_is_needed() {
        let files = changed("rpc Create(CreateThingRequest)", "rpc Get(Thing)");
        let exception = &[("RPC_REQUEST_STANDARD_NAME", "skep.v1.Thing", "a test")][..];
        assert_eq!(check_but(&files, exception), Vec::<String>::new());
        assert!(check_but(&changed("", ""), exception).iter().any(|problem| problem.contains("excepts nothing")));
    }
}
