//! A discrimination tree of patterns: the time to find those that a name matches depends on what these
//! have in common with the name, and not on how many other patterns there are.
//!
//! A pattern is a path from the root, with a step for each part that [`Reader`] gives. Steps without a
//! branch between them stand together in one node, so a pattern takes about as many nodes as it has
//! variables.

use crate::name::{Reader, tag};
use ahash::RandomState;
use std::collections::HashMap;

/// Patterns, each with an `L`.
pub(super) struct Patterns<L> {
    root: Node<L>,
    hasher: RandomState,
}

struct Node<L> {
    /// The parts on the path behind the step that leads to this node. None is a variable.
    label: Box<[u8]>,
    /// What belongs to the pattern that ends here.
    leaf: Option<L>,
    /// The node behind a variable that stands for any term.
    any: Option<Box<Node<L>>>,
    /// The node behind a variable that stands for the rest of a list.
    tail: Option<Box<Node<L>>>,
    /// The nodes behind parts.
    parts: Branches<L>,
}

/// The next step of a pattern, and how many bytes it takes.
enum Step {
    Any(usize),
    Tail(usize),
    Part(usize),
}

fn step(pattern: &[u8]) -> Step {
    match pattern {
        [tag::ANY, ..] => Step::Any(1),
        [tag::TAIL, tag::ANY, ..] => Step::Tail(2),
        _ => {
            // Bytes that are no part are taken as a part that no name has.
            let step = Reader::new(pattern).step();
            Step::Part(step.map_or(pattern.len(), <[u8]>::len))
        }
    }
}

/// What the pattern has before its first variable: every name that matches it begins so.
pub(super) fn beginning(pattern: &[u8]) -> &[u8] {
    &pattern[..parts(pattern, pattern.len())]
}

/// How many bytes the steps before the first variable take, of those that end within the first
/// `limit` bytes.
fn parts(pattern: &[u8], limit: usize) -> usize {
    let mut end = 0;
    while end < limit {
        match step(&pattern[end..]) {
            Step::Part(len) if end + len <= limit => end += len,
            _ => break,
        }
    }
    end
}

impl<L> Node<L> {
    /// A node for a pattern that goes on with these bytes.
    fn before(pattern: &[u8]) -> Self {
        Self {
            label: beginning(pattern).into(),
            leaf: None,
            any: None,
            tail: None,
            parts: Branches::new(),
        }
    }

    /// Divides the node after this many bytes of its label, which are whole parts.
    fn split(&mut self, at: usize, hasher: &RandomState) {
        let rest = self.label[at..].to_vec();
        let (Step::Any(len) | Step::Tail(len) | Step::Part(len)) = step(&rest);
        let lower = Self {
            label: rest[len..].into(),
            leaf: self.leaf.take(),
            any: self.any.take(),
            tail: self.tail.take(),
            parts: std::mem::replace(&mut self.parts, Branches::new()),
        };
        self.label = self.label[..at].into();
        self.parts.put(&rest[..len], Box::new(lower), hasher);
    }

    /// Merges the node with the one behind it, if there is only one and no pattern ends here.
    fn join(&mut self) {
        if self.leaf.is_some() || self.any.is_some() || self.tail.is_some() || self.parts.len != 1 {
            return;
        }
        if let Some((part, lower)) = self.parts.take_all().next() {
            let label = [&self.label, &part, &lower.label].map(|bytes| &bytes[..]);
            let label = label.concat().into();
            let mut lower = *lower;
            *self = Self {
                label,
                leaf: lower.leaf.take(),
                any: lower.any.take(),
                tail: lower.tail.take(),
                parts: std::mem::replace(&mut lower.parts, Branches::new()),
            };
        }
    }

    /// Where the name goes on behind the label, if the name has the label there.
    #[inline]
    fn behind_label(&self, name: &[u8], from: usize) -> Option<usize> {
        let stands = name[from..].starts_with(&self.label);
        stands.then_some(from + self.label.len())
    }

