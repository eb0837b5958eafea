//! Passwords: typed without echo at a terminal, or the first line of standard input. Never an argument, which others can see.

use crate::error::Failure;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use skep_proto::{Reason, Secret};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use zeroize::Zeroizing;

/// A terminal that shows nothing; as it was again when this is dropped. ^C comes as a character meanwhile, so that it is.
struct Hidden(Termios);

impl Hidden {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        hidden.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON);
        tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &hidden).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// One line of standard input, without a buffer of somebody else's that would keep it.
fn line() -> Result<Zeroizing<String>, Failure> {
    line_of("standard input", std::io::stdin())
}

/// The first line of a file; `-`: of standard input.
pub fn of_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    if path == Path::new("-") {
        return line();
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| Failure::io(&name, "open it", &e))?;
    line_of(&name, file)
}

fn line_of(name: &str, from: impl AsFd) -> Result<Zeroizing<String>, Failure> {
    let failed = |e: std::io::Error| Failure::io(name, "read the password", &e);
    let wrong =
        || Failure::new(Reason::InvalidValue, "password", format_args!("at most {} bytes of UTF-8 are expected", Secret::MAX));
    let mut text = Zeroizing::new(Vec::with_capacity(Secret::MAX + 2));
    let mut byte = [0u8];
    loop {
        match nix::unistd::read(&from, &mut byte) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(failed(e.into())),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if byte == [3] => return Err(Failure::interrupted("")),
            Ok(_) if text.len() > Secret::MAX => return Err(wrong()),
            Ok(_) => text.extend(byte),
        }
    }
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
    if text.is_empty() {
        return Err(Failure::new(Reason::InvalidValue, "password", "it is empty")
            .advice("type it, or give it as a line of standard input"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A password that is there already.
pub fn password(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return line();
    }
    let _ = write!(std::io::stderr(), "{prompt}: ");
    let hidden = Hidden::enter();
    let text = line();
    drop(hidden);
    text
}

/// A new one: at a terminal typed twice.
pub fn new_password(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let first = password(prompt)?;
    if std::io::stdin().is_terminal() && password("The same again")? != first {
        return Err(Failure::new(Reason::InvalidValue, "password", "the second was another").advice("try again"));
    }
    Ok(first)
}

/// A question that is answered at a terminal; elsewhere nobody answers.
pub fn confirmed(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(std::io::stderr(), "{question} (yes/no) ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim().eq_ignore_ascii_case("yes"))
}
