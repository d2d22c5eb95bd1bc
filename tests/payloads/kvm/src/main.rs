//! Cases for `/dev/kvm`: a program that asks what any VMM may ask, and says what is not as KVM documents it.
//!
//! `payload-kvm list` names the cases, `payload-kvm run PREFIX` runs those whose names begin so, each in a process of
//! its own: `kvm case NAME ok`, or `failed` and why. It ends with `kvm cases N`, and status 0 if all of them passed and
//! there was one at least. `payload-kvm hold vm` keeps a VM until its input ends, `payload-kvm hold file` the file of a
//! protected guest that has run, and nothing else of it. `payload-kvm keep PROCESS` keeps the files of guest memory of
//! that process until then, and tells whether what is in them can be read. `payload-kvm scan WORD` tells in how many
//! pages of the host's memory the word and a line feed are repeated, and nothing else is. `payload-kvm spy WAY PROCESS
//! WORD` reads that process's guest memory while it runs, by `load` or by `write`; see [`spy`].
//!
//! `payload-kvm count` tells what a protected guest's operations cost; see [`count`].

mod cases;
mod count;
mod device;
mod guest;
mod keep;
mod process;
mod scan;
mod spy;

use device::{Fd, Kvm};
use process::Ended;
use std::fmt::Display;
use std::io::{Error, Read as _, Result as IoResult, Write as _, stdin, stdout};
use std::process::ExitCode;

/// What a case answers: why it failed, if so.
type Outcome = Result<(), String>;

/// A case, by its name.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    run: fn() -> Outcome,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for case in cases::all() {
                println!("{}", case.name);
            }
            ExitCode::SUCCESS
        }
        ["run", prefix] => run(prefix),
        ["count"] => count::count(),
        ["hold", "vm"] => hold("vm", Kvm::open().and_then(|kvm| kvm.create_vm(0))),
        ["hold", "file"] => hold("file", keep::file_of_a_guest()),
        ["keep", process] => ended("keep", keep(process)),
        ["scan", word] => ended("scan", scan(word)),
        ["spy", way, process, word] => ended("spy", spy(way, process, word)),
        _ => {
            eprintln!(
                "payload-kvm: list | run PREFIX | count | hold vm | hold file | keep PROCESS | scan WORD | \
                 spy WAY PROCESS WORD"
            );
            ExitCode::FAILURE
        }
    }
}

fn run(prefix: &str) -> ExitCode {
    let (mut ran, mut failed) = (0, 0);
    for case in cases::all().filter(|case| case.name.starts_with(prefix)) {
        ran += 1;
        let why = match process::in_child(case.run) {
            Ok(Ended::Exited(0)) => {
                println!("kvm case {} ok", case.name);
                continue;
            }
            Ok(ended) => format!("{ended:?}"),
            Err(error) => error.to_string(),
        };
        println!("kvm case {} failed: {why}", case.name);
        failed += 1;
    }
    println!("kvm cases {ran}");
    if ran > 0 && failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Keeps something until there is no more input, and says when it is there.
fn hold(what: &str, made: Result<Fd, impl Display>) -> ExitCode {
    let held = match made {
        Ok(held) => held,
        Err(error) => {
            println!("kvm hold {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("kvm hold {what}");
    // Whoever waits reads the line from a pipe.
    let flushed = stdout().flush();
    let ended = stdin().read_to_end(&mut Vec::new());
    drop(held);
    if flushed.is_ok() && ended.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn ended(what: &str, result: IoResult<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("kvm {what} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps files until there is no more input, and says when it has them.
fn keep(process: &str) -> IoResult<()> {
    let files = keep::files_of(process.parse().map_err(Error::other)?)?;
    println!("kvm keep {}", files.len());
    stdout().flush()?;
    stdin().read_to_end(&mut Vec::new())?;
    let (reached, touched) = keep::reachable(&files)?;
    println!("kvm kept {reached} {touched}");
    Ok(())
}

fn scan(word: &str) -> IoResult<()> {
    let (pages, found) = scan::scan(format!("{word}\n").as_bytes())?;
    println!("kvm scan {found} {pages}");
    Ok(())
}

/// Looks for pages of guest memory that begin with a word.
fn spy(way: &str, process: &str, word: &str) -> IoResult<()> {
    for file in keep::files_of(process.parse().map_err(Error::other)?)? {
        let found = spy::look(way, &file, format!("{word}\n").as_bytes())?;
        println!(
            "{way}: refused={} lent={} secret={}",
            found.refused, found.read, found.secret
        );
    }
    Ok(())
}