    /// Whether the pattern that ends here has nothing behind its last variable. What the variable
    /// stands for is then the rest of every name that has come this far: both have the same terms open.
    #[inline]
    fn is_last(&self) -> bool {
        self.leaf.is_some() && self.label.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.leaf.is_none() && self.any.is_none() && self.tail.is_none() && self.parts.len == 0
    }

    fn branches(&self) -> usize {
        usize::from(self.leaf.is_some())
            + usize::from(self.any.is_some())
            + usize::from(self.tail.is_some())
            + self.parts.len
    }

    fn take_branches(&mut self) -> impl Iterator<Item = Box<Node<L>>> + use<L> {
        let parts = self.parts.take_all().map(|(_, node)| node);
        let variables = self.any.take().into_iter().chain(self.tail.take());
        parts.chain(variables)
    }

    fn branch(&mut self, step: &Step, bytes: &[u8], hasher: &RandomState) -> Option<&mut Self> {
        match step {
            Step::Any(_) => self.any.as_deref_mut(),
            Step::Tail(_) => self.tail.as_deref_mut(),
            Step::Part(_) => self.parts.get_mut(bytes, hasher),
        }
    }
}

impl<L> Patterns<L> {
    pub(super) fn new() -> Self {
        Self {
            root: Node::before(&[]),
            hasher: RandomState::new(),
        }
    }

    /// What belongs to the pattern; made now if there is nothing.
    pub(super) fn entry(&mut self, pattern: &[u8], make: impl FnOnce() -> L) -> &mut L {
        let hasher = &self.hasher;
        if self.root.is_empty() {
            // The root has a label, too: if all patterns begin alike, one comparison rules out most
            // names.
            self.root = Node::before(pattern);
        }
        let mut node = &mut self.root;
        let mut rest = pattern;
        loop {
            let same = node.label.iter().zip(rest).take_while(|(a, b)| a == b);
            let same = parts(rest, same.count());
            if same < node.label.len() {
                node.split(same, hasher);
            }
            rest = &rest[same..];
            if rest.is_empty() {
                return node.leaf.get_or_insert_with(make);
            }
            let step = step(rest);
            let (Step::Any(len) | Step::Tail(len) | Step::Part(len)) = step;
            let (here, after) = rest.split_at(len);
            let lower = || Box::new(Node::before(after));
            node = match step {
                Step::Any(_) => node.any.get_or_insert_with(lower),
                Step::Tail(_) => node.tail.get_or_insert_with(lower),
                Step::Part(_) => node.parts.get_or_put(here, lower, hasher),
            };
            rest = after;
        }
    }

    /// Calls `f` with what belongs to the pattern; removes the pattern if the answer is `true`.
    pub(super) fn remove_if(&mut self, pattern: &[u8], f: impl FnOnce(&mut L) -> bool) {
        let hasher = &self.hasher;
        // The steps from node to node, and the depth of the last node that stays: one with another
        // branch.
        let mut steps = Vec::new();
        let mut stays = 0;
        let mut node = &mut self.root;
        let mut rest = pattern;
        loop {
            let Some(below) = rest.strip_prefix(&*node.label) else {
                return;
            };
            if below.is_empty() {
                break;
            }
            if node.branches() > 1 {
                stays = steps.len();
            }
            let step = step(below);
            let (Step::Any(len) | Step::Tail(len) | Step::Part(len)) = step;
            let (here, after) = below.split_at(len);
            let Some(lower) = node.branch(&step, here, hasher) else {
                return;
            };
            steps.push((step, here));
            node = lower;
            rest = after;
        }
        let Some(leaf) = &mut node.leaf else {
            return;
        };
        if !f(leaf) {
            return;
        }
        node.leaf = None;
        if !node.is_empty() {
            node.join();
            return;
        }
        let mut node = &mut self.root;
        for (step, here) in &steps[..stays] {
            let Some(lower) = node.branch(step, here, hasher) else {
                return;
            };
            node = lower;
        }
        let Some((step, here)) = steps.get(stays) else {
            // The pattern ended in the root.
            return;
        };
        let cut = match step {
            Step::Any(_) => node.any.take(),
            Step::Tail(_) => node.tail.take(),
            Step::Part(_) => node.parts.remove(here, hasher),
        };
        cut.map(|node| *node).into_iter().for_each(fell);
        node.join();
    }

