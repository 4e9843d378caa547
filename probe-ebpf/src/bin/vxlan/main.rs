//! VXLAN on the wire: who sends how much to whom, and what is dropped.
//!
//! Two tc programs count on the underlay device. They see arriving packets before the packet filter does, and
//! leaving ones after it. `kfree_skb` reports what is dropped in between, or inside the VXLAN device.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use aya_ebpf::{
    macros::{classifier, raw_tracepoint},
    programs::{RawTracePointContext, TcContext},
};
use probe_ebpf::{
    contract::{offsets::ABSENT, vxlan::Direction},
    kernel::{globals::offset, packet::Packet},
};

use self::settings::setting;

mod counters;
mod drops;
mod errors;
mod flows;
mod headers;
mod inner;
mod losses;
mod outer;
mod settings;

/// The next program has its say, too: this one decides nothing.
const NEXT: i32 = -1;

// --- tc, both ways through the underlay device

#[classifier]
pub fn vxlan_in(ctx: TcContext) -> i32 {
    outer::passed(Packet::of(&ctx), Direction::In);
    NEXT
}

#[classifier]
pub fn vxlan_out(ctx: TcContext) -> i32 {
    outer::passed(Packet::of(&ctx), Direction::Out);
    NEXT
}

// --- kfree_skb(skb, location, reason): the third from 5.17 on. No BTF tracepoint: see `drops`

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn vxlan_drop(ctx: RawTracePointContext) -> i32 {
    let reason = if setting!(reasons) != 0 { ctx.arg(2) } else { 0 };
    // What was in the queues of a socket that is closed had come to its end.
    if setting!(reasons) != 0 && offset!(drop_queue_purge) != ABSENT && reason == offset!(drop_queue_purge) {
        return 0;
    }
    // SAFETY: the hook's packet.
    unsafe { drops::dropped(ctx.arg(0), reason) };
    0
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
