"""The hash tree of the XRP Ledger ("SHAMap"): a trie of 16 branches over keys of 32 bytes, with one hash at its root.

A ledger's header holds two such roots, over its transactions and over its state. The shape follows from the keys
alone: an inner node wherever two keys part, a leaf where only one is left. Source: xrpl.org "Ledger Data Formats",
`rippled`'s `SHAMap`.
"""

from typing import Final

from isthmus.ledgers.xrp.hashes import HASH_BYTES, sha512_half

TRANSACTION_LEAF: Final = b"SND\0"
STATE_LEAF: Final = b"MLN\0"
_INNER: Final = b"MIN\0"
_BRANCHES: Final = 16
_EMPTY: Final = bytes(HASH_BYTES)


class _Leaf:
    __slots__ = ("hash", "key")

    def __init__(self, key: bytes, leaf_hash: bytes) -> None:
        self.key = key
        self.hash = leaf_hash


class _Inner:
    __slots__ = ("branches", "known")

    def __init__(self) -> None:
        self.branches: list[_Inner | _Leaf | None] = [None] * _BRANCHES
        self.known: bytes | None = None  # the hash, until something below changes

    def hash(self) -> bytes:
        if self.known is None:
            parts = (_EMPTY if each is None else _hash(each) for each in self.branches)
            self.known = sha512_half(_INNER, *parts)
        return self.known


def _hash(node: _Inner | _Leaf) -> bytes:
    return node.hash if isinstance(node, _Leaf) else node.hash()


def _nibble(key: bytes, depth: int) -> int:
    byte = key[depth // 2]
    return byte & 15 if depth % 2 else byte >> 4


class HashTree:
    """A tree that changes key by key. Its root costs the hashes of what changed, and of the way up."""

    def __init__(self, leaf_prefix: bytes) -> None:
        self._prefix = leaf_prefix
        self._root = _Inner()

    def put(self, key: bytes, data: bytes) -> None:
        """Set what is kept under a key of 32 bytes."""
        assert len(key) == HASH_BYTES
        leaf = _Leaf(key, sha512_half(self._prefix, data, key))
        node, depth = self._root, 0
        while True:
            node.known = None
            branch = _nibble(key, depth)
            below = node.branches[branch]
            depth += 1
            if below is None or (isinstance(below, _Leaf) and below.key == key):
                node.branches[branch] = leaf
                return
            if isinstance(below, _Leaf):
                parted = _Inner()
                parted.branches[_nibble(below.key, depth)] = below
                node.branches[branch] = below = parted
            node = below

    def remove(self, key: bytes) -> None:
        """Take away a key that is there."""
        path: list[tuple[_Inner, int]] = []
        node = self._root
        while True:
            branch = _nibble(key, len(path))
            path.append((node, branch))
            below = node.branches[branch]
            assert below is not None, "no such key in the tree"
            if isinstance(below, _Leaf):
                assert below.key == key, "no such key in the tree"
                break
            node = below
        left: _Inner | _Leaf | None = None
        for node, branch in reversed(path):
            node.known = None
            node.branches[branch] = left
            present = [each for each in node.branches if each is not None]
            # A leaf that is alone moves up, to where it would be had the other never been there.
            alone = len(present) == 1 and isinstance(present[0], _Leaf)
            left = present[0] if alone else node if present else None

    def root(self) -> bytes:
        """32 bytes; zeros for an empty tree."""
        return self._root.hash() if any(each is not None for each in self._root.branches) else _EMPTY
