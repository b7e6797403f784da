"""The hash tree: its shape follows from the keys alone, however they came and went."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.ledgers.xrp.hashes import sha512_half
from isthmus.ledgers.xrp.shamap import STATE_LEAF, HashTree

# Keys that part early and late.
KEYS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 600).map(lambda number: number.to_bytes(32, "big")),
    st.integers(0, 20).map(lambda number: number.to_bytes(2, "big") + bytes(30)),
)


def root_of(items: dict[bytes, bytes]) -> bytes:
    """As the definition has it, from all items at once."""

    def node(keys: list[bytes], depth: int) -> bytes:
        if not keys:
            return bytes(32)
        if len(keys) == 1 and depth > 0:
            return sha512_half(STATE_LEAF, items[keys[0]], keys[0])
        branches: list[list[bytes]] = [[] for _ in range(16)]
        for key in keys:
            branches[int(key.hex()[depth], 16)].append(key)
        return sha512_half(b"MIN\0", *(node(each, depth + 1) for each in branches))

    return node(sorted(items), 0)


@given(keys=st.lists(KEYS, min_size=1, max_size=12, unique=True), data=st.data())
def test_the_root_is_that_of_what_is_there(keys: list[bytes], data: st.DataObject) -> None:
    tree, items = HashTree(STATE_LEAF), dict[bytes, bytes]()
    for key, value in data.draw(st.lists(st.tuples(st.sampled_from(keys), st.binary(max_size=4)), max_size=40)):
        # The empty value stands for taking it away.
        if value:
            items[key] = value
            tree.put(key, value)
        elif key in items:
            del items[key]
            tree.remove(key)
        assert tree.root() == root_of(items)
    for key in data.draw(st.permutations(sorted(items))):
        del items[key]
        tree.remove(key)
        assert tree.root() == root_of(items)
    assert tree.root() == bytes(32)
