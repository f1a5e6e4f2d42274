//! Keys of one [`KeyHash`], for tests of what such keys cost.
//!
//! XXH3-64 of 128 bytes is a bijection of the sum of eight terms, one for each 16 bytes. Below are halves of inputs whose four terms make one
//! sum: any first half with any second half has the same hash. Finding them took 12 seconds (Wagner's search in lists of 2^22).

use super::KeyHash;
use crate::types::{Key, UserId};

pub const USER: &str = "a";
pub const OTHER_USER: &str = "b";

/// With the name of [`USER`] before them.
const FIRST: [&str; 32] = [
    "xhzJ9NCO3FIB3jwG",
    "kwnJRzgIKuIG5r-P",
    "boDEqeoMr59I-jIM",
    "4dXEvoxMkhCAYMaN",
    "FOZLCBFL8XWN44BC",
    "QjzFbleHsiNA0C5I",
    "X7JG7oqHospOJzRE",
    "FqlAXx5MmFkEPGCB",
    "K3xF-MkPtaZMlI2K",
    "wc8Hb3ECHBaM--KJ",
    "9vaKtliF1daERKbE",
    "qvkAvCQH6NGFm9jC",
    "P2iGXZLDpttDw8eH",
    "ffOHUR4I_VLAc27B",
    "wtIEqPyO2c3LcOgJ",
    "c61GqMfMW20G1KAP",
    "lH2Ab_3M4YGCVpBM",
    "8FrBsoFBdDcLwhIK",
    "Ov_HZMQDZONCkDWO",
    "HYqLvqYMgWaPNllF",
    "Dm3BcflPwv_Mn-3H",
    "7KeCBLGHv4KHUKCP",
    "ddoFladCs2mD6A6D",
    "KMGCyISCpcIN1GnO",
    "N65LM8pJVpEAJnbB",
    "SDfPAP-IifuPYG1G",
    "U2IKTIeJzIPIjPcB",
    "i1yOYYaBqMjMfrcI",
    "N_bLOf-FuNLAI-2H",
    "rtBNrZ1AtM2IQcCH",
    "Q0wDuR1BI24CEBBN",
    "iMEP9p4GvsCHcumC",
];

/// With the name of [`OTHER_USER`] before them.
const FIRST_OF_OTHER: [&str; 2] = ["HTPJEEZKo71LusDN", "GsBDCC0Jb9NLKS1N"];

/// Second halves.
const SECOND: [&str; 32] = [
    "cNTJZiFHGGsIroDP",
    "-DADy4jCADwMAwdJ",
    "6A_OE55FpC1NRyMH",
    "6fmNOJlCQeeCbeIL",
    "bCVLYWDPwbWCRw9G",
    "4lvA3QEKPAXLlPTL",
    "bOhMpQMP-SHER6hJ",
    "U7LIeRSKYQOHigWB",
    "fGaA0U5Hc6EC34-M",
    "HvNE3V_FgYLF7M0I",
    "p9NDS6nGgwZBNkCM",
    "Zb0O120JVViIvJaH",
    "smaHL7YDfS3FbHZD",
    "2wbO4xtCT7FCAN6P",
    "ZvzPf57GKi6OjvUD",
    "8NJCfoUDa2lHB3eI",
    "0dqAhidKxKBHmpxA",
    "j1VGeohK6R-PS4CP",
    "likMSkMMVQ5O3D6G",
    "JZzO0_pAwiXMkSPM",
    "MXBEgPKOWUCKlDJD",
    "qOWGDP0PgzfP1_QG",
    "sHVL3T8G4mpKxUdD",
    "6BnFxaJE5MxDXFgN",
    "h-zBqdiFHpMOpBJF",
    "YTaKZqZEQeGHj-hH",
    "K-DK7N5IwTuH953C",
    "ZJyKUelIEzkL6IbN",
    "tgdK91DOf8EIp81H",
    "P5nCqZVLvGKOOjEO",
    "J7IAnx4BUvXB-bBG",
    "Nz_C4GFN-3INVa0O",
];

/// Keys of [`USER`] or [`OTHER_USER`], all of one hash.
pub fn keys_of_one_hash(user: &str) -> Vec<Key> {
    let first: &[&str] = if user == USER { &FIRST } else { &FIRST_OF_OTHER };
    let pairs = first.iter().flat_map(|first| SECOND.map(|second| [*first, second]));
    pairs.map(|halves| key_of(&halves.concat())).collect()
}

/// Each 16 bytes that are hashed end in 4 characters of their own; two bytes of length and the user's name take part in the first.
fn key_of(own: &str) -> Key {
    let blocks = own.as_bytes().chunks(4).flat_map(|own| [&[b'.'; 12], own].concat());
    let text = String::from_utf8(blocks.skip(2 + USER.len()).collect());
    Key::new(&text.expect("ASCII")).expect("125 bytes")
}

#[test]
fn they_differ_and_their_hash_does_not() {
    let mut names = std::collections::HashSet::new();
    let mut hashes = std::collections::HashSet::new();
    for user in [USER, OTHER_USER] {
        let id = UserId::new(user).expect("a short name");
        for key in keys_of_one_hash(user) {
            hashes.insert(KeyHash::of(&id, &key));
            names.insert((user, key));
        }
    }
    assert_eq!((names.len(), hashes.len()), (34 * 32, 1));
}
