"""The cache's audit: counts everything again from first principles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from drift_engine.cache.sequence import Sequence
from drift_engine.cache.tree import Node, PrefixTree


def check(pages_total: int, free: list[int], tree: PrefixTree, sequences: Iterable[Sequence]) -> None:
    """Raises AssertionError unless every page has one owner and every count agrees with what it counts."""
    problems: list[str] = []
    sequences = list(sequences)
    nodes = _nodes(tree, problems)
    references = Counter(id(node) for sequence in sequences for node in sequence.chain)
    references.update(id(sequence.root) for sequence in sequences)
    private = [
        page for sequence in sequences for page in _private_pages(sequence, tree.page_tokens, problems)
    ]

    owners = Counter(free)
    owners.update(node.page for node in nodes)
    owners.update(private)
    wrong = [page for page in range(pages_total) if owners[page] != 1]
    wrong += [page for page in owners if not 0 <= page < pages_total]
    if wrong:
        problems.append(f"pages without exactly one owner: {wrong[:8]}")

    counted = [*tree.roots.values(), *nodes]
    problems.extend(
        f"page {node.page}: {node.references} references, {references[id(node)]} sequences"
        for node in counted
        if node.references != references[id(node)]
    )
    if sum(references.values()) != sum(node.references for node in counted):
        problems.append("a sequence refers to a node outside the tree")

    idle = {node.page for node in nodes if node.references == 0}
    if idle != set(tree.idle):
        problems.append(f"idle pages {sorted(idle)[:8]} but listed {sorted(tree.idle)[:8]}")
    order = {page: rank for rank, page in enumerate(tree.idle)}
    for page, node in tree.idle.items():
        if any(order.get(child.page, pages_total) > order[page] for child in node.children.values()):
            problems.append(f"page {page} would be evicted before its children")
    if tree.nodes != len(nodes):
        problems.append(f"{tree.nodes} nodes counted, {len(nodes)} found")

    held = len(nodes) - len(idle) + len(private)
    if problems or len(free) + len(idle) + held != pages_total:
        counts = (
            f"{len(free)} free + {len(idle)} idle + {held} held ({len(private)} private) of {pages_total}"
        )
        raise AssertionError("; ".join([f"KV cache out of balance: {counts}", *problems]))


def _nodes(tree: PrefixTree, problems: list[str]) -> list[Node]:
    """Every node with a page, found from the roots."""
    found: list[Node] = []
    for salt, root in tree.roots.items():
        if root.parent is not None or root.block != salt.encode():
            problems.append(f"root {salt!r} is misfiled")
        if not root.children and not root.references:
            problems.append(f"root {salt!r} is kept for nobody")
        level = [root]
        while level:
            parent = level.pop()
            for block, child in parent.children.items():
                if child.parent is not parent or child.block != block or len(block) != 4 * tree.page_tokens:
                    problems.append(f"page {child.page} is misfiled")
                found.append(child)
                level.append(child)
    return found


def _private_pages(sequence: Sequence, page_tokens: int, problems: list[str]) -> list[int]:
    """Pages that the sequence alone owns; its chain must be a path from its root."""
    parent = sequence.root
    for index, node in enumerate(sequence.chain):
        if node.parent is not parent or sequence.pages[index : index + 1] != [node.page]:
            problems.append(f"page {node.page} is out of place in its sequence")
        parent = node
    if sequence.reserved_tokens != len(sequence.pages) * page_tokens:
        problems.append(f"{sequence.reserved_tokens} tokens reserved on {len(sequence.pages)} pages")
    full = len(sequence.chain) + len(sequence.pending)
    if full > len(sequence.pages):
        problems.append(f"{full} full blocks on {len(sequence.pages)} pages")
    return sequence.pages[len(sequence.chain) :]