    /// Calls `f` with what belongs to each pattern that the name matches.
    pub(super) fn matching<'p>(&'p self, name: &[u8], mut f: impl FnMut(&'p L)) {
        let mut ends = Ends::new(name, &self.hasher);
        let mut places = vec![(&self.root, 0)];
        while let Some((node, from)) = places.pop() {
            let Some(at) = node.behind_label(name, from) else {
                continue;
            };
            if at == name.len() {
                node.leaf.iter().for_each(&mut f);
                continue;
            }
            if let Some(lower) = &node.any {
                if lower.is_last() {
                    places.push((lower, name.len()));
                } else if let Some(end) = ends.any(at) {
                    places.push((lower, end));
                }
            }
            if let Some(lower) = &node.tail {
                if lower.is_last() {
                    places.push((lower, name.len()));
                } else if let Some(end) = ends.tail(at) {
                    places.push((lower, end));
                }
            }
            places.extend(self.part(node, name, at));
        }
    }

    /// Whether the name matches a pattern; also `true` if it would take long to find out. Every change
    /// of a name asks this, so for most names it takes a few steps and no allocation.
    #[inline]
    pub(super) fn may_match(&self, name: &[u8]) -> bool {
        match self.root.behind_label(name, 0) {
            Some(at) => self.may_match_from(name, at),
            None => false,
        }
    }

    fn may_match_from(&self, name: &[u8], at: usize) -> bool {
        // A few times the work of writing the name. Each variable may pass over all of it.
        let mut left = 1_024 + 4 * name.len();
        let (mut node, mut at) = (&self.root, at);
        // Nodes whose labels the name has, and where it goes on behind these.
        let mut others = Vec::new();
        loop {
            if at == name.len() && node.leaf.is_some() {
                return true;
            }
            let last = |lower: &Option<Box<Node<L>>>| lower.as_ref().is_some_and(|it| it.is_last());
            if last(&node.any) || last(&node.tail) {
                return true;
            }
            let mut cost = 16;
            let mut next = None;
            if let Some((lower, end)) = self.part(node, name, at) {
                next = lower.behind_label(name, end).map(|at| (lower, at));
            }
            let any = node.any.as_deref().map(|lower| (lower, any_end(name, at)));
            let tail = node
                .tail
                .as_deref()
                .map(|lower| (lower, tail_end(name, at)));
            for (lower, end) in any.into_iter().chain(tail) {
                let Some(end) = end else { continue };
                cost += end - at;
                if let Some(at) = lower.behind_label(name, end) {
                    others.extend(next.replace((lower, at)));
                }
            }
            let Some(rest) = left.checked_sub(cost) else {
                return true;
            };
            left = rest;
            match next.or_else(|| others.pop()) {
                Some(next) => (node, at) = next,
                None => return false,
            }
        }
    }

    /// The node behind the next part of the name.
    #[inline]
    fn part<'p>(&self, node: &'p Node<L>, name: &[u8], at: usize) -> Option<(&'p Node<L>, usize)> {
        if node.parts.len == 0 {
            return None;
        }
        let part = Reader::new(&name[at..]).step()?;
        Some((node.parts.get(part, &self.hasher)?, at + part.len()))
    }
}

impl<L> Drop for Patterns<L> {
    fn drop(&mut self) {
        fell(std::mem::replace(&mut self.root, Node::before(&[])));
    }
}

/// Drops a node and all nodes below it. The destructor that the compiler makes would call itself for
/// each level, and a pattern may have thousands.
fn fell<L>(node: Node<L>) {
    let mut nodes = vec![Box::new(node)];
    while let Some(mut node) = nodes.pop() {
        nodes.extend(node.take_branches());
    }
}

fn any_end(name: &[u8], at: usize) -> Option<usize> {
    let mut reader = Reader::new(&name[at..]);
    reader.pass()?;
    Some(name.len() - reader.rest().len())
}

