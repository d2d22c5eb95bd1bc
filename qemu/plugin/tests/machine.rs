//! The plugin under QEMU, on a program whose every instruction is known: `machine/program.s`.
//!
//! Needs qemu-system-aarch64 and the GNU assembler for arm64; where they are missing, the runner's set-up installs
//! them or the tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers are part of the tests: what is wrong ends them"
)]

use freehold_plugin::options::{Mode, Named, Options, Span};
use freehold_plugin::report::{Census, Counts, Entry, Line, Spread, What};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What TTBR1_EL1 adds to an address.
const HIGH: u64 = 0xffff_ff80_0000_0000;
/// What is added to an address for EL0.
const USER: u64 = 0x4000_0000;

/// The program, built in a folder of its own.
struct Program {
    folder: PathBuf,
    symbols: BTreeMap<String, u64>,
}

/// What a run gave.
struct Run {
    lines: Vec<Line>,
    /// The measures that the program printed.
    measures: Vec<u64>,
}

fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

impl Program {
    fn build(test: &str) -> Self {
        freehold_runner::setup::ensure_tools().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::create_dir_all(&folder).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/program.s");
        let (object, elf) = (folder.join("program.o"), folder.join("program.elf"));
        output(
            Command::new("aarch64-linux-gnu-as")
                .arg("-o")
                .arg(&object)
                .arg(source),
        );
        output(
            Command::new("aarch64-linux-gnu-ld")
                .arg("-Ttext=0x40400000")
                .arg("-o")
                .args([&elf, &object]),
        );
        let symbols = output(Command::new("aarch64-linux-gnu-nm").arg(&elf));
        let symbols = symbols.lines().map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
            (words.nth(1).unwrap().to_owned(), address)
        });
        Self {
            symbols: symbols.collect(),
            folder,
        }
    }

    fn symbol(&self, name: &str) -> u64 {
        self.symbols[name]
    }

    fn span(&self, start: &str, end: &str) -> Span {
        Span {
            start: self.symbol(start),
            end: self.symbol(end),
        }
    }

    fn options(&self, mode: Mode) -> Options {
        Options {
            ranges: vec![Named {
                name: "image".into(),
                at: self.span("image", "image_end"),
            }],
            ..Options::new(mode, self.folder.join("lines.json"))
        }
    }

    /// Runs the program under QEMU, or under the QEMU that the environment names.
    fn run(&self, options: &Options, cpus: u32) -> Run {
        // The shared object lies beside the test, where cargo puts what a test depends on.
        let plugin = std::env::current_exe()
            .unwrap()
            .with_file_name("libfreehold_plugin.so");
        let qemu = std::env::var_os("FREEHOLD_QEMU").unwrap_or_else(|| "qemu-system-aarch64".into());
        let mut command = Command::new("timeout");
        command.arg("60").arg(qemu);
        command.args(["-machine", "virt,virtualization=on,gic-version=3"]);
        command.args([
            "-cpu",
            "cortex-a72,cntfrq=1000000000",
            "-icount",
            "shift=0,sleep=off",
        ]);
        command.args([
            "-smp",
            &cpus.to_string(),
            "-nic",
            "none",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        command.args([
            "-serial",
            "stdio",
            "-semihosting-config",
            "enable=on,target=native",
            "-no-reboot",
        ]);
        command.arg("-kernel").arg(self.folder.join("program.elf"));
        command.arg("-plugin").arg(options.argument(&plugin).unwrap());
        let printed = output(&mut command);
        let measures = printed
            .lines()
            .map(|line| u64::from_str_radix(line.trim(), 16).unwrap())
            .collect();
        let lines = fs::read_to_string(&options.out).unwrap();
        let lines: Vec<Line> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(matches!(lines.first(), Some(Line::Start(_))), "{lines:?}");
        assert!(matches!(lines.last(), Some(Line::End(_))), "{lines:?}");
        Run { lines, measures }
    }
}

impl Run {
    fn mark(&self, name: &str) -> (u64, Counts) {
        let marks: Vec<_> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Mark(mark) if mark.name == name => Some((mark.pc.0, mark.counts.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(marks.len(), 1, "{name}: {:?}", self.lines);
        marks[0].clone()
    }

    fn between(&self, from: &str, until: &str) -> u64 {
        let sum = |name| self.mark(name).1.values().sum::<u64>();
        sum(until) - sum(from)
    }
}

fn counts_are_exact(test: &str, cpus: u32) {
    let program = Program::build(test);
    let mut options = program.options(Mode::Count);
    options.user = true;
    for name in ["host", "loop_from", "loop_until", "visit_from", "visit_until"] {
        options.marks.push(Named {
            name: name.into(),
            at: program.symbol(name),
        });
    }
    for name in ["fault_from", "fault_until"] {
        options.marks.push(Named {
            name: name.into(),
            at: program.symbol(name) + HIGH,
        });
    }
    let run = program.run(&options, cpus);

    // From reset: 11 of the image, 3 of EL1.
    let counts = |image, low, high| {
        Counts::from([
            ("image".into(), image),
            ("low".into(), low),
            ("high".into(), high),
        ])
    };
    assert_eq!(run.mark("host").1, counts(11, 3, 0));
    // Four calls of 3 instructions, an ISB; at EL2 they cost 4, 14, 13 and 4.
    assert_eq!(run.mark("loop_from").1, counts(11 + 35, 3 + 13, 0));

    // CNTVCT advances by one for each instruction; but not for a load that faulted, which the plugin saw start.
    assert_eq!(run.measures, [3002, 23, 7]);
    assert_eq!(run.between("loop_from", "loop_until"), 3002);
    assert_eq!(run.between("visit_from", "visit_until"), 23);
    assert_eq!(run.between("fault_from", "fault_until"), 7 + 1);

    // Not the identity map's code, though it lies low and one of the visits comes after an ERET.
    let (pc, user) = run.mark("user");
    assert_eq!(pc, program.symbol("user") + USER);
    let totals: BTreeMap<usize, &Counts> = run
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Total(total) => Some((total.cpu, &total.counts)),
            _ => None,
        })
        .collect();
    let total = totals[&0];
    // What is left: two instructions of user space, then three in the kernel's vector.
    assert_eq!(total["low"], user["low"] + 2);
    assert_eq!(total["high"], user["high"] + 3);
    assert_eq!(total["image"], user["image"]);
    // The second CPU was on twice, for three instructions each time.
    assert_eq!(totals.get(&1).copied(), (cpus == 2).then_some(&counts(6, 0, 0)));
    assert_eq!(totals.len(), cpus as usize);
}

#[test]
fn counts_by_translated_code_are_exact() {
    counts_are_exact("count", 1);
}

#[test]
fn counts_by_callbacks_are_exact() {
    counts_are_exact("count-two", 2);
}

#[test]
fn visits_are_counted_and_classed() {
    let program = Program::build("calls");
    let mut options = program.options(Mode::Calls);
    options.vectors = Some(program.span("vectors", "vectors_end"));
    options.visits = true;
    options.ranges.push(Named {
        name: "door".into(),
        at: program.span("door", "nested"),
    });
    let run = program.run(&options, 2);

    let visits_of = |cpu| -> Vec<_> {
        run.lines
            .iter()
            .filter_map(|line| match line {
                Line::Visit(visit) if visit.cpu == cpu => {
                    Some((visit.entry, visit.marker, visit.returned, visit.census))
                }
                _ => None,
            })
            .collect()
    };
    let plain = |instructions| Census {
        instructions,
        ..Census::default()
    };
    let door = Census {
        tlbi: 2,
        dsb: 3,
        isb: 1,
        dc: 1,
        ..plain(14)
    };
    let sync = Entry::Vector(0x400);
    assert_eq!(
        visits_of(0),
        [
            (Entry::Boot, 0, true, Census { isb: 1, ..plain(11) }),
            (sync, 1, true, plain(4)),
            (sync, 2, true, door),
            (
                sync,
                3,
                true,
                Census {
                    nested: 1,
                    ..plain(13)
                }
            ),
            (sync, 1, true, plain(4)),
            // The visit of the second stretch, still under marker 1.
            (sync, 1, true, door),
        ]
    );

    // All but the two instructions in the vector are in the door.
    let in_door = run.lines.iter().filter_map(|line| match line {
        Line::Visit(visit) => Some(visit.parts["door"]),
        _ => None,
    });
    assert_eq!(in_door.filter(|&count| count > 0).collect::<Vec<_>>(), [12, 12]);

    // A CPU that is switched off does not come back to its visit; the next CPU_ON begins one.
    let off = Census { calls: 1, ..plain(3) };
    assert_eq!(
        visits_of(1),
        [(Entry::Boot, 0, false, off), (Entry::Boot, 0, false, off)]
    );

    let sums: Vec<_> = run
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Visits(sum) => Some((sum.entry, sum.marker, sum.visits, sum.spread["instructions"])),
            _ => None,
        })
        .collect();
    let spread = |min, median, max| Spread { min, median, max };
    assert_eq!(
        sums,
        [
            (Entry::Boot, 0, 1, spread(11, 11, 11)),
            (sync, 1, 3, spread(4, 4, 14)),
            (sync, 2, 1, spread(14, 14, 14)),
            (sync, 3, 1, spread(13, 13, 13)),
        ]
    );
}

