//! A bounded run of every fuzz target: mutations of valid inputs and random bytes, from fixed seeds. No input makes a decoder panic
//! or allocate out of proportion.
#![allow(clippy::disallowed_methods, reason = "a test that runs outside any node")]

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;
mod common;
#[path = "common/counting.rs"]
mod counting;

use std::panic::catch_unwind;

use bodies::TARGETS;
use common::Chance;
use counting::held_bytes;

/// Inputs per target and sample; `KV_FUZZ_INPUTS` makes it a longer run.
const INPUTS_DEFAULT: u64 = 400;
/// What a decoder may hold at once besides what is in proportion to its input: tables and buffers.
const FIXED_BYTES_MAX: usize = 1 << 20;

/// Some of what breaks decoders: flipped bits, cut and repeated stretches, lengths that are lies, pieces of other inputs.
fn mutate(chance: &mut Chance, sample: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len() as u64 + 1) as usize;
        let length = chance.below(16).min((bytes.len() - at) as u64) as usize;
        match chance.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let from = chance.below(other.len() as u64 + 1) as usize;
                let piece = other[from..].iter().take(1 + chance.below(64) as usize).copied();
                bytes.splice(at..at, piece);
            }
            4 => bytes[at..at + length].fill(*[0, 0xff, 0x7f, 0x80].get(chance.below(4) as usize).unwrap_or(&0)),
            5 => bytes[at..at + length]
                .iter_mut()
                .for_each(|byte| *byte = chance.below(256) as u8),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
    bytes
}

fn random(chance: &mut Chance) -> Vec<u8> {
    let length = chance.below(2000);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

fn check(target: &bodies::Target, input: &[u8]) {
    let (result, held_bytes) = held_bytes(|| catch_unwind(|| (target.run)(input)));
    assert!(result.is_ok(), "{} panicked on {input:?}", target.name);
    let allowed_bytes = target.proportion_max * input.len() + FIXED_BYTES_MAX;
    assert!(
        held_bytes <= allowed_bytes,
        "{} held {held_bytes} bytes for {} bytes of input: {input:?}",
        target.name,
        input.len()
    );
}

#[test]
fn no_input_makes_a_decoder_panic_or_allocate_out_of_proportion() {
    let inputs = std::env::var("KV_FUZZ_INPUTS").map_or(INPUTS_DEFAULT, |text| text.parse().unwrap());
    let mut chance = Chance(1);
    for target in &TARGETS {
        let samples = (target.samples)();
        check(target, b"");
        for sample in &samples {
            check(target, sample);
            for _ in 0..inputs {
                let other = &samples[chance.below(samples.len() as u64) as usize];
                check(target, &mutate(&mut chance, sample, other));
            }
        }
        for _ in 0..inputs {
            check(target, &random(&mut chance));
        }
    }
}
