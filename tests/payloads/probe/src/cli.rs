//! The command line.

use crate::calls::CallCommand;
use crate::deed::{Deed, Map, Place, Way};
use crate::instructions::Encoding;
use crate::machine::Size;
use crate::number::parse;
use crate::outcome::Expected;
use crate::system_registers;
use crate::ways::Limits;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Reaches any physical address from EL0 and EL1 of the host, and calls Freehold.
///
/// Numbers are decimal or hexadecimal (0x4000_0000), and sums of these (0x40000000+0xffc). Output is lines of
/// key=value pairs; what came of a deed is `outcome=`.
#[derive(Debug, Parser)]
#[command(name = "freehold-probe", after_help = EXIT_STATUSES, color = clap::ColorChoice::Never)]
pub(crate) struct CommandLine {
    /// Run on this CPU
    #[arg(long, global = true, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// What has to come of it: value, value=N, written, refused, signal, signal=NAME, died, status=NAME. The exit
    /// status is then 0 or 1
    #[arg(long, global = true, value_name = "OUTCOME")]
    pub(crate) expect: Option<Expected>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUSES: &str = "\
Exit status:
  0  it was done, or what was expected came
  1  not what was expected; no module, no Freehold; any other error
  2  wrong usage
  3  refused: by the exception table, or by a hypercall's status
  4  answered by a signal, or by an oops of the process that did it (see the kernel's log)

With `with-pages` it is the status of the command that was run.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether the module and Freehold are there
    Info,
    /// Reach an address from this program, at EL0
    El0 {
        #[command(subcommand)]
        deed: DeedCommand,
    },
    /// Reach an address from the module, at EL1
    El1 {
        /// Without an entry in the exception table: a fault is an oops. (A jump never has one)
        #[arg(long, global = true)]
        bare: bool,
        /// As the kernel reads a word at the end of a string: what lies in the next page is zero if it cannot be read
        #[arg(long, global = true, conflicts_with = "bare")]
        padded: bool,
        #[command(subcommand)]
        deed: DeedCommand,
    },
    /// Touch a page in every way from EL0 and EL1, a line each
    Touch {
        /// Physical address of the page
        #[arg(value_parser = parse)]
        page: u64,
        /// What has to come of every single way. The exit status is then 0 or 1
        #[arg(long, value_name = "WHAT")]
        all: Option<All>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Allocate kernel pages, run a command that finds their addresses in $FREEHOLD_PAGES, free them
    WithPages {
        /// 2^ORDER pages in each run, 0 to 10
        #[arg(long, default_value_t = 0)]
        order: u32,
        /// How many runs
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// The command
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Issue one of Freehold's calls; a ranged one is resumed until it is done
    Call {
        #[command(subcommand)]
        call: CallCommand,
    },
    /// Issue a hypercall with these registers
    Hvc(Registers),
    /// Issue an SMC with these registers
    Smc(Registers),
    /// Print all statistics of Freehold
    Statistics,
    /// Print all counters of every CPU, or of one
    Counters {
        /// Only of this CPU
        #[arg(long, value_parser = parse)]
        of: Option<u64>,
    },
    /// Print the ownership map: lines `map BASE COUNT STATE` for runs of 2 MiB regions
    Map {
        /// Tell regions apart whose frames differ: lines `frames BASE COUNT STATE` for runs of 4 KiB frames
        #[arg(long)]
        frames: bool,
    },
    /// Access a system register at EL1
    #[command(name = "sysreg")]
    SystemRegister {
        #[command(subcommand)]
        access: RegisterCommand,
    },
}

/// What must come of every way of `touch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum All {
    /// The page is reached.
    Granted,
    /// The page is not reached.
    Refused,
}

/// Which address, and how.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PlaceArguments {
    /// Physical address (a virtual one with --map virtual)
    #[arg(value_parser = parse)]
    address: u64,
    /// How it is reached
    #[arg(long, value_enum, default_value_t = Map::Auto)]
    map: Map,
}

/// What to do to an address.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum DeedCommand {
    /// Load from it
    Read {
        #[command(flatten)]
        place: PlaceArguments,
        /// Bytes: 1, 2, 4 or 8. The address need not be aligned
        #[arg(long, default_value = "8", value_parser = size)]
        size: Size,
    },
    /// Store to it
    Write {
        #[command(flatten)]
        place: PlaceArguments,
        /// What
        #[arg(value_parser = parse)]
        value: u64,
        /// Bytes: 1, 2, 4 or 8. The address need not be aligned
        #[arg(long, default_value = "8", value_parser = size)]
        size: Size,
    },
    /// Jump to it, and print what the code there returns in x0
    Fetch {
        #[command(flatten)]
        place: PlaceArguments,
        /// First write a function there that returns 42
        #[arg(long)]
        plant: bool,
    },
}

