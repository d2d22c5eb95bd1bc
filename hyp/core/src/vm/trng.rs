//! Entropy for guests: the TRNG Firmware Interface (Arm DEN0098, 1.0).

use super::run::{Flow, Running};
use crate::hardware::Hardware;
use hyp_abi::GuestCallId;
use hyp_abi::guest_call::NO_ENTROPY;

/// TRNG_VERSION: 1.0.
const VERSION: u64 = 0x1_0000;
/// DEN0098's "an argument has no meaning".
const INVALID_PARAMETERS: i64 = -2;
/// Who answers, as x0 to x3 of TRNG_GET_UUID. The first word is not all ones, which would be an error.
const UUID: [u64; 4] = [0x5d2c_9a1e, 0x41f0_7b36, 0x9c83_e5ad, 0x2b64_d710];

impl<H: Hardware> Running<'_, '_, H> {
    /// Answers a call of the TRNG; without entropy there is none.
    pub(super) fn trng(&mut self, call: GuestCallId, argument: u64) -> Flow {
        if !self.has_entropy() {
            return self.unsupported();
        }
        match call {
            GuestCallId::TrngVersion => self.succeed([VERSION, 0, 0, 0]),
            GuestCallId::TrngGetUuid => self.succeed(UUID),
            GuestCallId::TrngFeatures => match GuestCallId::try_from(argument as u32) {
                Ok(
                    GuestCallId::TrngVersion
                    | GuestCallId::TrngFeatures
                    | GuestCallId::TrngGetUuid
                    | GuestCallId::TrngRnd32
                    | GuestCallId::TrngRnd64,
                ) => self.succeed([0; 4]),
                _ => self.unsupported(),
            },
            // The argument of a 32-bit call is W1.
            GuestCallId::TrngRnd32 => self.random(argument & 0xffff_ffff, 32),
            _ => self.random(argument, 64),
        }
    }

    /// `bits` bits in x1 to x3, `width` in each, the last of them in the low bits of x3; what is above them is zero.
    fn random(&mut self, bits: u64, width: u32) -> Flow {
        if bits == 0 || bits > 3 * u64::from(width) {
            return self.fail(INVALID_PARAMETERS);
        }
        let mut left = bits;
        let mut words = [0; 3];
        for word in words.iter_mut().rev() {
            let here = left.min(u64::from(width)) as u32;
            if here == 0 {
                break;
            }
            let Some(entropy) = self.hw().entropy() else {
                return self.fail(NO_ENTROPY);
            };
            *word = entropy >> (64 - here);
            left -= u64::from(here);
        }
        let [x1, x2, x3] = words;
        self.succeed([0, x1, x2, x3])
    }
}
