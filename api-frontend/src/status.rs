//! Refusals as gRPC status, with details after the standard error model (google.rpc).

use skep_proto::{Reason, Refusal, TraceId};
use std::collections::HashMap;
use std::time::Duration;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our reasons (`google.rpc.ErrorInfo.domain`).
pub const DOMAIN: &str = "skep.dev";
/// Names the trace of a call, in its metadata and in the answer's.
pub const TRACE: &str = "skep-trace";

/// A refusal as its status.
pub fn status(refusal: &Refusal, trace: TraceId) -> Status {
    let row = refusal.reason.row();
    let (object, field) = (refusal.object.as_str(), refusal.field.as_str());
    let message = refusal.to_string();
    let mut info = HashMap::from([
        ("object".to_owned(), object.to_owned()),
        ("advice".to_owned(), row.advice.to_owned()),
        ("trace".to_owned(), trace.to_string()),
    ]);
    let mut note = |name: &str, value: String| {
        if !value.is_empty() {
            info.insert(name.to_owned(), value);
        }
    };
    note("field", field.to_owned());
    note("note", refusal.note.to_string());
    note("errno", if refusal.errno == 0 { String::new() } else { refusal.errno.to_string() });
    let mut details = ErrorDetails::new();
    details.set_error_info(row.name, DOMAIN, info);
    if !field.is_empty() {
        details.add_bad_request_violation(field, &message);
    }
    let (kind, name) = object.split_once(' ').unwrap_or(("", object));
    match refusal.reason {
        Reason::NotFound | Reason::AlreadyExists | Reason::InUse => {
            details.set_resource_info(kind, name, "", &message);
        }
        Reason::WrongState => {
            details.add_precondition_failure_violation("STATE", object, &message);
        }
        Reason::Unavailable => {
            details.set_retry_info(Some(Duration::from_secs(1)));
        }
        Reason::TooManyTries => {
            details.set_retry_info(Some(refusal.wait().unwrap_or(Duration::from_secs(1))));
        }
        Reason::QuotaReached | Reason::LimitReached => {
            details.add_quota_failure_violation(object, &message);
        }
        _ => {}
    }
    let mut metadata = MetadataMap::new();
    mark(&mut metadata, trace);
    Status::with_error_details_and_metadata(Code::from(i32::from(row.grpc)), message, details, metadata)
}

/// Writes the trace of a call into the metadata of its answer.
pub fn mark(metadata: &mut MetadataMap, trace: TraceId) {
    if let Ok(value) = MetadataValue::try_from(trace.to_string()) {
        metadata.insert(TRACE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_code_and_details() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(*reason, "disk web1").field("size").note("more than 64 TiB");
            let status = status(&refusal, TraceId(0xabc));
            assert_eq!(status.code() as i32, i32::from(reason.row().grpc));
            assert_ne!(status.code(), Code::Ok);
            let details = status.get_error_details();
            let info = details.error_info().expect("ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.row().name, DOMAIN));
            assert_eq!(info.metadata["object"], "disk web1");
            assert_eq!(info.metadata["trace"], "0000000000000abc");
            let violation = &details.bad_request().expect("BadRequest").field_violations[0];
            assert_eq!((violation.field.as_str(), violation.description.as_str()), ("size", status.message()));
            assert_eq!(status.metadata().get(TRACE).expect("trace"), "0000000000000abc");
            // Each of these where it is promised, and nowhere else.
            let precondition = details.precondition_failure().map(|failure| failure.violations.clone());
            let precondition = precondition.map(|all| all.into_iter().map(|v| (v.r#type, v.subject, v.description)).collect());
            let wanted = vec![("STATE".to_owned(), "disk web1".to_owned(), status.message().to_owned())];
            assert_eq!(precondition, (*reason == Reason::WrongState).then_some(wanted), "{reason:?}");
            let resource = details.resource_info().map(|info| (info.resource_type.as_str(), info.resource_name.as_str()));
            let named = matches!(reason, Reason::NotFound | Reason::AlreadyExists | Reason::InUse);
            assert_eq!(resource, named.then_some(("disk", "web1")), "{reason:?}");
            let retry = details.retry_info().map(|info| info.retry_delay);
            let again = matches!(reason, Reason::Unavailable | Reason::TooManyTries);
            assert_eq!(retry, again.then_some(Some(Duration::from_secs(1))), "{reason:?}");
            let quota = details.quota_failure().map(|failure| failure.violations.clone());
            let quota = quota.map(|all| all.into_iter().map(|v| (v.subject, v.description)).collect());
            let wanted = vec![("disk web1".to_owned(), status.message().to_owned())];
            let full = matches!(reason, Reason::QuotaReached | Reason::LimitReached);
            assert_eq!(quota, full.then_some(wanted), "{reason:?}");
        }
    }

    #[test]
    fn a_wait_and_a_quota_are_said() {
        let later = status(&Refusal::later("login alice", Duration::from_millis(2500)), TraceId(1));
        assert_eq!(later.code(), Code::ResourceExhausted);
        assert_eq!(later.get_error_details().retry_info().and_then(|i| i.retry_delay), Some(Duration::from_secs(3)));
        let quota = status(&Refusal::new(Reason::QuotaReached, "group web").field("cpus"), TraceId(1));
        let details = quota.get_error_details();
        assert_eq!(details.quota_failure().expect("QuotaFailure").violations[0].subject, "group web");
    }

    #[test]
    fn a_missing_object_is_named() {
        let status = status(&Refusal::new(Reason::NotFound, "machine web1"), TraceId(1));
        let details = status.get_error_details();
        let resource = details.resource_info().expect("ResourceInfo");
        assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("machine", "web1"));
    }
}
