//! Short names for contents.

/// Upstream's alphabet for generated names: no vowels, so no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for the bytes: FNV-1a of them and of the collisions met so far.
pub(crate) fn hash(bytes: &[u8], collisions: Option<i32>) -> String {
    let salt = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let salt = if collisions.is_some() { &salt[..] } else { &[] };
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let sum = bytes.iter().chain(salt).fold(0x811c_9dc5, fold);
    let digits = sum.to_string();
    digits.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}
