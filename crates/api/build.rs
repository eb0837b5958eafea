//! Compiles `proto/skep/v1` to Rust, and keeps its descriptors for gRPC reflection. Needs no protoc. A field of a request whose length has
//! no bound does not compile.

use protox::prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{env, error::Error, fs, path::PathBuf};

const PACKAGE: &str = "skep.v1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "machines",
        "boot",
        "devices",
        "limits",
        "firmware",
        "disks",
        "switches",
        "nics",
        "operations",
        "events",
        "host",
        "users",
        "groups",
        "stats",
    ];
    let files = files.map(|name| format!("skep/v1/{name}.proto"));
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let described = compiler.file_descriptor_set();
    fs::write(out.join("bounds.rs"), bounds(&compiler.descriptor_pool())?)?;
    // Clients that reflect need names and types, not comments.
    fs::write(out.join("skep.v1.bin"), compiler.include_source_info(false).encode_file_descriptor_set())?;
    tonic_prost_build::configure().bytes(".").compile_fds(described)?;
    Ok(())
}

/// Bytes, items, required.
type Limits = (u32, u32, bool);

/// What is declared for a field.
fn declared(pool: &DescriptorPool, field: &FieldDescriptor) -> Result<Limits, Box<dyn Error>> {
    let extension = pool.get_extension_by_name("skep.v1.bounds").ok_or("bounds.proto declares skep.v1.bounds")?;
    let options = field.options();
    let value = options.get_extension(&extension);
    let bounds = value.as_message().ok_or("bounds are a message")?;
    let number = |name: &str| bounds.get_field_by_name(name).as_deref().and_then(Value::as_u32).unwrap_or(0);
    let required = bounds.get_field_by_name("required").as_deref().and_then(Value::as_bool).unwrap_or(false);
    Ok((number("bytes"), number("items"), required))
}

/// Messages that clients send, and what they hold.
fn sent(pool: &DescriptorPool) -> BTreeSet<String> {
    fn walk(message: &MessageDescriptor, all: &mut BTreeSet<String>) {
        if message.package_name() == PACKAGE && all.insert(message.name().to_owned()) {
            for field in message.fields() {
                if let Kind::Message(inner) = field.kind() {
                    walk(&inner, all);
                }
            }
        }
    }
    let mut all = BTreeSet::new();
    for service in pool.services() {
        service.methods().for_each(|method| walk(&method.input(), &mut all));
    }
    all
}

/// `impl Bounded` of each message of the package that clients send.
fn bounds(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let sent = sent(pool);
    let (mut text, mut missing) = (String::new(), Vec::new());
    for message in pool.all_messages().filter(|m| m.package_name() == PACKAGE && sent.contains(m.name())) {
        let mut body = String::new();
        for field in message.fields().filter(|field| field.containing_oneof().is_none_or(|oneof| is_optional(&oneof))) {
            let (limits, name) = (declared(pool, &field)?, field.name().to_owned());
            if !is_bounded(&field, limits) {
                missing.push(field.full_name().to_owned());
            }
            let repeated = field.cardinality() == Cardinality::Repeated;
            let (_, items, required) = limits;
            if repeated {
                writeln!(body, "items({name:?}, self.{name}.len(), {items}, {required})?;")?;
            }
            let Some(check) = check(&field, limits, if repeated { "one" } else { "it" }) else { continue };
            match (repeated, field.supports_presence()) {
                (true, _) => writeln!(body, "for one in &self.{name} {{ {check} }}")?,
                (_, true) => writeln!(body, "if let Some(it) = &self.{name} {{ {check} }}")?,
                _ => writeln!(body, "{{ let it = &self.{name}; {check} }}")?,
            }
        }
        for oneof in message.oneofs().filter(|oneof| !is_optional(oneof)) {
            let (module, kind) = (snake(message.name()), pascal(oneof.name()));
            writeln!(body, "match &self.{} {{", oneof.name())?;
            for field in oneof.fields() {
                let limits = declared(pool, &field)?;
                if !is_bounded(&field, limits) {
                    missing.push(field.full_name().to_owned());
                }
                if let Some(check) = check(&field, limits, "it") {
                    let variant = pascal(field.name());
                    writeln!(body, "Some(crate::v1::{module}::{kind}::{variant}(it)) => {{ {check} }}")?;
                }
            }
            writeln!(body, "_ => {{}} }}")?;
        }
        let name = message.name();
        writeln!(
            text,
            "impl Bounded for crate::v1::{name} {{\n#[allow(clippy::all, clippy::pedantic)]\nfn bounds(&self) -> Result<(), Exceeded> {{\n{body}Ok(())\n}}\n}}"
        )?;
    }
    if missing.is_empty() { Ok(text) } else { Err(format!("(bounds) are missing: {}", missing.join(", ")).into()) }
}

/// The field that stands for `optional`.
fn is_optional(oneof: &protox::prost_reflect::OneofDescriptor) -> bool {
    oneof.is_synthetic()
}

/// Whether each length that it has is declared.
fn is_bounded(field: &FieldDescriptor, (bytes, items, _): Limits) -> bool {
    let long = matches!(field.kind(), Kind::String | Kind::Bytes);
    (!long || bytes > 0) && (field.cardinality() != Cardinality::Repeated || items > 0)
}

/// What holds one value to its bounds.
fn check(field: &FieldDescriptor, (bytes, _, required): Limits, value: &str) -> Option<String> {
    let name = field.name();
    // Of a repeated field it is the list that must be there.
    let required = required && field.cardinality() != Cardinality::Repeated;
    match field.kind() {
        Kind::String | Kind::Bytes => Some(format!("bytes({name:?}, {value}.len(), {bytes}, {required})?;")),
        Kind::Message(inner) if inner.package_name() == PACKAGE => {
            Some(format!("{value}.bounds().map_err(|e| e.within({name:?}))?;"))
        }
        _ => None,
    }
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn pascal(name: &str) -> String {
    let capital =
        |part: &str| part.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(part.chars().skip(1)).collect::<String>();
    name.split('_').map(capital).collect()
}
