//! Ids that are the same whenever they are made of the same facts.

use ring::digest::{Context, SHA256};
use uuid::Uuid;

/// An id made of facts (UUID version 8, RFC 9562, from a SHA-256), for an event that is looked at or cut up more than
/// once and must be recognised.
pub fn derived(facts: &[&[u8]]) -> Uuid {
    let mut digest = Context::new(&SHA256);
    for fact in facts {
        digest.update(fact);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&digest.finish().as_ref()[..16]);
    Uuid::new_v8(id)
}
