//! What is said of wrong values: of every field that a client can send, found in what the API says of itself, its name, the value and the limit.

mod values {
    pub mod cases;
}

use anyhow::{Context, Result, ensure};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage,
    Value,
};
use skep_tests::{Mode, Suite, is_root, raw};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use tonic_types::StatusExt;
use values::cases::{ANY, BASES, CASES};

/// A request with one wrong value.
struct Case {
    method: MethodDescriptor,
    request: Vec<u8>,
    /// Of which field, by its path from the request on.
    field: String,
    /// What the refusal says of it.
    says: Vec<String>,
}

/// How to get to a field: the method, and the fields from its request on.
type Way = (MethodDescriptor, Vec<FieldDescriptor>);

fn pool() -> Result<DescriptorPool> {
    Ok(DescriptorPool::decode(skep_api::DESCRIPTORS)?)
}

/// Bytes, items, required: what is declared for a field.
fn bounds(field: &FieldDescriptor) -> Result<(usize, usize, bool)> {
    let extension = field.parent_pool().get_extension_by_name("skep.v1.bounds").context("no bounds")?;
    let options = field.options();
    let value = options.get_extension(&extension);
    let bounds = value.as_message().context("bounds are no message")?;
    let number = |name: &str| bounds.get_field_by_name(name).as_deref().and_then(Value::as_u32).unwrap_or(0);
    let required = bounds.get_field_by_name("required").as_deref().and_then(Value::as_bool).unwrap_or(false);
    Ok((usize::try_from(number("bytes"))?, usize::try_from(number("items"))?, required))
}

