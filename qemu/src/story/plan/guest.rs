//! The second act: the payload host has a guest. What it does is the payload's ([`payload_protocol::story`]); here is
//! what must come of it.

use super::{ABORT, Chapter, Deed, Expected, Source, Watched, Who, freehold};
use payload_protocol::Access;
use payload_protocol::story::Step;
use std::borrow::Cow;

/// The chapters, each with its first step.
const CHAPTERS: [(Step, &str); 9] = [
    (
        Step::HostCountsFrames,
        "A guest is given memory, and it is gone from the host's sight",
    ),
    (Step::HostLaunches, "The guest is launched, and measured"),
    (Step::GuestMissesPage, "The guest computes a secret"),
    (
        Step::GuestWritesLetter,
        "The guest lends a page, and the host pins it",
    ),
    (Step::GuestIsRefused, "The guest asks for its page back"),
    (Step::GuestGivesUp, "The guest gives a page up"),
    (Step::GuestLendsForGood, "The guest does not let go of the CPU"),
    (Step::HostKills, "The guest is killed, and every page comes back"),
    (
        Step::HostShowsOther,
        "Another guest has noticed nothing, and in the end all is as it was",
    ),
];

/// The act with a guest whose image takes so many frames and whose launch digest is this, in hexadecimal.
pub(in crate::story) fn plan(image: u64, digest: String) -> Vec<Chapter> {
    let mut chapters = vec![freehold(
        "Freehold boots again, below a host of ours that runs guests",
        &["EL2: reserved", "EL2: image", "host: enters EL1"],
    )];
    let ends = CHAPTERS.iter().skip(1).map(|(first, _)| Some(*first));
    for ((first, title), end) in CHAPTERS.iter().zip(ends.chain([None])) {
        let steps = Step::all().filter(|step| step >= first && end.is_none_or(|end| *step < end));
        chapters.push(Chapter {
            title,
            teller: Source::Host(steps.map(|step| deed(step, image, &digest)).collect()),
        });
    }
    chapters
}

/// A step as the runner sees it.
fn deed(step: Step, image: u64, digest: &str) -> Deed {
    let (who, tells) = says(step);
    let mut deed = Deed {
        who,
        tells: tells.into_owned(),
        command: format!("{step:?}"),
        expected: expected(step, digest),
        watched: None,
        counter: is_refused(step).then_some(ABORT),
    };
    if let Some((before, after)) = states(step) {
        deed.watched = Some(Watched {
            frame: "",
            frames: match step {
                Step::HostGivesImage => image,
                Step::HostGivesPage => 2,
                _ => 1,
            },
            before,
            after,
        });
    }
    deed
}

/// Who acts, and what happens.
fn says(step: Step) -> (Who, Cow<'static, str>) {
    let (who, tells) = match step {
        Step::HostCountsFrames => (Who::Call, "counts the frames by their owner"),
        Step::HostCreatesVm => (Who::Call, "creates a protected VM"),
        Step::HostGivesImage => (Who::Call, "gives it the guest's image, page by page"),
        Step::HostLoads => (Who::Kernel, "reads the image"),
        Step::HostStores => (Who::Kernel, "writes to it"),
        Step::HostJumps => (Who::Kernel, "jumps to it"),
        Step::ProgramLoads => (Who::Program, "reads it"),
        Step::ProgramJumps => (Who::Program, "jumps to it"),
        Step::HostTriesEverything => {
            let kinds = Access::ALL.len();
            let tells = format!("tries all {kinds} kinds of access, and fetches, on every page of it");
            return (Who::Everybody, tells.into());
        }
        Step::HostSharesIt => (Who::Call, "shares it with EL2, as if it were the host's"),
        Step::HostGivesItToAnother => (
            Who::Call,
            "starts a second guest, and gives it a page of the first",
        ),
        Step::HostLaunches => (Who::Call, "launches the guest"),
        Step::HostReadsDigest => (
            Who::Call,
            "reads the launch digest: the runner makes the same of the image",
        ),
        Step::GuestReadsDigest => (Who::GuestCall, "reads the digest: it is the same"),
        Step::GuestMissesPage => (Who::Guest, "reads a page that it does not have"),
        Step::HostGivesPage => (Who::Call, "fills two pages with garbage and gives them"),
        Step::GuestFindsZeroes => (Who::Guest, "reads on: there is no garbage in them"),
        Step::GuestHoldsSecret => (
            Who::Guest,
            "computes a secret, and calls the host with it in every register",
        ),
        Step::HostSearches => (Who::Kernel, "searches all RAM for the secret"),
        Step::GuestStillKnows => (Who::Guest, "comes back, and finds its registers as they were"),
        Step::GuestWritesLetter => (Who::Guest, "writes a letter to a page of its own"),
        Step::GuestLends => (Who::GuestCall, "lends the page to the host"),
        Step::HostReadsLetter => (Who::Kernel, "reads the letter"),
        Step::HostAnswers => (Who::Kernel, "writes an answer"),
        Step::GuestReadsAnswer => (Who::Guest, "reads the answer"),
        Step::HostPins => (Who::Call, "pins the page, as for I/O"),
        Step::HostShowsPinned => (Who::Runner, "stops the machine and looks into its memory"),
        Step::GuestIsRefused => (Who::GuestCall, "wants it back while it is pinned"),
        Step::GuestIsGranted => (Who::GuestCall, "wants it back again, and the host lets go"),
        Step::HostLoadsAgain => (Who::Kernel, "reads the page"),
        Step::GuestGivesUp => (Who::GuestCall, "writes to another page, and gives it up"),
        Step::HostLoadsGivenUp => (Who::Kernel, "reads the page before it has taken it"),
        Step::HostTakesBack => (Who::Call, "takes the page"),
        Step::HostFindsZeroes => (Who::Kernel, "reads what the guest left: nothing"),
        Step::GuestLendsForGood => (Who::GuestCall, "lends one more page, which it will not take back"),
        Step::GuestSpins => (Who::Guest, "goes round in circles; the host's tick interrupts it"),
        Step::HostKills => (Who::Call, "ends the VM in the middle of that"),
        Step::HostRunsDead => (Who::Call, "runs its vCPU once more"),
        Step::HostLoadsFromDead => (Who::Kernel, "reads a page of the dead guest"),
        Step::HostReclaims => (Who::Call, "takes everything back"),
        Step::HostComparesPages => (Who::Kernel, "reads every page"),
        Step::HostBuries => (Who::Call, "ends the VM, which has nothing left"),
        Step::HostShowsOther | Step::HostShowsEnd => (Who::Runner, "looks into the machine again"),
        Step::OtherLives => (Who::OtherGuest, "reads its own page"),
        Step::HostEndsOther => (Who::Call, "ends this guest too, and takes everything back"),
        Step::HostCountsAgain => (Who::Call, "counts again: there are as many of each"),
        Step::HostAudits => (Who::Call, "has EL2 compare its map with its tables"),
    };
    (who, tells.into())
}