/// The steps of a trace, in a word or two each.
fn steps(run: &Run) -> Vec<String> {
    run.lines
        .iter()
        .filter_map(|line| match line {
            Line::Step(step) => Some(match &step.what {
                What::Vector(offset) => format!("vector {offset:#x}"),
                What::Operation(operation) => format!("{:?} {}", operation.kind, operation.name)
                    .trim()
                    .to_lowercase(),
                What::Store { to, size } => format!("store {to} {size}"),
                What::Mark(name) => format!("mark {name}"),
                What::Marker(number) => format!("marker {number}"),
            }),
            _ => None,
        })
        .collect()
}

#[test]
fn the_trace_tells_the_order_of_a_door() {
    let program = Program::build("trace");
    let table = program.symbol("table");
    let store = format!("store {table:#x} 8");
    let store = store.as_str();
    let mut options = program.options(Mode::Trace);
    options.vectors = Some(program.span("vectors", "vectors_end"));
    options.marks.push(Named {
        name: "door".into(),
        at: program.symbol("door"),
    });
    // By the function that stores, and by the table that is stored to: the same here.
    let by_function = Options {
        stores: vec![program.span("store_door", "store_door_end")],
        ..options.clone()
    };
    let by_table = Options {
        tables: vec![Span {
            start: table,
            end: table + 8,
        }],
        ..options.clone()
    };

    let door = [
        "vector 0x400",
        "mark door",
        store,
        "dsb ishst",
        "tlbi ipas2e1is",
        "dsb ish",
        "tlbi vmalle1is",
        "dsb ish",
        "isb",
        "dc civac",
        "eret",
    ];
    let mut expected = vec![
        "msr vbar_el2",
        "msr hcr_el2",
        "msr vttbr_el2",
        "isb",
        "eret",
        "marker 1",
        "vector 0x400",
        "eret",
    ];
    expected.push("marker 2");
    expected.extend(door);
    expected.extend(["marker 3", "vector 0x400", "vector 0x200", "eret", "eret"]);
    expected.extend(["marker 1", "vector 0x400", "eret"]);
    expected.extend(door);
    for options in [&by_function, &by_table] {
        assert_eq!(steps(&program.run(options, 1)), expected);
    }

    // Cut short, the last line says so.
    let short = program.run(
        &Options {
            limit: Some(5),
            ..by_table
        },
        1,
    );
    assert_eq!(steps(&short), expected[..5]);
    let Some(Line::End(end)) = short.lines.last() else {
        panic!("{:?}", short.lines)
    };
    assert_eq!(end.dropped, expected.len() as u64 - 5);
}

#[test]
fn wrong_options_stop_qemu() {
    let program = Program::build("wrong");
    let plugin = std::env::current_exe()
        .unwrap()
        .with_file_name("libfreehold_plugin.so");
    let result = Command::new("timeout")
        .args([
            "60",
            "qemu-system-aarch64",
            "-machine",
            "virt",
            "-display",
            "none",
            "-monitor",
            "none",
        ])
        .arg("-kernel")
        .arg(program.folder.join("program.elf"))
        .arg("-plugin")
        .arg(format!("file={},mode=calls,out=/dev/null", plugin.display()))
        .output()
        .unwrap();
    assert_eq!(result.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&result.stderr).contains("option range= is missing"));
}
