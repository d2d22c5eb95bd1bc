//! What the invalid descriptors of a guest's table say: the table is the truth for what no frame stands behind.

use crate::pgtable::Annotation;

/// What is known of a guest frame number at which no page is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestAnnotation {
    /// Nothing: the host may put a page here.
    Absent,
    /// A page is on its way here, or from here: a call of the host is at work on it.
    Busy,
    /// The guest's page was taken by force. Nothing is ever put here again.
    Lost,
    /// The guest lets the host emulate a device here (MMIO_GUARD_MAP).
    Device,
}

impl GuestAnnotation {
    /// The annotation as the table has it.
    #[must_use]
    pub const fn encode(self) -> Annotation {
        let number = match self {
            Self::Absent => return Annotation::NONE,
            Self::Busy => 1,
            Self::Lost => 2,
            Self::Device => 3,
        };
        match Annotation::new(number) {
            Some(annotation) => annotation,
            None => Annotation::NONE,
        }
    }

    /// What an annotation of a guest's table says. One that is none of ours is read as the strictest.
    #[must_use]
    pub const fn decode(annotation: Annotation) -> Self {
        match annotation.value() {
            0 => Self::Absent,
            1 => Self::Busy,
            3 => Self::Device,
            _ => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_survives_its_descriptor() {
        for annotation in [
            GuestAnnotation::Absent,
            GuestAnnotation::Busy,
            GuestAnnotation::Lost,
            GuestAnnotation::Device,
        ] {
            assert_eq!(GuestAnnotation::decode(annotation.encode()), annotation);
        }
    }
}
