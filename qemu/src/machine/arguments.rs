//! How QEMU is told what a machine is made of.

use super::{Boot, Host, Machine, layout, stub};
use crate::workspace::Scratch;
use anyhow::{Context as _, Result};
use std::{ffi::OsString, fs, path::Path, process::Command};

/// The program.
pub(super) const QEMU: &str = "qemu-system-aarch64";

/// The command that boots `machine`. Files that only this run needs go to `scratch`.
pub(super) fn command(machine: &Machine, scratch: &Scratch) -> Result<Command> {
    let mut arguments = Arguments::default();
    arguments.board(machine, None);
    arguments.memory(machine);
    arguments.boot(machine, scratch)?;
    if let Some(host) = &machine.host {
        arguments.host(machine, host)?;
    }
    arguments.add("-chardev", "stdio,id=console,signal=off");
    arguments.add("-serial", "chardev:console");
    if machine.icount {
        arguments.add("-icount", "shift=0,sleep=off");
    }
    if machine.semihosting {
        arguments.add("-semihosting-config", "enable=on,target=native");
    }
    for plugin in &machine.plugins {
        arguments.add("-plugin", plugin);
    }
    Ok(arguments.command(&machine.extra))
}

/// The command that makes QEMU write the device tree of `machine` to `file` and end.
pub(super) fn dump_command(machine: &Machine, file: &Path) -> Result<Command> {
    let mut arguments = Arguments::default();
    arguments.board(machine, Some(file));
    arguments.memory(machine);
    if let Some(host) = &machine.host {
        arguments.host(machine, host)?;
    }
    Ok(arguments.command(&machine.extra))
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn command(self, extra: &[OsString]) -> Command {
        let mut command = Command::new(QEMU);
        command.args(self.0).args(extra);
        command
    }

    fn board(&mut self, machine: &Machine, dump: Option<&Path>) {
        let virtualization = if machine.virtualization { "on" } else { "off" };
        // With no seeds in the tree, every boot of a machine is the same.
        let mut board = OsString::from(format!(
            "virt,virtualization={virtualization},gic-version={},dtb-randomness=off",
            machine.gic_version
        ));
        if machine.nodes <= 1 {
            board.push(",memory-backend=ram0");
        }
        if let Some(file) = dump {
            board.push(",dumpdtb=");
            board.push(escaped(file));
        }
        self.add("-machine", board);
        // With a counter of 1 GHz and one instruction a nanosecond, a tick is an instruction.
        let frequency = if machine.icount { ",cntfrq=1000000000" } else { "" };
        self.add("-cpu", format!("{}{frequency}", machine.cpu));
        self.add("-smp", machine.smp.to_string());
        // No network card, display or monitor that nobody asked for.
        if !machine.reboots {
            self.0.push("-no-reboot".into());
        }
        self.add("-nic", "none");
        self.add("-display", "none");
        self.add("-monitor", "none");
    }

    /// RAM that takes no memory of this machine before it is used, so that 64 GiB fit anywhere.
    fn memory(&mut self, machine: &Machine) {
        let bytes = machine.memory.bytes();
        self.add("-m", format!("{}M", bytes >> 20));
        if let Some(file) = &machine.memory_file {
            let mut object = OsString::from(format!(
                "memory-backend-file,id=ram0,size={bytes},share=on,mem-path="
            ));
            object.push(escaped(file));
            return self.add("-object", object);
        }
        let nodes = u64::from(machine.nodes.max(1));
        let share = (bytes / nodes) & !((2 << 20) - 1);
        for node in 0..nodes {
            let size = if node == nodes - 1 {
                bytes - share * node
            } else {
                share
            };
            self.add(
                "-object",
                format!("memory-backend-ram,id=ram{node},size={size},reserve=off"),
            );
            if nodes > 1 {
                self.add("-numa", format!("node,nodeid={node},memdev=ram{node}"));
            }
        }
    }

    fn boot(&mut self, machine: &Machine, scratch: &Scratch) -> Result<()> {
        match &machine.boot {
            Boot::Kernel {
                image,
                initrd,
                arguments,
            } => {
                self.add("-kernel", image);
                if let Some(initrd) = initrd {
                    self.add("-initrd", initrd);
                }
                if let Some(arguments) = arguments {
                    self.add("-append", arguments);
                }
            }
            Boot::Placed { image, address, tree } => {
                self.data(image, *address);
                for (name, contents, address) in [
                    ("tree.dtb", tree, layout::TREE),
                    ("stub.bin", &stub::code(*address, layout::TREE), stub::ADDRESS),
                ] {
                    let file = scratch.path().join(name);
                    fs::write(&file, contents).with_context(|| format!("cannot write {}", file.display()))?;
                    self.data(&file, address);
                }
                self.add("-device", format!("loader,cpu-num=0,addr={:#x}", stub::ADDRESS));
            }
        }
        Ok(())
    }

    fn data(&mut self, file: &Path, address: u64) {
        let mut device = OsString::from(format!("loader,force-raw=on,addr={address:#x},file="));
        device.push(escaped(file));
        self.add("-device", device);
    }

    /// The guest loader puts a file into memory and names it in the tree, under `/chosen`.
    fn host(&mut self, machine: &Machine, host: &Host) -> Result<()> {
        let placement = layout::place(machine, host)?;
        let mut kernel = OsString::from(format!("guest-loader,addr={:#x},kernel=", placement.kernel));
        kernel.push(escaped(&host.image));
        kernel.push(format!(",bootargs={}", host.arguments.replace(',', ",,")));
        self.add("-device", kernel);
        if let Some(initrd) = &host.initrd {
            let mut device = OsString::from(format!("guest-loader,addr={:#x},initrd=", placement.initrd));
            device.push(escaped(initrd));
            self.add("-device", device);
        }
        Ok(())
    }
}

