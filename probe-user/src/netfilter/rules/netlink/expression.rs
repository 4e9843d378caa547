//! The expressions of a rule, one by one, as the kernel has them.

use netlink_packet_netfilter::nftables::{MetaKey, Operator};

use crate::netfilter::link::Attributes;

/// More than a rule can have.
const MOST: usize = 256;
/// Registers are counted in units of four bytes.
const UNIT: usize = 4;
/// `NFT_CT_ZONE`.
const CT_ZONE: u32 = 17;

#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    /// Something of the packet goes into a register.
    Load {
        into: usize,
        what: Source,
    },
    /// What a register holds is changed: `(it & mask) ^ xor`.
    Mask {
        from: usize,
        into: usize,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// A register gets a value of the rule itself.
    Constant {
        into: usize,
        value: Vec<u8>,
    },
    /// The packet's connection gets the conntrack zone that a register holds.
    SetZone {
        from: usize,
        direction: Option<ZoneDirection>,
    },
    /// A register gets something that can't be followed.
    Overwrite {
        into: usize,
        by: String,
    },
    Compare {
        from: usize,
        operator: Operator,
        value: Vec<u8>,
    },
    Range {
        from: usize,
        not: bool,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    Lookup {
        from: usize,
        set: String,
        not: bool,
    },
    /// The set says what to do.
    Choose {
        from: usize,
        map: String,
    },
    Do(RuleVerdict),
    /// Packets and bytes.
    Counter(u64, u64),
    /// An object of the table is used: its kind in nft's words, and its name.
    Object(&'static str, String),
    NoTrack,
    /// In nft's words; `None`: by an ICMP error.
    Reject(Option<&'static str>),
    /// The packet is written down, with this before it.
    Log(String),
    /// Elements are put in a set, or taken from it.
    Change(String),
    /// An extension of iptables.
    Match(Extension),
    Target(Extension),
    /// The expression's name; for those that translate, nft's word for what they do.
    Other(String),
}

/// The direction of a connection that a conntrack zone is for, where it is not for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZoneDirection {
    Original,
    Reply,
}

impl ZoneDirection {
    /// nft's word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reply => "reply",
        }
    }
}

