//! Which mirror to use: the one that the system's own apt sources name.
//!
//! Both forms are read: one line an entry (`sources.list`, `*.list`) and stanzas (`*.sources`, "deb822"); see
//! sources.list(5). From the entry for the system's own release and the one for its security updates the lines for
//! any suite of Debian are made.

use super::Suite;
use anyhow::{Context as _, Result, bail};
use std::{fs, path::Path};

/// The keyring that signs Debian's suites, for entries that name none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Options of an entry that matter to whether a mirror's word is taken.
const KEPT_OPTIONS: [&str; 3] = ["signed-by", "trusted", "check-valid-until"];

/// One repository and suite, as a source names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    suite: String,
    /// Options in the one-line form, those of [`KEPT_OPTIONS`] only.
    options: Vec<(String, String)>,
}

/// The text of a `sources.list` that has the packages of `suite`.
pub(super) fn for_suite(suite: &Suite) -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no release")?
        .trim_matches('"');
    lines_for(suite, codename, &system_entries()?)
}

fn lines_for(suite: &Suite, codename: &str, entries: &[Entry]) -> Result<String> {
    let aliases = [codename, "stable", "oldstable", "testing", "unstable", "sid"];
    // Other vendors name their suites after Debian's too: prefer a repository that is called `debian`.
    let candidates = || {
        entries
            .iter()
            .filter(|entry| aliases.contains(&entry.suite.as_str()))
    };
    let main = candidates()
        .find(|entry| repository_name(&entry.uri) == "debian")
        .or_else(|| candidates().find(|entry| !entry.options.iter().any(|(name, _)| name == "signed-by")));
    let Some(main) = main else {
        bail!("the system's apt sources name no mirror of Debian {codename}");
    };
    let security = entries.iter().find(|entry| {
        entry
            .suite
            .split('/')
            .next()
            .is_some_and(|name| name.ends_with("-security"))
    });
    let mut text = line(main, suite.release());
    if let Some(security) = security {
        text.push_str(&line(security, &format!("{}-security", suite.release())));
    }
    if suite.is_backports() {
        text.push_str(&line(main, suite.name()));
    }
    Ok(text)
}

/// The last part of a repository's address, without an extension: `mirror+file:/…/debian.list` is `debian` too.
fn repository_name(uri: &str) -> &str {
    let last = uri.trim_end_matches('/').rsplit('/').next().unwrap_or(uri);
    last.split('.').next().unwrap_or(last)
}

fn line(entry: &Entry, suite: &str) -> String {
    let mut options: Vec<_> = entry
        .options
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !entry.options.iter().any(|(name, _)| name == "signed-by") {
        options.push(format!("signed-by={KEYRING}"));
    }
    format!("deb [{}] {} {suite} main\n", options.join(" "), entry.uri)
}

fn system_entries() -> Result<Vec<Entry>> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(Result::ok).map(|part| part.path()));
    }
    files.sort();
    let mut entries = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let stanzas = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => false,
            Some("sources") => true,
            // apt ignores other files, and so do we.
            _ => continue,
        };
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        entries.extend(if stanzas {
            parse_stanzas(&text)
        } else {
            parse_lines(&text)
        });
    }
    Ok(entries)
}

/// Reads the one-line form: `deb [option=value …] uri suite component …`.
fn parse_lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix(|c: char| c.is_whitespace())?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let options = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='));
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words
        .any(|component| component == "main")
        .then(|| entry(uri, suite, options))
}

/// Reads stanzas: fields, with continuation lines, and an empty line between two of them.
fn parse_stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| {
            stanza
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
        let off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        if off || !words("Types").any(|kind| kind == "deb") || !words("Components").any(|name| name == "main")
        {
            continue;
        }
        // A key may also stand in the stanza itself; Debian's own keyring serves as well.
        let embedded = |value: &str| value.contains("BEGIN PGP");
        let options = || {
            stanza
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .filter(|(_, value)| !embedded(value))
        };
        for uri in words("URIs") {
            entries.extend(words("Suites").map(|suite| entry(uri, suite, options())));
        }
    }
    entries
}

fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            continue;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas
}

fn entry<'a>(uri: &str, suite: &str, options: impl Iterator<Item = (&'a str, &'a str)>) -> Entry {
    let options = options
        // Stanzas separate several keyrings by spaces, lines by commas.
        .map(|(name, value)| {
            (
                name.to_ascii_lowercase(),
                value.split_whitespace().collect::<Vec<_>>().join(","),
            )
        })
        .filter(|(name, _)| KEPT_OPTIONS.contains(&name.as_str()))
        .collect();
    Entry {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Types: deb
# a comment in between
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main contrib

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
";

    #[test]
    fn stanzas_give_the_lines_of_a_suite() {
        let lines = lines_for(&Suite::bookworm_backports(), "bookworm", &parse_stanzas(STANZAS)).unwrap();
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        assert_eq!(
            lines,
            format!(
                "deb {key} http://mirror.example/debian bookworm main\n\
                 deb {key} http://mirror.example/debian-security/ bookworm-security main\n\
                 deb {key} http://mirror.example/debian bookworm-backports main\n"
            )
        );
    }

    #[test]
    fn lines_give_the_same() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/vendor.gpg] http://vendor.example/apt bookworm main
deb [ check-valid-until=no ] http://mirror.example/debian/ bookworm main contrib # the mirror
deb http://mirror.example/debian-security bookworm-security main
";
        let lines = lines_for(&Suite::bookworm(), "bookworm", &parse_lines(text)).unwrap();
        assert_eq!(
            lines,
            format!(
                "deb [check-valid-until=no signed-by={KEYRING}] http://mirror.example/debian/ bookworm main\n\
                 deb [signed-by={KEYRING}] http://mirror.example/debian-security bookworm-security main\n"
            )
        );
    }

    #[test]
    fn a_list_of_mirrors_is_a_mirror() {
        let text = "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n";
        let lines = lines_for(&Suite::bookworm(), "bookworm", &parse_lines(text)).unwrap();
        assert!(
            lines.contains("mirror+file:/etc/apt/mirrors/debian.list bookworm main"),
            "{lines}"
        );
    }

    #[test]
    fn a_vendor_is_not_taken_for_debian() {
        let text = "deb [signed-by=/vendor.gpg] http://vendor.example/apt bookworm main\n";
        assert!(lines_for(&Suite::bookworm(), "bookworm", &parse_lines(text)).is_err());
    }

    #[test]
    fn a_disabled_or_keyed_stanza_is_understood() {
        assert!(
            !parse_stanzas(STANZAS)
                .iter()
                .any(|entry| entry.uri.contains("off.example"))
        );
        let keyed = "Types: deb\nURIs: http://a/debian\nSuites: sid\nComponents: main\nSigned-By:\n \
                     -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n xyz\n";
        assert_eq!(parse_stanzas(keyed)[0].options, vec![]);
    }
}
