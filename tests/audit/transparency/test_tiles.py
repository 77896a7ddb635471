"""Tiles: their paths, their contents, and the tree that comes out of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.transparency.strict import Malformed
from app.audit.transparency.tiles import (
    Tile,
    TileNodes,
    entries_path,
    pack_entries,
    pack_hashes,
    parse_path,
    tile_path,
    tiles_of,
    unpack_entries,
    unpack_hashes,
)
from app.audit.transparency.tree import EMPTY_FRONTIER, consistency_proof, frontier_of, inclusion_proof, root_of
from tests.audit.transparency.logs import leaves, naive_path, naive_subproof, nodes, tile_nodes, tile_reader

LEAVES = leaves(700)

tiles = st.builds(
    Tile, st.none() | st.integers(0, 63), st.integers(0, 10**9) | st.integers(0, 1 << 50), st.integers(1, 256)
)


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/x001/x234/067", Tile(0, 1234067)),
        ("tile/0/000", Tile(0, 0)),
        ("tile/63/999.p/255", Tile(63, 999, 255)),
        ("tile/1/x001/000.p/1", Tile(1, 1000, 1)),
        ("tile/entries/x273/112", Tile(None, 273112)),
        ("tile/entries/000.p/7", Tile(None, 0, 7)),
    ],
)
def test_the_path_of_a_tile_is_as_specified(path: str, tile: Tile) -> None:
    assert tile.path == path
    assert parse_path(path) == tile
    if tile.level is None:
        assert entries_path(tile.index, tile.width) == path
    else:
        assert tile_path(tile.level, tile.index, tile.width) == path


@given(tiles)
def test_a_path_is_read_as_it_was_written(tile: Tile) -> None:
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0", "tile/0/", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/-1/000",
        "tile/0/x000/000", "tile/0/001/000", "tile/0/x001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
        "tile/0/000.p", "tile/0/000.p/", "tile/0/000/", "/tile/0/000", "tile/0/../000", "tile/0/000\n",
        "tile/0/٠٠٠", "tile/data/000", "tile/0/" + "x001/" * 40 + "000", "tile/8/0/000",
    ],
)  # fmt: skip
def test_another_spelling_is_no_path(path: str) -> None:
    with pytest.raises(Malformed):
        parse_path(path)


@given(st.text(max_size=30) | st.from_regex(r"\Atile/[0-9a-z]{1,3}/[x0-9/.p]{0,20}\Z"))
def test_what_is_read_as_a_path_is_the_only_spelling_of_it(path: str) -> None:
    try:
        tile = parse_path(path)
    except Malformed:
        return
    assert tile.path == path


@pytest.mark.parametrize(("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_there_is_no_path_of_what_is_no_tile(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError, match="There is no"):
        tile_path(level, index, width)


def test_a_log_of_70000_has_the_tiles_of_the_specification() -> None:
    tiles = [tile for tile in tiles_of(70_000) if tile.level is not None]
    assert sum(tile.level == 0 and tile.width == 256 for tile in tiles) == 273
    assert [tile for tile in tiles if tile.width < 256 or tile.level] == [
        Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1),
    ]  # fmt: skip
    assert list(tiles_of(256)) == [Tile(None, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 70_000))
def test_what_a_growing_log_adds_completes_what_it_had(since: int, more: int) -> None:
    before, after = set(tiles_of(since)), set(tiles_of(since + more))
    added = set(tiles_of(since + more, since))
    assert after - before == added


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_a_bundle_is_read_as_it_was_written(entries: list[bytes]) -> None:
    assert unpack_entries(pack_entries(entries)) == entries


def test_an_entry_is_as_long_as_two_bytes_can_say() -> None:
    assert unpack_entries(pack_entries([b"x" * 65535])) == [b"x" * 65535]
    with pytest.raises(ValueError, match="65535"):
        pack_entries([b"x" * 65536])


@given(st.binary(max_size=60))
def test_a_bundle_that_is_read_is_the_only_spelling_of_its_entries(octets: bytes) -> None:
    try:
        entries = unpack_entries(octets)
    except Malformed:
        return
    assert pack_entries(entries) == octets


@pytest.mark.parametrize("octets", [b"\x00", b"\x00\x01", b"\x00\x02x", b"\x00\x01xy", b"\x00\x00\x00"])
def test_a_bundle_that_ends_too_early_is_malformed(octets: bytes) -> None:
    with pytest.raises(Malformed, match="ends within"):
        unpack_entries(octets)


def test_a_tile_ends_with_a_hash() -> None:
    assert unpack_hashes(pack_hashes(LEAVES[:5])) == LEAVES[:5]
    with pytest.raises(Malformed, match="within a hash"):
        unpack_hashes(b"x" * 33)


@given(st.integers(1, 700), st.data())
def test_roots_and_proofs_come_out_of_tiles(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    read = tile_nodes(LEAVES[:size])
    assert root_of(size, read) == EMPTY_FRONTIER.extended(LEAVES[:size]).root()
    assert root_of(old, read) == EMPTY_FRONTIER.extended(LEAVES[:old]).root()
    assert frontier_of(old, read) == EMPTY_FRONTIER.extended(LEAVES[:old])
    assert list(inclusion_proof(index, size, read)) == naive_path(index, LEAVES[:size])
    assert list(consistency_proof(old, size, read)) == naive_subproof(old, LEAVES[:size])


def test_nodes_above_the_third_row_of_tiles_are_found() -> None:
    hashes = leaves(66_000)
    read = tile_nodes(hashes)
    assert read(16, 0) == nodes(hashes)(16, 0)
    assert read(9, 100) == nodes(hashes)(9, 100)


def test_only_the_tiles_that_the_tree_has_are_asked_for() -> None:
    asked: list[Tile] = []
    read = tile_reader(LEAVES)

    def remember(level: int, index: int, width: int) -> bytes:
        asked.append(Tile(level, index, width))
        return read(level, index, width)

    inclusion_proof(600, 700, TileNodes(remember, 700))
    assert set(asked) <= set(tiles_of(700))
    assert len(asked) == len(set(asked))


def test_a_tile_of_another_width_is_malformed() -> None:
    for wrong in (b"", b"x" * 32, b"x" * 32 * 6, b"x" * 161):
        with pytest.raises(Malformed):
            TileNodes(lambda level, index, width, wrong=wrong: wrong, 5)(0, 0)


@pytest.mark.parametrize(("level", "index"), [(0, 5), (2, 1), (3, 0), (0, -1)])
def test_there_is_no_node_outside_the_tree(level: int, index: int) -> None:
    with pytest.raises(ValueError, match="not within"):
        tile_nodes(LEAVES[:5])(level, index)
