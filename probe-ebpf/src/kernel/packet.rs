//! A packet as a tc program sees it.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};

#[derive(Clone, Copy)]
pub struct Packet(*mut __sk_buff);

impl Packet {
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    /// Bytes, from the Ethernet header on.
    #[inline(always)]
    pub fn length(self) -> u32 {
        // SAFETY: the program's context, as in all below.
        unsafe { (*self.0).len }
    }

    /// Host byte order.
    #[inline(always)]
    pub fn ethertype(self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    /// Index of the device.
    #[inline(always)]
    pub fn device(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }

    /// Packets on the wire that it is cut into, or was put together of. Kernel 5.1.
    #[inline(always)]
    pub fn segments(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).gso_segs }.max(1)
    }

    /// `N` words of four bytes at `at`, as they lie in the packet: the first byte is the lowest. In the packet's first
    /// part they cost a few instructions; beyond it, in pages that a program can't see, a call.
    #[inline(always)]
    pub fn words<const N: usize>(self, at: u32) -> Option<[u32; N]> {
        // SAFETY: the bounds are checked as the verifier wants it: on the very pointer that is read.
        unsafe {
            let start = (*self.0).data as usize + at as usize;
            if start + 4 * N > (*self.0).data_end as usize {
                return self.load(at);
            }
            let mut words = [0; N];
            let mut index = 0;
            while index < N {
                words[index] = word(start + 4 * index);
                index += 1;
            }
            Some(words)
        }
    }

    /// Two bytes at `at`, network byte order.
    #[inline(always)]
    pub fn half(self, at: u32) -> Option<u16> {
        // SAFETY: as above.
        unsafe {
            let start = (*self.0).data as usize + at as usize;
            if start + 2 > (*self.0).data_end as usize {
                return self.load(at).map(u16::from_be);
            }
            Some(u16::from_be(half(start)))
        }
    }

    #[inline(always)]
    fn load<T: Copy>(self, at: u32) -> Option<T> {
        let mut to = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of it, or fails; `T` is words or a number.
        unsafe {
            let failed = bpf_skb_load_bytes(self.0.cast(), at, to.as_mut_ptr().cast(), size_of::<T>() as u32);
            (failed == 0).then(|| to.assume_init())
        }
    }
}

// BPF loads from any address where the machine does, but the compiler reads what may not be aligned byte by byte.

#[inline(always)]
unsafe fn word(at: usize) -> u32 {
    let word: u64;
    // SAFETY: the caller checked the bounds.
    unsafe {
        asm!("{0} = *(u32 *)({1} + 0)", out(reg) word, in(reg) at, options(pure, readonly, nostack, preserves_flags));
    }
    word as u32
}

#[inline(always)]
unsafe fn half(at: usize) -> u16 {
    let half: u64;
    // SAFETY: the caller checked the bounds.
    unsafe {
        asm!("{0} = *(u16 *)({1} + 0)", out(reg) half, in(reg) at, options(pure, readonly, nostack, preserves_flags));
    }
    half as u16
}