impl DeedCommand {
    /// Where and what.
    pub(crate) fn deed(self) -> (Place, Deed) {
        let (place, deed) = match self {
            Self::Read { place, size } => (place, Deed::Read(size)),
            Self::Write { place, value, size } => (place, Deed::Write(size, value)),
            Self::Fetch { place, plant } => (place, Deed::Fetch { plant }),
        };
        (
            Place {
                address: place.address,
                map: place.map,
            },
            deed,
        )
    }
}

/// By which way the module does a deed.
pub(crate) fn el1_way(bare: bool, padded: bool, deed: Deed) -> Way {
    if padded {
        Way::El1Padded
    } else if bare || matches!(deed, Deed::Fetch { .. }) {
        Way::El1Bare
    } else {
        Way::El1
    }
}

/// The registers of a raw call.
#[derive(Clone, Debug, Args)]
pub(crate) struct Registers {
    /// x0, x1, …; the others of x0 to x17 hold a pattern
    #[arg(required = true, num_args = 1..=8, value_parser = parse)]
    pub(crate) x: Vec<u64>,
}

/// What to do with a system register.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum RegisterCommand {
    /// Read it
    Read {
        /// Its name, or encoding (S3_4_C1_C1_0)
        #[arg(value_parser = system_registers::parse)]
        register: Encoding,
    },
    /// Write it (with an S1 encoding: execute that system instruction)
    Write {
        /// Its name, or encoding (S3_4_C1_C1_0)
        #[arg(value_parser = system_registers::parse)]
        register: Encoding,
        /// What
        #[arg(value_parser = parse)]
        value: u64,
    },
    /// Print the names that are known
    List,
}

fn size(text: &str) -> Result<Size, String> {
    Size::from_bytes(parse(text)?).ok_or_else(|| "a size is 1, 2, 4 or 8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use hyp_abi::{FrameRange, HostCall};

    fn parsed(line: &str) -> CommandLine {
        CommandLine::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn deeds() {
        let line = parsed("p --cpu 1 el0 read 0x4000_0ffc --size 4 --expect signal=SIGBUS");
        assert_eq!(
            (line.cpu, line.expect),
            (Some(1), Some(Expected::Signal(Some("SIGBUS".into()))))
        );
        let Command::El0 { deed } = line.command else {
            panic!("{:?}", line.command)
        };
        let (place, deed) = deed.deed();
        assert_eq!(
            (place.address, place.map, deed),
            (0x4000_0ffc, Map::Auto, Deed::Read(Size::Word))
        );

        let Command::El1 { bare: true, deed } = parsed("p el1 write 4096 0x2a --map device --bare").command
        else {
            panic!("not a bare write");
        };
        let (place, deed) = deed.deed();
        assert_eq!(
            (place.address, place.map, deed),
            (4096, Map::Device, Deed::Write(Size::Double, 42))
        );
    }

    #[test]
    fn a_jump_at_el1_is_bare() {
        assert_eq!(el1_way(false, Deed::Fetch { plant: true }), Way::El1Bare);
        assert_eq!(el1_way(false, Deed::Read(Size::Byte)), Way::El1);
        assert_eq!(el1_way(true, Deed::Read(Size::Byte)), Way::El1Bare);
    }

    #[test]
    fn calls() {
        let Command::Call { call } = parsed("p call donate 0x48000000 512").command else {
            panic!("not a call")
        };
        assert_eq!(
            HostCall::from(call),
            HostCall::DonateHyp(FrameRange::new(0x4800_0000, 512))
        );
        let Command::Call { call } = parsed("p call counter 1 HostAborts").command else {
            panic!("not a call")
        };
        assert_eq!(HostCall::from(call), HostCall::Counter { cpu: 1, counter: 5 });
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let Command::WithPages {
            order,
            count,
            command,
        } = parsed("p with-pages --order 9 -- sh -c ls --all").command
        else {
            panic!("not with-pages");
        };
        assert_eq!(
            (order, count, command.join(" ")),
            (9, 1, "sh -c ls --all".to_owned())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "p",
            "p el0 read",
            "p el0 read 0x1000 --size 3",
            "p el0 read 0x1000 --expect nothing",
            "p el1 write 0x1000",
            "p call donate 1",
            "p hvc",
            "p hvc 1 2 3 4 5 6 7 8 9",
            "p sysreg read NO_SUCH_EL9",
        ] {
            assert!(CommandLine::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
