//! Byte strings that cross the boundary without being copied.
//!
//! OWNERSHIP: a [`FfiBytes`] owns its allocation through a destructor of the side that made it.
//! Whoever holds the value drops it exactly once; the memory always goes back to its maker.
//! THREADS: the owner must be `Send + Sync`, so the value may move between threads and be read from several.

use abi_stable::StableAbi;
use std::panic::{catch_unwind, AssertUnwindSafe};

extern "C" fn drop_nothing(_: *mut ()) {}

extern "C" fn drop_owner<T>(owner: *mut ()) {
    // SAFETY: `owner` came from `Box::into_raw` of a `Box<T>` in `FfiBytes::from_owner` with the same `T`.
    // OWNERSHIP: `FfiBytes::drop` is the only caller and runs once. THREADS: `T` is `Send`.
    let owner = unsafe { Box::from_raw(owner.cast::<T>()) };
    // A destructor that panics must not unwind into the other side.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(owner)));
}

/// Bytes owned by the side that made them, readable by both.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiBytes {
    ptr: *const u8,
    len: usize,
    owner: *mut (),
    drop: extern "C" fn(*mut ()),
}

// SAFETY: the constructors accept only static bytes or an owner that is `Send + Sync`, and nothing is written
// through the pointer. OWNERSHIP: unchanged by moving. THREADS: reads need no lock.
unsafe impl Send for FfiBytes {}
// SAFETY: as for `Send`. OWNERSHIP: shared references do not drop. THREADS: reads only.
unsafe impl Sync for FfiBytes {}

impl FfiBytes {
    /// No bytes, no allocation.
    pub const fn empty() -> Self {
        Self::from_static(&[])
    }

    /// Static bytes: nothing to free. A library is never unloaded, so its statics live for ever.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len(), owner: std::ptr::null_mut(), drop: drop_nothing }
    }

    /// Takes any owner of bytes (`Vec<u8>`, `String`, `Bytes`, …) without copying them.
    pub fn from_owner<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        let owner = Box::new(owner);
        let bytes: &[u8] = (*owner).as_ref();
        if bytes.is_empty() {
            return Self::empty();
        }
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        Self { ptr, len, owner: Box::into_raw(owner).cast(), drop: drop_owner::<T> }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the constructors set `ptr` and `len` from a live slice that the boxed owner keeps in place
        // until `drop`. OWNERSHIP: borrowed from self. THREADS: read-only.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The text, with anything that is not UTF-8 replaced.
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.as_slice())
    }
}

impl Default for FfiBytes {
    fn default() -> Self {
        Self::empty()
    }
}

impl AsRef<[u8]> for FfiBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for FfiBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FfiBytes({} bytes)", self.len)
    }
}

impl Drop for FfiBytes {
    fn drop(&mut self) {
        (self.drop)(self.owner);
    }
}

impl From<String> for FfiBytes {
    fn from(text: String) -> Self {
        Self::from_owner(text)
    }
}

impl From<Vec<u8>> for FfiBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_owner(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    struct Counted(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn owner_is_dropped_once_and_bytes_are_not_copied() {
        let drops = Arc::new(AtomicUsize::new(0));
        let owner = Counted(vec![7; 1000], drops.clone());
        let ptr = owner.0.as_ptr();
        let bytes = FfiBytes::from_owner(owner);
        assert_eq!(bytes.as_slice().as_ptr(), ptr);
        std::thread::spawn(move || assert_eq!(bytes.as_slice(), &[7; 1000][..])).join().unwrap();
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn panicking_destructor_does_not_unwind_out() {
        struct Bomb;
        impl AsRef<[u8]> for Bomb {
            fn as_ref(&self) -> &[u8] {
                b"x"
            }
        }
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("boom");
            }
        }
        drop(FfiBytes::from_owner(Bomb));
    }
}
