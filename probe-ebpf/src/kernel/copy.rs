//! Copying and zeroing by words.
//!
//! For more than a few bytes the compiler calls `memcpy` and `memset`, which on BPF are loops over bytes:
//! measured, they made a record three times as dear. Volatile accesses keep it from finding the idiom.

/// Copies a `T`, 8 bytes at a time.
///
/// # Safety
/// `from` is readable and `to` writable for a `T`, whose size and alignment are multiples of 8 bytes.
#[inline(always)]
pub unsafe fn copy<T>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: the caller's; `word` is inside of a `T`.
        unsafe {
            to.cast::<u64>()
                .add(word)
                .write_volatile(from.cast::<u64>().add(word).read_volatile())
        };
        word += 1;
    }
}

/// Zeroes a `T`, 8 bytes at a time.
///
/// # Safety
/// `to` is writable for a `T`, whose size and alignment are multiples of 8 bytes and for which zero is a value.
#[inline(always)]
pub unsafe fn zero<T>(to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let mut word = 0;
    while word < size_of::<T>() / 8 {
        // SAFETY: the caller's; `word` is inside of a `T`.
        unsafe { to.cast::<u64>().add(word).write_volatile(0) };
        word += 1;
    }
}