/// Every field that clients send, as `Message.field`, and one way to it.
fn sent(pool: &DescriptorPool) -> BTreeMap<String, Way> {
    fn walk(message: &MessageDescriptor, way: &Way, all: &mut BTreeMap<String, Way>) {
        for field in message.fields() {
            let name = format!("{}.{}", message.name(), field.name());
            let way = (way.0.clone(), way.1.iter().cloned().chain([field.clone()]).collect());
            if let Entry::Vacant(vacant) = all.entry(name) {
                vacant.insert(way.clone());
                if let Kind::Message(inner) = field.kind()
                    && inner.package_name() == "skep.v1"
                {
                    walk(&inner, &way, all);
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    for method in pool.services().filter(|s| s.package_name() == "skep.v1").flat_map(|s| s.methods().collect::<Vec<_>>()) {
        walk(&method.input(), &(method.clone(), Vec::new()), &mut all);
    }
    all
}

fn called(method: &MethodDescriptor) -> String {
    format!("{}.{}", method.parent_service().name(), method.name())
}

/// Puts something into whatever must be there.
fn fill(message: &mut DynamicMessage) -> Result<()> {
    for field in message.descriptor().fields() {
        let (_, items, required) = bounds(&field)?;
        if !required || items > 0 || message.has_field(&field) {
            continue;
        }
        match field.kind() {
            Kind::String => message.set_field(&field, Value::String("x".into())),
            Kind::Bytes => message.set_field(&field, Value::Bytes(b"x".to_vec().into())),
            Kind::Message(inner) => {
                let mut inner = DynamicMessage::new(inner);
                fill(&mut inner)?;
                message.set_field(&field, Value::Message(inner));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A request of a method that has nothing wrong.
fn base(method: &MethodDescriptor) -> Result<DynamicMessage> {
    let name = called(method);
    let text = BASES.iter().find(|(of, _)| *of == name).map_or("", |(_, text)| text);
    let mut message = DynamicMessage::parse_text_format(method.input(), text).with_context(|| format!("{name}: {text}"))?;
    fill(&mut message)?;
    Ok(message)
}

/// The same with this at the end of the way; none: nothing.
fn with(message: &mut DynamicMessage, way: &[FieldDescriptor], value: Option<Value>) -> Result<()> {
    let (field, further) = way.split_first().context("no field")?;
    if further.is_empty() {
        match value {
            Some(value) => message.set_field(field, value),
            None => message.clear_field(field),
        }
        return Ok(());
    }
    let Kind::Message(inner) = field.kind() else { anyhow::bail!("{} is no message", field.name()) };
    let mut held = match (message.get_field(field).as_message(), field.is_list()) {
        (Some(held), false) => held.clone(),
        _ => DynamicMessage::new(inner),
    };
    fill(&mut held)?;
    with(&mut held, further, value)?;
    let held = Value::Message(held);
    message.set_field(field, if field.is_list() { Value::List(vec![held]) } else { held });
    Ok(())
}

/// What is declared can be broken without knowing more: lengths, numbers of items, what must be there, values of enums, sizes of pages.
fn declared((method, way): &Way) -> Result<Vec<Case>> {
    let field = way.last().context("no field")?;
    let path = way.iter().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(".");
    let mut cases = Vec::new();
    let mut add = |value: Option<Value>, says: &[&str]| {
        let mut message = base(method)?;
        with(&mut message, way, value)?;
        let says = says.iter().map(|&text| text.to_owned()).collect();
        cases.push(Case { method: method.clone(), request: message.encode_to_vec(), field: path.clone(), says });
        anyhow::Ok(())
    };
    let (bytes, items, required) = bounds(field)?;
    let one = |bytes: usize| match field.kind() {
        Kind::String => Some(Value::String("x".repeat(bytes))),
        Kind::Bytes => Some(Value::Bytes(vec![b'x'; bytes].into())),
        Kind::Message(inner) => Some(Value::Message(DynamicMessage::new(inner))),
        _ => None,
    };
    let list = field.cardinality() == Cardinality::Repeated;
    if bytes > 0
        && let Some(long) = one(bytes + 1)
    {
        let long = if list { Value::List(vec![long]) } else { long };
        add(Some(long), &[&format!("{} bytes; at most {bytes}", bytes + 1)])?;
    }
    if items > 0
        && let Some(item) = one(1)
    {
        add(Some(Value::List(vec![item; items + 1])), &[&format!("at most {items}")])?;
    }
    if required {
        // Of several first messages one must be there: the method itself says so.
        let says = match field.kind() {
            _ if list => "there is none",
            Kind::Message(_) => "",
            _ if field.containing_oneof().is_some() => "must say",
            _ => "empty",
        };
        add(None, &[says])?;
    }
    if let Kind::Enum(_) = field.kind() {
        add(Some(Value::EnumNumber(99)), &["99 is none of 1 ("])?;
    }
    if field.name() == "page_size" {
        add(Some(Value::U32(1_001)), &["1001", "1000"])?;
    }
    Ok(cases)
}

/// The table's case.
fn tabled(pool: &DescriptorPool, (method, wrong, field, says): &(&str, &str, &str, &[&str])) -> Result<Case> {
    let (service, name) = method.split_once('.').context("no method")?;
    let service = pool.get_service_by_name(&format!("skep.v1.{service}")).context("no such service")?;
    let found = service.methods().find(|m| m.name() == name).with_context(|| format!("no method {method}"))?;
    let whole = wrong.starts_with('=');
    let wrong = DynamicMessage::parse_text_format(found.input(), wrong.trim_start_matches('='))
        .with_context(|| format!("{method}: {wrong}"))?;
    // Of what comes twice the last counts. One that begins with `=` is all of the request.
    let base = if whole { Vec::new() } else { base(&found)?.encode_to_vec() };
    let request = [base, wrong.encode_to_vec()].concat();
    let says = says.iter().map(|&text| text.to_owned()).collect();
    Ok(Case { method: found, request, field: (*field).to_owned(), says })
}

/// `Message.field` of a path from a method's request on.
fn name_of(method: &MethodDescriptor, path: &str) -> Result<String> {
    let mut message = method.input();
    let mut name = String::new();
    for part in path.split('.') {
        let field = message.get_field_by_name(part).with_context(|| format!("{} has no {part} ({path})", message.name()))?;
        name = format!("{}.{part}", message.name());
        if let Kind::Message(inner) = field.kind() {
            message = inner;
        }
    }
    Ok(name)
}

#[test]
fn every_field_has_a_wrong_value_or_a_reason_why_there_is_none() -> Result<()> {
    let pool = pool()?;
    let sent = sent(&pool);
    let mut tested: BTreeSet<String> = BTreeSet::new();
    for case in CASES {
        tested.insert(name_of(&tabled(&pool, case)?.method, case.2)?);
    }
    let reasons: BTreeMap<&str, &str> = ANY.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, way) in &sent {
        let field = way.1.last().context("no field")?;
        // What it holds has cases of its own.
        let holds = matches!(field.kind(), Kind::Message(inner) if inner.package_name() == "skep.v1");
        let has = tested.contains(name) || !declared(way)?.is_empty();
        match reasons.get(name.as_str()) {
            Some(_) if has => problems.push(format!("{name}: it has a case, and a reason why it has none")),
            None if !has && !holds && field.kind() != Kind::Bool => {
                problems.push(format!("{name}: no wrong value of it is tried"))
            }
            _ => {}
        }
    }
    problems.extend(reasons.keys().filter(|name| !sent.contains_key(**name)).map(|name| format!("{name}: nobody sends it")));
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn a_wrong_value_of_any_field_is_named_with_the_field_and_its_limit() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    for args in [
        &["disk", "create", "d", "--size", "8M"][..],
        &["switch", "create", "s"],
        &["nic", "create", "n", "--switch", "s"],
        &["vm", "create", "m", "--disk", "d"],
        &["user", "create", "u", "--no-password"],
        &["group", "create", "g"],
    ] {
        suite.ok(args)?;
    }
    let pool = pool()?;
    let mut cases = Vec::new();
    for way in sent(&pool).values() {
        cases.extend(declared(way)?);
    }
    for case in CASES {
        cases.push(tabled(&pool, case)?);
    }
    let mut api = raw::Raw::connect(&suite.run.join("api.sock"))?;
    let mut problems = Vec::new();
    for Case { method, request, field, says } in cases {
        let what = format!("{} {field} {says:?}", called(&method));
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let Err(status) = api.ask(&path, request)? else {
            problems.push(format!("{what}: it was accepted"));
            continue;
        };
        let details = status.get_error_details();
        let named: Vec<_> = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations).map(|v| &v.field).collect();
        let right = status.code() == tonic::Code::InvalidArgument && named == [&field];
        if !right || !says.iter().all(|text| status.message().contains(text)) {
            problems.push(format!("{what}: {:?}, {named:?}: {}", status.code(), status.message()));
        }
    }
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    suite.finish()
}
