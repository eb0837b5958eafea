//! One line, whatever a peer or a file put into it.

use std::fmt::{self, Write};

/// Text of at most so many characters, with a blank for each that would control a terminal or end the line.
struct OneLine {
    text: String,
    left: usize,
}

impl Write for OneLine {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars().take(self.left) {
            self.text.push(if c.is_control() { ' ' } else { c });
            self.left -= 1;
        }
        Ok(())
    }
}

/// See the module: `what` in at most so many characters.
pub fn one_line(what: fmt::Arguments<'_>, most: usize) -> String {
    let mut line = OneLine { text: String::new(), left: most };
    // It takes everything; what cannot say what it is, says nothing.
    let _ = line.write_fmt(what);
    line.text
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_line_is_one_and_has_an_end() {
        assert_eq!(one_line(format_args!("a\nb{}\u{1b}[31m", '\t'), 100), "a b  [31m");
        assert_eq!(one_line(format_args!("{}{}", "ää", "öö"), 3), "ääö");
        assert_eq!(one_line(format_args!("{}", "x".repeat(2000)), 1000).len(), 1000);
    }
}
