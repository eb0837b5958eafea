//! Scripts that are played into a serial port: docs/scripts.md.

use super::expect::Stage;
use crate::args::Step;
use crate::error::Failure;
use crate::size;
use skep_proto::Reason;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Bytes of a script.
const MOST: u64 = 1 << 20;

/// Reads a script; `-`: standard input.
pub fn read(path: &Path) -> Result<Vec<Stage>, Failure> {
    let object = format!("script {}", path.display());
    let failed = |e: std::io::Error| Failure::io(&object, "read", &e);
    let mut bytes = Vec::new();
    let got = if path == Path::new("-") {
        std::io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).map_err(failed)?.take(MOST + 1).read_to_end(&mut bytes)
    };
    if got.map_err(failed)? as u64 > MOST {
        return Err(Failure::new(Reason::TooLarge, object, "it has more than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(Reason::InvalidValue, &object, "it is not UTF-8"))?;
    parse(&text).map_err(|(line, why)| Failure::new(Reason::InvalidValue, format_args!("{object}, line {line}"), why))
}

/// The steps, or the number of the first wrong line and what is wrong.
pub fn parse(text: &str) -> Result<Vec<Stage>, (u32, String)> {
    let mut stages = Vec::new();
    let mut limit = None;
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |why: String| (line, why);
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        let (step, limit) = match word {
            "timeout" => {
                limit = Some(time(rest).map_err(wrong)?);
                continue;
            }
            "expect" => {
                let (own, rest) = match rest.split_once(char::is_whitespace).filter(|_| !rest.starts_with('"')) {
                    Some((own, rest)) => (Some(time(own).map_err(wrong)?), rest.trim_start()),
                    None => (None, rest),
                };
                let wanted = quoted(rest).map_err(wrong)?;
                if wanted.is_empty() {
                    return Err(wrong("an empty text is there always".to_owned()));
                }
                (Step::Expect(wanted), own.or(limit))
            }
            "send" => (Step::Send(quoted(rest).map_err(wrong)?), limit),
            "type" => (Step::Type(quoted(rest).map_err(wrong)?), limit),
            _ => return Err(wrong(format!("`{}` is none of expect, send, type and timeout", word.escape_default()))),
        };
        stages.push(Stage { step, line: Some(line), limit });
    }
    if stages.is_empty() { Err((1, "there is no step in it".to_owned())) } else { Ok(stages) }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = size::duration(text).map_err(|e| format!("`{}` is no time: {e}", text.escape_default()))?;
    if time.is_zero() { Err("a time of nothing is over at once".to_owned()) } else { Ok(time) }
}

/// The text between quotes, up to the end of the line.
fn quoted(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('"').ok_or("a text in double quotes is expected")?;
    let mut out = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next().ok_or("the closing quote is missing")? {
            '"' => break,
            '\\' => match chars.next().ok_or("the closing quote is missing")? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'e' => out.push('\u{1b}'),
                same @ ('"' | '\\') => out.push(same),
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(|b| b.is_ascii() && digits.len() == 2);
                    out.push(byte.ok_or_else(|| format!("\\x{} is not \\x00 to \\x7f", digits.escape_default()))?.into());
                }
                other => return Err(format!("\\{} is none of \\n \\r \\t \\e \\\" \\\\ \\xNN", other.escape_default())),
            },
            plain => out.push(plain),
        }
    }
    let rest = chars.as_str().trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(out)
    } else {
        Err(format!("`{}` after the closing quote", rest.escape_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_their_lines_and_times() {
        let text = "# log in\ntimeout 30s\nexpect \"login: \"\n\n  send \"root\" # and Enter\nexpect 5s \"\\x1b[#\\\" \\e\"\ntype \"y\"\n";
        let stage = |step, line, seconds| Stage { step, line: Some(line), limit: Some(Duration::from_secs(seconds)) };
        let want = vec![
            stage(Step::Expect("login: ".into()), 3, 30),
            stage(Step::Send("root".into()), 5, 30),
            stage(Step::Expect("\u{1b}[#\" \u{1b}".into()), 6, 5),
            stage(Step::Type("y".into()), 7, 30),
        ];
        assert_eq!(parse(text), Ok(want));
    }

    #[test]
    fn the_first_wrong_line_is_named() {
        for (text, line, says) in [
            ("", 1, "no step"),
            ("expect \"a\"\nwait \"b\"", 2, "`wait` is none of"),
            ("send root", 1, "double quotes"),
            ("send \"root", 1, "closing quote"),
            ("send \"root\" again", 1, "after the closing quote"),
            ("send \"\\q\"", 1, "none of \\n"),
            ("send \"\\x8\"", 1, "is not \\x00 to"),
            ("send \"\\xff\"", 1, "is not \\x00 to"),
            ("\n\nexpect soon \"a\"", 3, "`soon` is no time"),
            ("expect \"\"", 1, "empty"),
            ("timeout 0s", 1, "over at once"),
            ("timeout", 1, "is no time"),
        ] {
            let (at, why) = parse(text).expect_err(text);
            assert!(at == line && why.contains(says), "{text:?}: line {at}: {why}");
        }
    }
}
