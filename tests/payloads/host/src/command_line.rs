//! What the payload is told to do.

/// A command, with the words that follow it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command<'a> {
    /// Print the names of the cases.
    List(Filter<'a>),
    /// Run cases.
    Run(Filter<'a>),
    /// Run benchmarks.
    Bench(Filter<'a>),
    /// Attack Freehold, with these settings.
    Attack(&'a str),
    /// Kill guests at random, with these settings.
    Kill(&'a str),
    /// Play the acts of a trace.
    Doors,
    /// Reset the machine while others hold memory, and look at it afterwards.
    Reset,
    /// Play the story of a guest: as it should be, or spoiled.
    Story(&'a str),
    /// Have EL2 break, in an image built for that.
    Break(&'a str),
}

/// Which cases are meant: all, if it has no words; otherwise those whose name contains a word or, for a word that
/// begins with `=`, is the rest of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a>(&'a str);

impl Filter<'_> {
    /// Whether it chooses the case `name`.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut words = self.0.split_ascii_whitespace().peekable();
        words.peek().is_none()
            || words.any(|word| match word.strip_prefix('=') {
                Some(exact) => name == exact,
                None => name.contains(word),
            })
    }
}

/// The command that `line` begins with. A machine that gives no command line runs everything.
///
/// # Errors
/// The first word, if it is none of the commands.
pub(crate) fn parse(line: &str) -> Result<Command<'_>, &str> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let filter = Filter(rest);
    match word {
        "list" => Ok(Command::List(filter)),
        "" | "run" => Ok(Command::Run(filter)),
        "bench" => Ok(Command::Bench(filter)),
        "attack" => Ok(Command::Attack(rest)),
        "kill" => Ok(Command::Kill(rest)),
        "reset" => Ok(Command::Reset),
        "doors" => Ok(Command::Doors),
        "story" => Ok(Command::Story(rest)),
        "break" => Ok(Command::Break(rest)),
        _ => Err(word),
    }
}
