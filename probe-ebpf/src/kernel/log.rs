//! Messages to whoever debugs this kernel side: `probe --kernel-log`.
//!
//! Objects are built twice, with feature `log` and without, and the first are loaded only where messages are asked for. One
//! object with a guard in it would not do: the verifier removes the branch of a message that is off, but not the three
//! instructions before it that load the level, and the compiler arranges the rest of the program around it. Measured on 6.18,
//! programs were up to 330 bytes larger then than without aya-log. In objects with messages [`AYA_LOG_LEVEL`] is
//! such a guard: `trace` is removed where only `debug` is asked for.
//!
//! Each message is written by a function of its own, which needs 32 bytes of the stack: `debug!("map X is full: port {}", port:
//! u16)`. Values are locals, and at most five. The function is not `#[cold]`: that would put it into a section of its own, and
//! calls from one section of functions into another went to a wrong function (aya-obj 0.3).
//!
//! [`AYA_LOG_LEVEL`]: aya_log_ebpf::macro_support::AYA_LOG_LEVEL

#[cfg(feature = "log")]
#[doc(hidden)]
pub use aya_log_ebpf::macro_support::{Level, level_enabled};

#[cfg(feature = "log")]
#[doc(hidden)]
#[macro_export]
macro_rules! message {
    ($macro:ident, $level:ident, $text:literal $(, $value:ident: $type:ty)*) => {{
        #[inline(never)]
        fn write($($value: $type),*) {
            ::aya_log_ebpf::$macro!((), $text $(, $value)*);
        }
        if $crate::kernel::log::level_enabled($crate::kernel::log::Level::$level) {
            write($($value),*);
        }
    }};
}

#[cfg(not(feature = "log"))]
#[doc(hidden)]
#[macro_export]
macro_rules! message {
    ($macro:ident, $level:ident, $text:literal $(, $value:ident: $type:ty)*) => {{
        $(let _: $type = $value;)*
    }};
}

/// Something that is rare, and costs a record, a count or a name.
#[macro_export]
macro_rules! debug {
    ($($message:tt)*) => { $crate::message!(debug, Debug, $($message)*) };
}

/// Something that happens to every connection, or that costs nothing.
#[macro_export]
macro_rules! trace {
    ($($message:tt)*) => { $crate::message!(trace, Trace, $($message)*) };
}

pub use {debug, trace};
