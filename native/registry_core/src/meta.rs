//! What users keep with a registry as a whole: a small map from keys to values.

use ahash::RandomState;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Values by key. A key is the canonical bytes of a term, as a name is.
///
/// Some users read this on every call, and it is hardly ever written, so it has one lock, for readers and
/// writers. No value is dropped while the lock is held: a value that is replaced or deleted goes back to
/// the caller.
#[derive(Debug)]
pub struct Meta<V>(RwLock<HashMap<Box<[u8]>, V, RandomState>>);

impl<V> Default for Meta<V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<V: Clone> Meta<V> {
    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<V> {
        let values = self.0.read().unwrap_or_else(PoisonError::into_inner);
        values.get(key).cloned()
    }

    /// Puts a value under a key; answers the value that was there.
    pub fn put(&self, key: &[u8], value: V) -> Option<V> {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        values.insert(key.into(), value)
    }

    /// Deletes a key; answers its value.
    pub fn delete(&self, key: &[u8]) -> Option<V> {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        values.remove(key)
    }

    /// Deletes all keys.
    pub fn clear(&self) {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let cleared = std::mem::take(&mut *values);
        drop(values);
        drop(cleared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_value_that_was_put_last() {
        let meta = Meta::default();
        assert_eq!(meta.get(b"key"), None);
        assert_eq!(meta.put(b"key", 1), None);
        assert_eq!(meta.put(b"key", 2), Some(1));
        assert_eq!(meta.get(b"key"), Some(2));
        assert_eq!(meta.get(b"another"), None);
    }

    #[test]
    fn a_deleted_key_has_no_value() {
        let meta = Meta::default();
        meta.put(b"key", 1);
        assert_eq!(meta.delete(b"key"), Some(1));
        assert_eq!(meta.delete(b"key"), None);
        assert_eq!(meta.get(b"key"), None);
    }

    #[test]
    fn nothing_is_left_when_it_is_cleared() {
        let meta = Meta::default();
        meta.put(b"key", 1);
        meta.clear();
        assert_eq!(meta.get(b"key"), None);
    }
}
