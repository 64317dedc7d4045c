//! The first bytes of terms. The two lowest bits of a first byte say what kind of byte it is.

/// What the two lowest bits are taken with.
pub const MASK: u8 = 0b11;
/// A tuple of up to 15 elements; its arity stands above the two bits, its elements follow.
pub const TUPLE: u8 = 0b00;
/// A binary of up to 63 bytes; its size stands above the two bits, its bytes follow.
pub const BINARY: u8 = 0b01;
/// One of the tags below.
pub const OTHER: u8 = 0b10;
/// The first of the four bytes of a short word, the lowest one; see `Encoder::word`.
pub const WORD: u8 = 0b11;

/// Eight bytes: a signed integer.
pub const INTEGER: u8 = other(0);
/// Eight bytes: an integer above `i64::MAX`.
pub const UNSIGNED: u8 = other(1);
/// Eight bytes: the word of the atom.
pub const ATOM: u8 = other(2);
/// Eight bytes: the word of a pid of this node.
pub const LOCAL_PID: u8 = other(3);
/// Eight bytes: the word of a port of this node.
pub const LOCAL_PORT: u8 = other(4);
/// Four bytes: the arity, from 16 up; then the elements.
pub const LONG_TUPLE: u8 = other(5);
/// Four bytes: the size, from 64 up; then the bytes.
pub const LONG_BINARY: u8 = other(6);
/// Sixteen bytes: what a binary stands for that is the text of a UUID in lower case.
pub const UUID: u8 = other(7);
/// Eight bytes: an IEEE 754 double.
pub const FLOAT: u8 = other(8);
/// The empty list.
pub const NIL: u8 = other(9);
/// Elements, then [`END`], or [`TAIL`] and a last tail.
pub const LIST: u8 = other(10);
/// Ends a proper list.
pub const END: u8 = other(11);
/// Ends the elements of an improper list; its last tail follows.
pub const TAIL: u8 = other(12);
/// Four bytes: the number of pairs; then key and value of each, by the order of the keys.
pub const MAP: u8 = other(13);
/// A positive integer of more than 64 bits; a binary follows, its magnitude.
pub const BIG: u8 = other(14);
/// A negative integer of more than 63 bits; a binary follows, its magnitude.
pub const NEGATIVE_BIG: u8 = other(15);
/// A bitstring: a byte that says how many bits of its last byte count, and a binary, which it
/// is when padded with zero bits.
pub const BITS: u8 = other(16);
/// A function with an environment; a list follows of what makes it equal to another.
pub const FUN: u8 = other(17);
/// `&Module.function/arity`; a list of the three follows.
pub const EXPORT: u8 = other(18);
/// A reference of this node; a binary follows, its numbers.
pub const LOCAL_REFERENCE: u8 = other(19);
/// A pid, port or reference of another node; a binary follows, its external format.
pub const REMOTE: u8 = other(20);
/// In a pattern: any term.
pub const ANY: u8 = other(21);

const fn other(number: u8) -> u8 {
    number << 2 | OTHER
}
