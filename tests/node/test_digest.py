"""Replay equals live: a running node's digest of its books, and what `isthmus books verify` says of the same batch."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill, Reject


async def digest_of(node: Any) -> tuple[int, str]:
    status, _, body = await node.get("/books/digest")
    assert status == 200, body
    told = json.loads(body)
    return told["sequence"], told["digest"]


async def verify(node: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """`isthmus books verify` beside the node."""
    command = [sys.executable, "-m", "isthmus", "books", "verify", str(node.folder / "data"), *options]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
async def test_a_digest_under_load_is_what_replay_gives(nodes: Any, two: str, peer: Any) -> None:
    """Issue 4, part 7: in the middle of packets both ways, some of them open, some refused."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    count = 0

    def answer(inbound: Any) -> None:
        nonlocal count
        count += 1
        if count % 5 == 0:
            bob.reject(inbound)
        elif count % 5 != 1:  # that one stays open
            bob.fulfil(inbound)

    bob.answer = answer
    alice.fulfil_all()
    digests: dict[int, str] = {}
    open_legs = []
    for _ in range(12):
        answers = [alice.prepare("test.node.bob.x", 10 + number) for number in range(50)]
        answers += [bob.prepare("test.node.alice.x", 20) for _ in range(20)]
        # While they are on their way, and several at once.
        for sequence, digest in await asyncio.gather(*(digest_of(node) for _ in range(3))):
            assert digests.setdefault(sequence, digest) == digest
        open_legs.append(sum(each["packets_in_flight"] for each in (await node.accounts()).values()))
        async with asyncio.timeout(60):
            await asyncio.wait(answers[50:])
    assert len(digests) > 3 and max(open_legs) > 20
    for sequence, digest in digests.items():
        done = await verify(node, "--at", str(sequence), "--digest", digest)
        assert done.returncode == 0, done.stderr
    sequence, digest = await digest_of(node)
    assert sequence >= max(digests)
    # The same of the journal of a node that was killed there.
    await node.kill()
    done = await verify(node, "--at", str(sequence), "--digest", digest, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == digest


async def test_a_doctored_digest_is_refused(nodes: Any, two: str, peer: Any) -> None:
    """`isthmus books verify --digest` names both, in one line, with status 1."""
    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    sequence, digest = await digest_of(node)
    doctored = ("0" if digest[0] != "0" else "1") + digest[1:]
    done = await verify(node, "--at", str(sequence), "--digest", doctored)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"after batch {sequence} the books have digest {digest} by replay, not {doctored}" in done.stderr
    # A right digest, of another batch.
    assert isinstance(await alice.pay("test.node.bob.x", 1), Fulfill)
    assert (await verify(node, "--digest", digest)).returncode == 1
    assert (await verify(node, "--at", str(sequence), "--digest", digest.upper())).returncode == 0


async def test_a_digest_needs_the_token_and_a_batch_that_is_there(nodes: Any, two: str) -> None:
    node = await nodes.run(two)
    assert (await node.get("/books/digest", token=None))[0] == 401
    assert (await node.get("/books/digest", method="POST"))[0] == 405
    sequence, digest = await digest_of(node)
    for options, says in (
        (["--at", str(sequence + 1_000)], "can't be replayed. Give a batch from 0 to"),
        (["--digest", digest[:-1]], "this is no digest"),
        (["--at", "-1"], "is not in the range"),
    ):
        done = await verify(node, *options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert says in done.stderr
    assert (await verify(node, "--at", "0")).returncode == 0


async def test_a_node_without_packets_gives_its_digest_at_once(nodes: Any, two: str, peer: Any) -> None:
    """Nothing is appended for it: the question leaves no trace in the books."""
    node = await nodes.run(two)
    alice = await peer(node, "alice")
    assert isinstance(await alice.pay("test.node.bob.x", 700), Reject)
    async with asyncio.timeout(60):
        while await digest_of(node) != await digest_of(node):
            pass  # what is kept of the packet was on its way to the disk; were each question kept, it would never end