/// Whether it is an access that Freehold must refuse, and count.
const fn is_refused(step: Step) -> bool {
    matches!(
        step,
        Step::HostLoads
            | Step::HostStores
            | Step::HostJumps
            | Step::ProgramLoads
            | Step::ProgramJumps
            | Step::HostTriesEverything
            | Step::HostSearches
            | Step::HostLoadsAgain
            | Step::HostLoadsGivenUp
            | Step::HostLoadsFromDead
    )
}

fn expected(step: Step, digest: &str) -> Expected {
    match step {
        Step::HostReadsDigest | Step::GuestReadsDigest => Expected::Digest(digest.to_owned()),
        Step::HostShowsPinned => Expected::Guests { secret: true },
        Step::HostShowsOther | Step::HostShowsEnd => Expected::Guests { secret: false },
        _ => Expected::Finding,
    }
}

/// The state of the frame that a step is about before and after it, as EL2 tells the host.
const fn states(step: Step) -> Option<(&'static str, &'static str)> {
    const HOST: &str = "Host";
    const PRIVATE: &str = "NotYours";
    const LENT: &str = "GuestSharedHost";
    const GIVEN_UP: &str = "Relinquished";
    Some(match step {
        Step::HostGivesImage | Step::HostGivesPage => (HOST, PRIVATE),
        Step::HostLoads
        | Step::HostStores
        | Step::HostJumps
        | Step::ProgramLoads
        | Step::ProgramJumps
        | Step::HostSharesIt
        | Step::HostGivesItToAnother
        | Step::HostLaunches
        | Step::GuestFindsZeroes
        | Step::GuestWritesLetter
        | Step::HostLoadsAgain
        | Step::HostKills
        | Step::HostRunsDead
        | Step::HostLoadsFromDead => (PRIVATE, PRIVATE),
        Step::GuestLends => (PRIVATE, LENT),
        Step::HostReadsLetter
        | Step::HostAnswers
        | Step::GuestReadsAnswer
        | Step::HostPins
        | Step::GuestIsRefused => (LENT, LENT),
        Step::GuestIsGranted => (LENT, PRIVATE),
        Step::GuestGivesUp => (PRIVATE, GIVEN_UP),
        Step::HostLoadsGivenUp => (GIVEN_UP, GIVEN_UP),
        Step::HostTakesBack => (GIVEN_UP, HOST),
        Step::HostFindsZeroes => (HOST, HOST),
        Step::HostReclaims => (PRIVATE, HOST),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::script;

    #[test]
    fn the_chapters_have_every_step_in_its_place() {
        let plan = plan(12, String::new());
        let told: Vec<_> = script::deeds(&plan)
            .map(|(_, deed)| deed.command.clone())
            .collect();
        let steps: Vec<_> = Step::all().map(|step| format!("{step:?}")).collect();
        assert_eq!(told, steps);
    }

    #[test]
    fn a_refused_access_changes_no_state() {
        for step in Step::all().filter(|step| is_refused(*step)) {
            assert!(
                states(step).is_none_or(|(before, after)| before == after),
                "{step:?}"
            );
        }
    }
}
