//! Every call is in the record with its user: found by what the API says of itself, whoever has answered it.

use anyhow::{Context, Result, ensure};
use nix::unistd::{Uid, seteuid};
use prost_reflect::DescriptorPool;
use serde_json::Value;
use skep_tests::{Mode, Suite, is_root, raw::Raw, skip};
use std::collections::BTreeMap;

/// Lines of the record of the broker, by their traces.
fn record(suite: &Suite) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut by_trace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for act in suite.json(&["audit", "log"])? {
        if act["service"] == "broker" {
            let trace = act["trace"].as_str().context("no trace")?.to_owned();
            by_trace.entry(trace).or_default().push(act);
        }
    }
    Ok(by_trace)
}

#[test]
fn every_call_is_in_the_record_with_its_user_whoever_answers_it() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    let user = format!("uid {}", Uid::effective());
    let pool = DescriptorPool::decode(skep_api::DESCRIPTORS)?;
    let services = pool.services().filter(|service| service.package_name() == "skep.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let paths: Vec<String> =
        methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect();
    ensure!(paths.len() > 80, "{} methods", paths.len());
    let mut api = Raw::connect(&suite.run.join("api.sock"))?;
    let mut number = 0x5ce9_0000_0000_0000u64;
    // Its trace, what it is, how it ended; none: well.
    let mut calls: Vec<(String, String, Option<tonic::Code>)> = Vec::new();
    let mut call = |path: &str, message: Vec<u8>, more: &[(&'static str, &str)]| -> Result<()> {
        number += 1;
        let trace = format!("{number:016x}");
        let metadata = [&[("skep-trace", trace.as_str())], more].concat();
        let ended = api.begin(path, message, &metadata).with_context(|| path.to_owned())?;
        calls.push((trace, path.to_owned(), ended.err().map(|status| status.code())));
        Ok(())
    };
    for path in &paths {
        // What must be there is missing, or nothing must.
        call(path, Vec::new(), &[])?;
        // No message at all; too long; no time.
        call(path, vec![0xff], &[])?;
        call(path, Vec::new(), &[("grpc-timeout", "0S")])?;
        call(path, Vec::new(), &[("grpc-timeout", "soon")])?;
    }
    let list = "/skep.v1.Machines/List";
    call(list, vec![0; skep_api::MAX_MESSAGE + 1], &[])?;
    call("/skep.v1.Machines/Nothing", Vec::new(), &[])?;
    call("/skep.v1.Nothing/List", Vec::new(), &[])?;
    // Not in his name: they show something that is none of his.
    for wrong in ["Basic abc", "Bearer abc", "Bearer", ""] {
        call(list, Vec::new(), &[("authorization", wrong)])?;
    }
    let record = record(&suite)?;
    let mut problems = Vec::new();
    for (trace, path, ended) in &calls {
        let lines = record.get(trace).map(Vec::as_slice).unwrap_or_default();
        let his = lines.iter().any(|line| line["user"] == user.as_str());
        let nobodys = lines.iter().any(|line| line["user"] == "" || line["user"] == "(nobody)");
        let shown = *ended == Some(tonic::Code::Unauthenticated);
        // Whoever was refused is recorded as refused.
        let as_it_ended = lines.iter().any(|line| (line["result"] == "done") == ended.is_none());
        if !as_it_ended || if shown { !nobodys || his } else { !his } {
            problems.push(format!("{path}, {ended:?}: {lines:?}"));
        }
    }
    ensure!(problems.is_empty(), "{} problems of {} calls:\n{}", problems.len(), calls.len(), problems.join("\n"));
    let text = suite.ok(&["audit", "log"])?;
    ensure!(text.contains("CallTold UNSUPPORTED api-frontend says of") && text.contains("Nothing.List"), "{text}");
    suite.finish()
}

#[test]
fn strangers_cannot_drown_the_record() -> Result<()> {
    if !is_root() {
        skip!("needs other uids, so root");
    }
    let suite = Suite::start(Mode::Root)?;
    let stranger = |calls: usize| -> Result<()> {
        seteuid(Uid::from_raw(61_234))?;
        let flooded = (|| {
            let mut api = Raw::connect(&suite.run.join("api.sock"))?;
            for _ in 0..calls {
                // One that the frontend refuses by itself, and one that it asks the broker about.
                for path in ["/skep.v1.Disks/Create", "/skep.v1.Machines/List"] {
                    ensure!(api.begin(path, Vec::new(), &[])?.is_err(), "{path} was answered");
                }
            }
            Ok(())
        })();
        seteuid(Uid::from_raw(0))?;
        flooded
    };
    suite.ok(&["switch", "create", "before"])?;
    stranger(300)?;
    suite.ok(&["switch", "create", "after"])?;
    let acts = suite.json(&["audit", "log"])?;
    let count = |what: &str, is: &dyn Fn(&Value) -> bool| {
        acts.iter().filter(|act| act["service"] == "broker" && act["operation"] == what && is(act)).count()
    };
    let (told, sessions) = (
        count("CallTold", &|act| {
            act["user"] == "(nobody)"
                && act["detail"].as_str().is_some_and(|text| text.contains("says of uid 61234: Disks.Create"))
        }),
        count("OpenSession", &|act| act["user"] == "" && act["result"] == "PERMISSION_DENIED"),
    );
    ensure!((1..=25).contains(&told) && (1..=25).contains(&sessions), "{told} {sessions}");
    let left_out = |act: &Value| act["detail"].as_str()?.split_once(" calls before this one")?.0.parse::<usize>().ok();
    let left_out: usize = acts.iter().filter_map(left_out).sum();
    // The frontend's own are two lines: nobody's session, and what it tells.
    ensure!(told + sessions + left_out == 900, "{told} {sessions} {left_out}");
    for name in ["before", "after"] {
        ensure!(count("SwitchCreate", &|act| act["detail"] == format!("switch {name}").as_str()) == 1, "{name} is not there");
    }
    suite.finish()
}