/// A file's name inside an option of QEMU, where a comma separates and two commas are one.
fn escaped(file: &Path) -> OsString {
    match file.to_str() {
        Some(name) => name.replace(',', ",,").into(),
        None => file.as_os_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Memory;

    fn words(machine: &Machine) -> Vec<String> {
        let scratch = Scratch::new().unwrap();
        let command = command(machine, &scratch).unwrap();
        command
            .get_args()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect()
    }

    fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
        words
            .windows(2)
            .filter(|pair| pair[0] == option)
            .map(|pair| pair[1].as_str())
            .collect()
    }

    #[test]
    fn a_machine_is_what_it_says() {
        let mut machine = Machine::new("image".into());
        machine.smp = 8;
        machine.memory = Memory::gib(64);
        machine.icount = true;
        let words = words(&machine);
        assert_eq!(
            values(&words, "-machine"),
            ["virt,virtualization=on,gic-version=3,dtb-randomness=off,memory-backend=ram0"]
        );
        assert_eq!(values(&words, "-cpu"), ["cortex-a72,cntfrq=1000000000"]);
        assert_eq!(values(&words, "-smp"), ["8"]);
        assert_eq!(
            values(&words, "-object"),
            ["memory-backend-ram,id=ram0,size=68719476736,reserve=off"]
        );
        assert_eq!(values(&words, "-icount"), ["shift=0,sleep=off"]);
        assert_eq!(values(&words, "-kernel"), ["image"]);
    }

    #[test]
    fn nodes_share_the_memory_whole() {
        let mut machine = Machine::new("image".into());
        machine.memory = Memory::mib(1024);
        machine.nodes = 3;
        let words = words(&machine);
        let sizes: Vec<u64> = values(&words, "-object")
            .iter()
            .map(|object| {
                object
                    .split("size=")
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!(sizes.iter().sum::<u64>(), machine.memory.bytes());
        assert!(sizes.iter().all(|size| size % (2 << 20) == 0));
        assert_eq!(values(&words, "-numa").len(), 3);
        assert!(!values(&words, "-machine")[0].contains("memory-backend"));
    }

    #[test]
    fn a_comma_in_a_name_does_not_end_it() {
        assert_eq!(escaped(Path::new("a,b")), "a,,b");
    }
}
