//! Names that sessions of other nodes hold, and the pids of their holders.

use crate::kept::Kept;
use crate::layout::PidNumbers;
use registry_core::epoch::Guard;
use registry_core::mirror::Mirror;
use rustler::{Encoder, Env, Term};
use smallvec::SmallVec;

/// All of them.
pub(crate) static MIRROR: Mirror<Node> = Mirror::new();

/// The bytes of the two numbers of a pid.
const NUMBERS: usize = 8;

/// A pid in external format takes less than this, unless the name of its node is long.
const USUAL: usize = 96;

/// How a pid of a session is built.
pub(crate) struct Node {
    /// A pid in external format, with the version.
    external: Box<[u8]>,
    /// Where its numbers begin.
    numbers: usize,
    /// One of its pids, and how to give a copy other numbers. To read the external format takes three times as
    /// long as to copy.
    copied: Option<(Kept, PidNumbers)>,
}

impl Node {
    /// `None` if that makes no pid.
    pub(crate) fn new(env: Env<'_>, prefix: &[u8], suffix: &[u8]) -> Option<Self> {
        let mut node = Self {
            external: [prefix, &[0; NUMBERS], suffix].concat().into(),
            numbers: prefix.len(),
            copied: None,
        };
        // Numbers that tell the ways apart in which they may lie.
        let samples = [0, 1, 1 << u32::BITS, 0x0ABC_DEF1_1234_5678];
        let pid = |numbers| Some((numbers, node.read(env, numbers)?));
        let pids: Vec<_> = samples.into_iter().map(pid).collect::<Option<_>>()?;
        if !pids.iter().all(|(_, pid)| pid.is_pid()) {
            return None;
        }
        let kept = Kept::new(None, (NUMBERS, pids[0].1).encode(env));
        node.copied = kept.zip(PidNumbers::learn(&pids));
        let same = |(numbers, pid)| node.copy(env, numbers) == Some(pid);
        if !pids.into_iter().all(same) {
            node.copied = None;
        }
        Some(node)
    }

    /// The pid with these numbers. `None` when the VM has no memory left.
    #[inline]
    pub(crate) fn pid<'a>(&self, env: Env<'a>, numbers: u64) -> Option<Term<'a>> {
        self.copy(env, numbers).or_else(|| self.read(env, numbers))
    }

    #[inline]
    fn copy<'a>(&self, env: Env<'a>, numbers: u64) -> Option<Term<'a>> {
        let (kept, way) = self.copied.as_ref()?;
        let pid = Kept::value(Some(kept), env)?;
        // SAFETY: `kept` is a pid of this node, and `pid` a copy that has just been made.
        unsafe { way.set(pid, numbers) }.then_some(pid)
    }

    fn read<'a>(&self, env: Env<'a>, numbers: u64) -> Option<Term<'a>> {
        let mut external = SmallVec::<[u8; USUAL]>::from_slice(&self.external);
        let place = external.get_mut(self.numbers..)?.first_chunk_mut()?;
        *place = numbers.to_be_bytes();
        env.binary_to_term(&external).map(|(term, _)| term)
    }
}

/// The pid of the holder of a name of the registry with this word.
#[inline]
pub(crate) fn whereis<'a>(
    env: Env<'a>,
    guard: &Guard,
    registry: u64,
    name: &[u8],
) -> Option<Term<'a>> {
    let (session, numbers) = MIRROR.names(guard, registry)?.holder(guard, name)?;
    MIRROR.session(guard, session)?.pid(env, numbers)
}