fn tail_end(name: &[u8], at: usize) -> Option<usize> {
    let mut reader = Reader::new(&name[at..]);
    reader.pass_rest()?;
    Some(name.len() - reader.rest().len())
}

/// Where terms of the name end. Several paths may come to one place of the name, and passing over a
/// long term each time would take long.
struct Ends<'n> {
    name: &'n [u8],
    any: HashMap<usize, Option<usize>, RandomState>,
    tail: HashMap<usize, Option<usize>, RandomState>,
}

impl<'n> Ends<'n> {
    /// Passing over a shorter term is faster than looking it up.
    const SHORT: usize = 64;

    fn new(name: &'n [u8], hasher: &RandomState) -> Self {
        // Allocates nothing before the first entry.
        Self {
            name,
            any: HashMap::with_hasher(hasher.clone()),
            tail: HashMap::with_hasher(hasher.clone()),
        }
    }

    fn any(&mut self, at: usize) -> Option<usize> {
        let name = self.name;
        if name.len() - at <= Self::SHORT {
            return any_end(name, at);
        }
        *self.any.entry(at).or_insert_with(|| any_end(name, at))
    }

    fn tail(&mut self, at: usize) -> Option<usize> {
        let name = self.name;
        if name.len() - at <= Self::SHORT {
            return tail_end(name, at);
        }
        *self.tail.entry(at).or_insert_with(|| tail_end(name, at))
    }
}

type Map<L> = HashMap<Box<[u8]>, Box<Node<L>>, RandomState>;

/// A map from parts to nodes. A large one is divided into maps that grow one by one: growing a map of a
/// million entries takes long, and changes of names cannot read the patterns meanwhile.
struct Branches<L> {
    maps: Vec<Map<L>>,
    len: usize,
}

impl<L> Branches<L> {
    /// The most entries of a map that is not divided.
    const FEW: usize = 1_024;
    const MAPS: usize = 64;

    fn new() -> Self {
        Self {
            maps: Vec::new(),
            len: 0,
        }
    }

    fn map_of(&self, part: &[u8], hasher: &RandomState) -> usize {
        if self.maps.len() <= 1 {
            return 0;
        }
        // Bits that the map itself hardly uses.
        (hasher.hash_one(part) >> 32) as usize % self.maps.len()
    }

    fn get(&self, part: &[u8], hasher: &RandomState) -> Option<&Node<L>> {
        let map = self.maps.get(self.map_of(part, hasher))?;
        map.get(part).map(|node| &**node)
    }

    fn get_mut(&mut self, part: &[u8], hasher: &RandomState) -> Option<&mut Node<L>> {
        let at = self.map_of(part, hasher);
        self.maps.get_mut(at)?.get_mut(part).map(|node| &mut **node)
    }

    fn get_or_put(
        &mut self,
        part: &[u8],
        make: impl FnOnce() -> Box<Node<L>>,
        hasher: &RandomState,
    ) -> &mut Node<L> {
        if self.get(part, hasher).is_none() {
            self.put(part, make(), hasher);
        }
        self.get_mut(part, hasher)
            .unwrap_or_else(|| unreachable!("it has just been put there"))
    }

    fn put(&mut self, part: &[u8], node: Box<Node<L>>, hasher: &RandomState) {
        if self.maps.is_empty() {
            self.maps.push(HashMap::with_hasher(hasher.clone()));
        } else if self.maps.len() == 1 && self.len == Self::FEW {
            let few = std::mem::take(&mut self.maps);
            self.maps = (0..Self::MAPS)
                .map(|_| HashMap::with_hasher(hasher.clone()))
                .collect();
            for (part, node) in few.into_iter().flatten() {
                let at = self.map_of(&part, hasher);
                self.maps[at].insert(part, node);
            }
        }
        self.len += 1;
        let at = self.map_of(part, hasher);
        self.maps[at].insert(part.into(), node);
    }