/// What is loaded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Meta(MetaKey),
    /// The key's number.
    Conntrack(u32),
    /// The type of the destination address, in the routing tables.
    DestinationType,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RuleVerdict {
    Accept,
    Drop,
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

impl RuleVerdict {
    /// Of data, which may be a verdict.
    pub(super) fn of(data: Attributes<'_>) -> Option<Self> {
        let verdict = data.get(2).map(Attributes)?;
        let chain = || verdict.text(2);
        Some(match verdict.number(1)?.cast_signed() {
            0 => Self::Drop,
            1 => Self::Accept,
            3 => Self::Queue,
            -1 | -2 => Self::Continue,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            _ => return None,
        })
    }
}

#[derive(Debug, PartialEq)]
pub(in crate::netfilter::rules) struct Extension {
    pub(in crate::netfilter::rules) name: String,
    pub(in crate::netfilter::rules) revision: u32,
    pub(in crate::netfilter::rules) options: Vec<u8>,
}

pub(super) fn expressions(list: Attributes<'_>) -> Vec<Expression> {
    let list = list.iter().take(MOST);
    list.map(|(_, expression)| {
        let expression = Attributes(expression);
        let name = expression.text(1).unwrap_or_default();
        let known = known(&name, expression.within(2));
        known.unwrap_or_else(|| unknown(name, expression.within(2)))
    })
    .collect()
}

/// What isn't understood may still be known to write to a register.
fn unknown(name: String, attributes: Attributes<'_>) -> Expression {
    // The attribute that names the register written to.
    let kind = match name.as_str() {
        "payload" | "meta" | "ct" | "rt" | "osf" | "exthdr" | "fib" | "xfrm" | "numgen" => 1,
        "byteorder" | "bitwise" | "hash" | "socket" | "tunnel" => 2,
        "lookup" => 3,
        _ => return Expression::Other(name),
    };
    match slot(attributes, kind) {
        Some(into) => Expression::Overwrite { into, by: name },
        None => Expression::Other(name),
    }
}

/// Where a register begins. The kernel has two ways of counting: four of 16 bytes, or 16 of four.
fn slot(attributes: Attributes<'_>, kind: u16) -> Option<usize> {
    let number = usize::try_from(attributes.number(kind)?).ok()?;
    match number {
        1..=4 => Some((number - 1) * UNIT),
        8..=23 => Some(number - 8),
        _ => None,
    }
}

fn known(name: &str, expression: Attributes<'_>) -> Option<Expression> {
    let number = |kind| expression.number(kind);
    let slot = |kind| slot(expression, kind);
    let data = |kind| expression.within(kind).get(1).map(<[u8]>::to_vec);
    Some(match name {
        "payload" => match slot(1) {
            Some(into) => load(
                into,
                Source::Payload {
                    base: number(2)?,
                    offset: number(3)?,
                    length: number(4)?,
                },
            ),
            None => Expression::Other("mangle".to_owned()),
        },
        "meta" => match slot(1) {
            Some(into) => load(into, Source::Meta(number(2)?.into())),
            None => Expression::Other("mangle".to_owned()),
        },
        // Of one direction, it may be anything.
        "ct" => match slot(1) {
            Some(into) if expression.get(3).is_none() => load(into, Source::Conntrack(number(2)?)),
            Some(_) => return None,
            None if number(2) == Some(CT_ZONE) => Expression::SetZone {
                from: slot(4)?,
                direction: match expression.get(3) {
                    None => None,
                    Some([0]) => Some(ZoneDirection::Original),
                    Some([1]) => Some(ZoneDirection::Reply),
                    Some(_) => return None,
                },
            },
            None => Expression::Other("mangle".to_owned()),
        },
        // RESULT is the type, FLAGS are the destination address alone.
        "fib" if number(2) == Some(3) && number(3) == Some(2) => load(slot(1)?, Source::DestinationType),
        // OP 0 is mask and xor, as all were before 5.6.
        "bitwise" if number(6).unwrap_or(0) == 0 => Expression::Mask {
            from: slot(1)?,
            into: slot(2)?,
            mask: data(4)?,
            xor: data(5)?,
        },
        "cmp" => Expression::Compare {
            from: slot(1)?,
            operator: number(2)?.into(),
            value: data(3)?,
        },
        "range" => Expression::Range {
            from: slot(1)?,
            not: match number(2)? {
                0 => false,
                1 => true,
                _ => return None,
            },
            first: data(3)?,
            last: data(4)?,
        },
        "lookup" => lookup(expression)?,
        "immediate" => match (number(1)?, slot(1)) {
            (0, _) => Expression::Do(RuleVerdict::of(expression.within(2))?),
            (_, Some(into)) => Expression::Constant {
                into,
                value: data(2)?,
            },
            (_, None) => return None,
        },
        "counter" => Expression::Counter(expression.long(2)?, expression.long(1)?),
        "objref" => Expression::Object(object(number(1)?)?, expression.text(2)?),
        "notrack" => Expression::NoTrack,
        // TYPE 1 is a TCP RST.
        "reject" => Expression::Reject((number(1) == Some(1)).then_some("tcp reset")),
        // With a prefix alone: LEVEL 4 is the one that it has if none is said.
        "log" if expression.get(2).is_some() && number(5).is_none_or(|level| level == 4) => {
            Expression::Log(expression.text(2)?)
        }
        "dynset" => Expression::Change(expression.text(1)?),
        "match" => Expression::Match(extension(expression)?),
        "target" => Expression::Target(extension(expression)?),
        "nat" => Expression::Other(if number(1)? == 0 { "snat" } else { "dnat" }.to_owned()),
        "masq" => Expression::Other("masquerade".to_owned()),
        "redir" => Expression::Other("redirect".to_owned()),
        "connlimit" => Expression::Other("ct count".to_owned()),
        "flow_offload" => Expression::Other("flow".to_owned()),
        _ => return None,
    })
}

/// The kind of an object, as nft writes it (`NFT_OBJECT_…`).
fn object(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "counter",
        2 => "quota",
        3 => "ct helper",
        4 => "limit",
        7 => "ct timeout",
        8 => "secmark",
        9 => "ct expectation",
        _ => return None,
    })
}

fn load(into: usize, what: Source) -> Expression {
    Expression::Load { into, what }
}

fn lookup(lookup: Attributes<'_>) -> Option<Expression> {
    let from = slot(lookup, 2)?;
    let set = lookup.text(1)?;
    match lookup.number(3) {
        None => Some(Expression::Lookup {
            from,
            set,
            not: lookup.number(5).is_some_and(|flags| flags & 1 != 0),
        }),
        // The register of verdicts.
        Some(0) => Some(Expression::Choose { from, map: set }),
        Some(_) => None,
    }
}

fn extension(extension: Attributes<'_>) -> Option<Extension> {
    Some(Extension {
        name: extension.text(1)?,
        revision: extension.number(2).unwrap_or_default(),
        options: extension.get(3).unwrap_or_default().to_vec(),
    })
}
