//! The only way to read kernel memory.
//!
//! The same code serves two kinds of program. In a BTF tracepoint a kernel pointer has a type, and a plain load at
//! a known offset is checked against it when the program loads: a wrong offset never runs. In a raw tracepoint it
//! has none, and every read goes through `bpf_probe_read_kernel`.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit, ptr::null};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_skc_to_tcp_sock,
};

use crate::contract::connection::Address;

/// An address in the kernel.
pub type Pointer = *const u8;

/// How kernel memory is read.
pub trait Memory {
    /// Reads a `T` at `base + offset`; zero where the kernel can't read it.
    ///
    /// # Safety
    /// `T` is an integer or a pointer, and `offset` comes from the offsets table for the struct at `base`.
    unsafe fn read<T: Copy>(base: Pointer, offset: u32) -> T;

    /// The same socket as a `struct tcp_sock`; null when it is none.
    ///
    /// # Safety
    /// `sock` is a `struct sock` that a hook handed over.
    unsafe fn tcp_sock(sock: Pointer) -> Pointer;

    /// The process on the CPU, a `struct task_struct`.
    fn current() -> Pointer;
}

/// Plain loads, checked by the verifier: BTF tracepoints. For pointers that lead somewhere for sure: where one does not,
/// the load faults, and kernels before 6.4 don't survive that in a program that calls functions of its own.
///
/// A pointer that is read out of a hook's argument is dear when the program loads: since 6.3 the verifier searches all types
/// of the kernel by name for what it may be trusted to be, four times a read, a millisecond each, on every way that leads
/// there (`btf_nested_type_is_trusted`). A read by [`Probed`] costs some 20 ns each time it runs, and nothing when the program
/// loads: it serves pointers of which one value is read.
pub struct Typed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: Pointer, offset: u32) -> T {
        // Volatile, so that two neighbouring loads are not merged into one that spans two members, which the
        // verifier refuses.
        // SAFETY: the verifier checks the load against the type of `base`; a fault reads zero.
        unsafe { base.add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: Pointer) -> Pointer {
        // SAFETY: the caller's.
        unsafe { bpf_skc_to_tcp_sock(sock.cast_mut().cast::<c_void>()) }.cast()
    }

    #[inline(always)]
    fn current() -> Pointer {
        // SAFETY: no arguments.
        unsafe { bpf_get_current_task_btf() }.cast()
    }
}

/// `bpf_probe_read_kernel`: raw tracepoints, and everything that is read once a process or control group.
pub struct Probed;

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: Pointer, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, zero when it can't read, and `T` is an integer or a pointer.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }

    #[inline(always)]
    unsafe fn tcp_sock(sock: Pointer) -> Pointer {
        // struct tcp_sock begins with its struct sock, as every protocol's socket does.
        sock
    }

    #[inline(always)]
    fn current() -> Pointer {
        // SAFETY: no arguments.
        unsafe { bpf_get_current_task() as Pointer }
    }
}

/// A pointer member; null where it can't be read.
///
/// # Safety
/// As [`Memory::read`].
#[inline(always)]
pub unsafe fn pointer<M: Memory>(base: Pointer, offset: u32) -> Pointer {
    // SAFETY: the caller's.
    unsafe { M::read::<Pointer>(base, offset) }
}

/// A protocol header at `head + offset`; zero where it can't be read.
///
/// # Safety
/// `T` is plain bytes.
#[inline(always)]
pub unsafe fn header<T>(head: Pointer, offset: u16) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of `value`, zero when it can't read.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            head.wrapping_add(usize::from(offset)).cast(),
        );
        value.assume_init()
    }
}

/// Sixteen bytes, two loads.
///
/// # Safety
/// As [`Memory::read`].
#[inline(always)]
pub unsafe fn sixteen<M: Memory>(base: Pointer, offset: u32) -> [u64; 2] {
    // SAFETY: the caller's.
    unsafe { [M::read::<u64>(base, offset), M::read::<u64>(base, offset + 8)] }
}

/// An IPv4 address in network byte order, mapped into IPv6.
#[inline(always)]
pub fn mapped(v4: u32) -> [u64; 2] {
    [0, (u64::from(v4) << 32) | 0xffff_0000]
}

/// Two words in the kernel's own byte order as the bytes they stand for.
#[inline(always)]
pub fn bytes(words: [u64; 2]) -> Address {
    bytemuck::cast(words)
}

/// The lower half of a typed pointer as a number.
#[inline(always)]
pub fn low(pointer: Pointer) -> u32 {
    let low: u64;
    // The verifier allows no arithmetic on a typed pointer, but makes a number of one that is copied by half.
    // SAFETY: a copy of one register into another.
    unsafe { asm!("w0 = w1", in("r1") pointer, lateout("r0") low) };
    low as u32
}

/// A pointer to nothing.
pub const NULL: Pointer = null();