    fn remove(&mut self, part: &[u8], hasher: &RandomState) -> Option<Box<Node<L>>> {
        let at = self.map_of(part, hasher);
        let removed = self.maps.get_mut(at)?.remove(part)?;
        self.len -= 1;
        if self.len == 0 {
            self.maps = Vec::new();
        }
        Some(removed)
    }

    fn take_all(&mut self) -> impl Iterator<Item = (Box<[u8]>, Box<Node<L>>)> + use<L> {
        self.len = 0;
        std::mem::take(&mut self.maps).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Patterns, beginning};
    use crate::journal::sketch::Sketch;
    use crate::name::{Buffer, Encoder, NameError, matches};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A term of few different parts, so that many match, or a pattern.
    #[derive(Clone, Debug)]
    enum Tree {
        Any,
        Word(u8),
        Binary(u8),
        Tuple(Vec<Tree>),
        List(Vec<Tree>),
        /// With a last tail.
        Improper(Vec<Tree>, Box<Tree>),
        Map(Vec<Tree>),
    }

    impl Tree {
        fn write(&self, encoder: &mut Encoder<'_>) -> Result<(), NameError> {
            match self {
                Tree::Any => encoder.any(),
                Tree::Word(number) => encoder.word(u32::from(*number) << 4 | 0xF),
                Tree::Binary(size) => encoder.binary(&vec![1; usize::from(*size)]),
                Tree::Tuple(elements) => {
                    encoder.tuple(elements.len())?;
                    elements
                        .iter()
                        .try_for_each(|element| element.write(encoder))
                }
                Tree::List(elements) => {
                    if elements.is_empty() {
                        return encoder.nil();
                    }
                    encoder.list()?;
                    elements
                        .iter()
                        .try_for_each(|element| element.write(encoder))?;
                    encoder.list_end()
                }
                Tree::Improper(elements, tail) => {
                    encoder.list()?;
                    elements
                        .iter()
                        .try_for_each(|element| element.write(encoder))?;
                    encoder.list_tail()?;
                    tail.write(encoder)
                }
                Tree::Map(values) => {
                    let mut pairs = encoder.map(values.len())?;
                    for (key, value) in (0_u8..).zip(values) {
                        Tree::Word(key).write(encoder)?;
                        pairs.value(encoder);
                        value.write(encoder)?;
                        pairs.next(encoder);
                    }
                    encoder.map_end(pairs)
                }
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut buffer = Buffer::new();
            let mut encoder = Encoder::new(&mut buffer);
            self.write(&mut encoder).unwrap();
            encoder.finish().to_vec()
        }
    }

