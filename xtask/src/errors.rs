//! docs/errors.md, printed from the table of reasons.

use skep_proto::Reason;
use std::fmt::Write;

const HEAD: &str = "# Errors

Printed from `crates/proto/src/refusal.rs` by `cargo xtask errors`. Do not edit.

Every refused operation has one of these reasons. It arrives as the gRPC status code, with `google.rpc.ErrorInfo` (domain `skep.dev`,
the reason's name; the object, the field and what exactly was wrong as metadata), and as the exit code of the `skep` command.
Exit code 0 is success, 2 a wrong command line.

| reason | gRPC code | exit code | what is wrong | what to do |
| --- | --- | --- | --- | --- |
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for reason in Reason::ALL {
        let row = reason.row();
        let _ = writeln!(page, "| `{}` | {} | {} | {} | {} |", row.name, grpc(row.grpc), row.exit, row.text, row.advice);
    }
    page
}

/// Name of a gRPC status code (grpc.io, "Status codes and their use in gRPC").
fn grpc(code: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_reason_has_a_grpc_code_and_an_exit_code_of_its_own_kind() {
        for reason in skep_proto::Reason::ALL {
            let row = reason.row();
            assert!(row.grpc > 0 && row.grpc < 17, "{}", row.name);
            assert!(row.exit > 0 && row.exit != 2 && row.exit < 64, "{}", row.name);
        }
    }
}
