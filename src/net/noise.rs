//! Noise NNpsk0 with the cluster key as its pre-shared key: both sides prove the key, and each connection gets secrets of its own.
//!
//! NN and no static keys of the nodes: whoever has the cluster key is a member, and may say of itself which one.

use std::sync::Arc;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

use super::key::DerivedKey;
use crate::env::Entropy;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Of the public key that each side makes for one connection.
const DH_BYTES: usize = 32;
/// What encryption adds to each message.
pub const TAG_BYTES: usize = 16;
/// The longest message of Noise.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// What each message of the handshake has besides its payload.
pub const HANDSHAKE_BYTES: usize = DH_BYTES + TAG_BYTES;

/// Both sides must name the same `prologue`.
pub fn initiator(key: &DerivedKey, prologue: &[u8], entropy: &Arc<dyn Entropy>) -> Result<HandshakeState, snow::Error> {
    builder(key, prologue, entropy)?.build_initiator()
}

pub fn responder(key: &DerivedKey, prologue: &[u8], entropy: &Arc<dyn Entropy>) -> Result<HandshakeState, snow::Error> {
    builder(key, prologue, entropy)?.build_responder()
}

fn builder<'a>(
    key: &'a DerivedKey,
    prologue: &'a [u8],
    entropy: &Arc<dyn Entropy>,
) -> Result<Builder<'a>, snow::Error> {
    let pattern: NoiseParams = PATTERN.parse()?;
    Builder::with_resolver(pattern, Box::new(Resolver(entropy.clone())))
        .psk(0, &key.stream)?
        .prologue(prologue)
}

/// Cipher and hash in assembly by ring, randomness from Env.
struct Resolver(Arc<dyn Entropy>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(EnvRandom(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct EnvRandom(Arc<dyn Entropy>);

impl Random for EnvRandom {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