    fn tree(pattern: bool) -> impl Strategy<Value = Tree> {
        let variables = if pattern { 4 } else { 0 };
        let leaf = prop_oneof![
            variables => Just(Tree::Any),
            4 => (0..3_u8).prop_map(Tree::Word),
            1 => prop_oneof![Just(0_u8), Just(3), Just(70)].prop_map(Tree::Binary),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                4 => vec(inner.clone(), 0..4).prop_map(Tree::Tuple),
                3 => vec(inner.clone(), 0..4).prop_map(Tree::List),
                3 => (vec(inner.clone(), 1..3), inner.clone())
                    .prop_map(|(elements, tail)| Tree::Improper(elements, Box::new(tail))),
                1 => vec(inner, 0..3).prop_map(Tree::Map),
            ]
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Tree),
        Remove(usize),
        Match(Tree),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => tree(true).prop_map(Step::Put),
            2 => (0..64_usize).prop_map(Step::Remove),
            4 => tree(false).prop_map(Step::Match),
        ]
    }

    fn found(patterns: &Patterns<Vec<u8>>, name: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        patterns.matching(name, |pattern| found.push(pattern.clone()));
        found.sort();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// The tree finds what a search through all patterns finds, whatever was added and removed
        /// before, and the sketch of their beginnings excludes none of that.
        #[test]
        fn a_name_finds_the_patterns_that_it_matches(steps in vec(step(), 0..60)) {
            let mut patterns = Patterns::new();
            let sketch = Sketch::<64>::new();
            let mut all: Vec<Vec<u8>> = Vec::new();
            for step in steps {
                match step {
                    Step::Put(tree) => {
                        let pattern = tree.bytes();
                        let kept = patterns.entry(&pattern, || pattern.clone());
                        prop_assert_eq!(&*kept, &pattern);
                        if !all.contains(&pattern) {
                            sketch.add(beginning(&pattern));
                            all.push(pattern);
                        }
                    }
                    Step::Remove(at) if at < all.len() => {
                        let pattern = all.swap_remove(at);
                        patterns.remove_if(&pattern, |kept| *kept == pattern);
                        sketch.remove(beginning(&pattern));
                    }
                    Step::Remove(_) => patterns.remove_if(&[0xFE], |_| true),
                    Step::Match(tree) => {
                        let name = tree.bytes();
                        let mut expected: Vec<_> =
                            all.iter().filter(|pattern| matches(pattern, &name)).cloned().collect();
                        expected.sort();
                        prop_assert_eq!(patterns.may_match(&name), !expected.is_empty());
                        prop_assert!(expected.is_empty() || sketch.may_match(&name));
                        prop_assert!(!all.is_empty() || !sketch.may_match(&name));
                        prop_assert_eq!(found(&patterns, &name), expected);
                    }
                }
            }
            // Nothing is left of patterns that have gone.
            for pattern in all {
                patterns.remove_if(&pattern, |_| true);
            }
            prop_assert!(patterns.root.is_empty());
        }
    }

    fn write(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), NameError>) -> Vec<u8> {
        let mut buffer = Buffer::new();
        let mut encoder = Encoder::new(&mut buffer);
        write(&mut encoder).unwrap();
        encoder.finish().to_vec()
    }

    /// `{number, :_}`
    fn of_number(number: i64) -> Vec<u8> {
        write(|encoder| {
            encoder.tuple(2)?;
            encoder.integer(number)?;
            encoder.any()
        })
    }

    #[test]
    fn a_hundred_thousand_patterns_are_found_and_go() {
        let mut patterns = Patterns::new();
        for number in 0..100_000 {
            let pattern = of_number(number);
            patterns.entry(&pattern, || pattern.clone());
        }
        let name = write(|encoder| {
            encoder.tuple(2)?;
            encoder.integer(70_000)?;
            encoder.word(0xF)
        });
        assert_eq!(found(&patterns, &name), [of_number(70_000)]);
        for number in 0..100_000 {
            patterns.remove_if(&of_number(number), |_| true);
        }
        assert!(patterns.root.is_empty());
    }

    #[test]
    fn a_pattern_of_thousands_of_variables_comes_and_goes_on_a_small_stack() {
        let pattern = write(|encoder| {
            encoder.list()?;
            for number in 0..8_000 {
                if number % 2 == 0 {
                    encoder.any()?;
                } else {
                    encoder.word(0xF)?;
                }
            }
            encoder.list_end()
        });
        let thread = std::thread::Builder::new().stack_size(64 * 1024);
        let run = move || {
            let mut patterns = Patterns::new();
            patterns.entry(&pattern, || pattern.clone());
            patterns.remove_if(&pattern, |_| true);
            assert!(patterns.root.is_empty());
            patterns.entry(&pattern, || pattern.clone());
        };
        thread.spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn a_name_that_would_take_long_may_match() {
        // Every list of `:_` and 1, and then something that no name has: a name of ones takes all paths.
        let mut patterns = Patterns::new();
        for ways in 0..1_024_u32 {
            let pattern = write(|encoder| {
                encoder.tuple(11)?;
                for bit in 0..10 {
                    if ways >> bit & 1 == 1 {
                        encoder.any()?;
                    } else {
                        encoder.word(0x1F)?;
                    }
                }
                encoder.word(0x2F)
            });
            patterns.entry(&pattern, || pattern.clone());
        }
        let name = write(|encoder| {
            encoder.tuple(11)?;
            (0..11).try_for_each(|_| encoder.word(0x1F))
        });
        assert!(patterns.may_match(&name));
        assert!(found(&patterns, &name).is_empty());
    }
}
