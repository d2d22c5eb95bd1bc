//! A host at the other end of the wire that answers and needs no rights: ARP (RFC 826), ICMP echo (RFC 792) and UDP
//! echo (RFC 862), all over IPv4.

use super::{MAX_FRAME, Wire};
use std::collections::VecDeque;

/// Its address.
pub const ADDRESS: [u8; 4] = [10, 0, 0, 1];

/// Its hardware address.
const HARDWARE: [u8; 6] = [0x02, 0x46, 0x48, 0x00, 0x00, 0x02];

/// How many answers wait for the guest; more are lost.
const MAX_PENDING: usize = 128;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const ICMP: u8 = 1;
const UDP: u8 = 17;
const UDP_ECHO: [u8; 2] = [0, 7];

/// The host.
#[derive(Debug, Default)]
pub struct Responder {
    answers: VecDeque<Vec<u8>>,
}

impl Wire for Responder {
    fn send(&mut self, frame: &[u8]) {
        let answer = answer(frame).filter(|answer| answer.len() <= MAX_FRAME);
        if self.answers.len() < MAX_PENDING {
            self.answers.extend(answer);
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.answers.pop_front()
    }
}

/// The answer to a frame, if it is a question.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_first_chunk::<ETHERNET>()?;
    let (to, from) = (&header[..6], &header[6..12]);
    if to != HARDWARE && to != [0xff; 6] {
        return None;
    }
    let payload = match [header[12], header[13]] {
        ARP => answer_arp(payload)?,
        IPV4 => answer_ipv4(payload)?,
        _ => return None,
    };
    Some([from, &HARDWARE, &header[12..], &payload].concat())
}

/// "Who has" becomes "is at".
fn answer_arp(packet: &[u8]) -> Option<Vec<u8>> {
    let packet = packet.first_chunk::<28>()?;
    // Ethernet and IPv4, with addresses of 6 and 4 bytes; a request.
    if packet[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || packet[24..28] != ADDRESS {
        return None;
    }
    let asker = &packet[8..18];
    Some([&packet[..6], &[0, 2], &HARDWARE, &ADDRESS, asker].concat())
}

fn answer_ipv4(packet: &[u8]) -> Option<Vec<u8>> {
    let header_length = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    // The frame may be padded. Fragments are not put together.
    let packet = packet.get(..total)?;
    let is_whole = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff == 0;
    if packet[0] >> 4 != 4 || header_length < 20 || !is_whole || packet.get(16..20)? != ADDRESS {
        return None;
    }
    let payload = packet.get(header_length..)?;
    let payload = match packet[9] {
        ICMP => answer_icmp(payload)?,
        UDP => answer_udp(payload)?,
        _ => return None,
    };
    // Source and destination change places, which leaves the checksum right.
    let (fixed, source) = (&packet[..12], &packet[12..16]);
    let options = &packet[20..header_length];
    Some([fixed, &ADDRESS, source, options, &payload].concat())
}

/// An echo request becomes the reply.
fn answer_icmp(message: &[u8]) -> Option<Vec<u8>> {
    if message.len() < 8 || message[..2] != [8, 0] || checksum(message) != 0 {
        return None;
    }
    let mut reply = message.to_vec();
    reply[0] = 0;
    reply[2..4].fill(0);
    let sum = checksum(&reply).to_be_bytes();
    reply[2..4].copy_from_slice(&sum);
    Some(reply)
}

/// A datagram for the echo port goes back.
fn answer_udp(datagram: &[u8]) -> Option<Vec<u8>> {
    let (header, data) = datagram.split_first_chunk::<8>()?;
    let (source, destination) = (&header[..2], &header[2..4]);
    // Ports and addresses change places, which leaves the checksum right.
    (destination == UDP_ECHO).then(|| [destination, source, &header[4..], data].concat())
}

/// The Internet checksum (RFC 1071): zero for a message that holds its own.
fn checksum(message: &[u8]) -> u16 {
    let (words, last) = message.as_chunks::<2>();
    let mut sum: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .sum();
    if let [last] = last {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::super::GUEST;
    use super::*;

    const GUEST_ADDRESS: [u8; 4] = [10, 0, 0, 2];

    fn frame(to: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
        [&to[..], &GUEST, &kind, payload].concat()
    }

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len() as u16).to_be_bytes();
        let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
        header.extend(GUEST_ADDRESS);
        header.extend(ADDRESS);
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header.extend(payload);
        header
    }

    fn asked(frame: &[u8]) -> Option<Vec<u8>> {
        let mut responder = Responder::default();
        responder.send(frame);
        responder.receive()
    }

    #[test]
    fn arp_tells_its_address() {
        let mut question = vec![0, 1, 8, 0, 6, 4, 0, 1];
        question.extend(GUEST);
        question.extend(GUEST_ADDRESS);
        question.extend([0; 6]);
        question.extend(ADDRESS);
        let reply = asked(&frame([0xff; 6], ARP, &question)).unwrap();
        assert_eq!(reply[..6], GUEST);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[22..28], HARDWARE);
        assert_eq!(reply[28..32], ADDRESS);
        question[27] = 9;
        assert_eq!(asked(&frame([0xff; 6], ARP, &question)), None);
    }

    #[test]
    fn an_echo_request_is_answered() {
        let mut message = vec![8, 0, 0, 0, 1, 2, 3, 4, 9, 9, 9];
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let reply = asked(&frame(HARDWARE, IPV4, &ipv4(ICMP, &message))).unwrap();
        let packet = &reply[ETHERNET..];
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(packet[12..20], [ADDRESS, GUEST_ADDRESS].concat());
        assert_eq!(packet[20], 0);
        assert_eq!(checksum(&packet[20..]), 0);
        assert_eq!(packet[24..], message[4..]);
        message[9] ^= 1;
        assert_eq!(asked(&frame(HARDWARE, IPV4, &ipv4(ICMP, &message))), None);
    }

    #[test]
    fn a_datagram_comes_back() {
        let datagram = [0x12, 0x34, 0, 7, 0, 11, 0, 0, b'a', b'b', b'c'];
        let reply = asked(&frame(HARDWARE, IPV4, &ipv4(UDP, &datagram))).unwrap();
        assert_eq!(reply[ETHERNET + 20..][..4], [0, 7, 0x12, 0x34]);
        assert_eq!(reply[ETHERNET + 28..], *b"abc");
        let other_port = [0x12, 0x34, 0, 8, 0, 8, 0, 0];
        assert_eq!(asked(&frame(HARDWARE, IPV4, &ipv4(UDP, &other_port))), None);
    }

    #[test]
    fn nonsense_is_not_answered() {
        let good = frame(HARDWARE, IPV4, &ipv4(UDP, &[0, 1, 0, 7, 0, 8, 0, 0]));
        assert!(asked(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(asked(&good[..length]), None, "{length}");
        }
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                // It must not panic, whatever it makes of it.
                let _ = asked(&bad);
            }
        }
        assert_eq!(asked(&frame([2; 6], IPV4, &good[ETHERNET..])), None);
    }

    #[test]
    fn answers_that_nobody_takes_are_lost() {
        let mut responder = Responder::default();
        let good = frame(HARDWARE, IPV4, &ipv4(UDP, &[0, 1, 0, 7, 0, 8, 0, 0]));
        for _ in 0..10 * MAX_PENDING {
            responder.send(&good);
        }
        assert_eq!(std::iter::from_fn(|| responder.receive()).count(), MAX_PENDING);
    }
}
