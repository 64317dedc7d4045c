//! Compares names with patterns.

use super::read::Reader;
use super::tag;

/// Whether the name matches the pattern: they are equal except for the terms, or tails of lists,
/// in whose place the pattern has [`super::Encoder::any`].
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (Reader::new(pattern), Reader::new(name));
    while let Some(expected) = pattern.step() {
        let matched = match expected {
            [tag::ANY] => name.pass(),
            [tag::TAIL] if pattern.rest.first() == Some(&tag::ANY) => {
                pattern.rest = &pattern.rest[1..];
                name.pass_rest()
            }
            expected => (name.step() == Some(expected)).then_some(()),
        };
        if matched.is_none() {
            return false;
        }
    }
    name.rest.is_empty()
}
