//! api-frontend: acquire → limit → enter → serve.
#![forbid(unsafe_code)]

use skep_api_frontend::{Acquired, serve};
use skep_rights::frontend::TABLE;
use skep_service::{Role, Start};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    skep_service::run("api-frontend", || -> Result<(), Box<dyn Error>> {
        let start = Start::from_args(&["listen", "metrics", "ready-fd"])?;
        let acquired = Acquired::acquire(&start)?;
        let limited = skep_sandbox::limit(acquired, &TABLE)?;
        let inside = skep_sandbox::enter(limited, &start.scene(Role::Frontend))?;
        serve(inside)
    })
}
