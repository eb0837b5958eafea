//! Placeholder by the lead, until the CLI's owner writes the real one.
#![forbid(unsafe_code)]
mod doctor;
mod up;
fn main() -> std::process::ExitCode {
    let places = up::Places::new(None, None);
    match std::env::args().nth(1).as_deref() {
        Some("up") => match up::up(&places, std::env::args().any(|a| a == "--foreground"), None) {
            Ok(text) => println!("{text}"),
            Err(e) => {
                eprintln!("skep: {e}");
                return std::process::ExitCode::FAILURE;
            }
        },
        Some("down") => println!("{:?}", up::stop_supervisor(&places)),
        Some("doctor") => return doctor::run(&places, false),
        _ => {}
    }
    std::process::ExitCode::SUCCESS
}
