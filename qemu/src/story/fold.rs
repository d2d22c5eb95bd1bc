//! Fits text into a terminal.

/// Columns of the narrowest terminal that the story is told for.
pub(super) const COLUMNS: usize = 80;

/// `text` in lines of at most `width` characters. What stands between two `separator`s stays together where a line
/// can hold it, and is broken at its spaces where none can.
pub(super) fn fold(text: &str, separator: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in text.split_inclusive(separator) {
        if length(&line) + length(part.trim_end()) > width {
            take(&mut line, &mut lines);
        }
        for word in part.split_inclusive(' ') {
            if length(&line) + length(word.trim_end()) > width {
                take(&mut line, &mut lines);
            }
            line.push_str(word);
        }
    }
    take(&mut line, &mut lines);
    lines
}

fn take(line: &mut String, lines: &mut Vec<String>) {
    let taken = std::mem::take(line);
    if !taken.trim_end().is_empty() {
        lines.push(taken.trim_end().to_owned());
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_one_line() {
        assert_eq!(fold("one; two", "; ", 80), ["one; two"]);
        assert!(fold("", "; ", 80).is_empty());
    }

    #[test]
    fn a_part_begins_a_line_rather_than_being_broken() {
        let lines = fold("one two; three four; five", "; ", 16);
        assert_eq!(lines, ["one two;", "three four; five"]);
    }

    #[test]
    fn a_part_that_no_line_holds_is_broken_at_its_spaces() {
        let lines = fold("a; one two three four", "; ", 9);
        assert_eq!(lines, ["a;", "one two", "three", "four"]);
    }
}
