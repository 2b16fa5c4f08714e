"""Positions of the cells in an encoded row, and the parts of a table in their order."""

import numpy as np
import pytest
import torch
from layouts import COUNTS, LAYOUTS, encode
from networks import make
from reference import SlowVAE
from tables import FLAGS, NUMBERS, N, any_table, names_of_parts, table_of

from skvae.table.arrangement import Arrangement, order_of_columns
from skvae.table.kinds import KINDS, SECTIONS
from skvae.table.layout import Layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_counts_what_an_encoded_row_holds(name):
    layout = LAYOUTS[name]
    kinds = [kind for kind, n in layout.kinds for _ in range(n)]
    n_counts = sum(kind in COUNTS for kind in kinds)
    n_numbers = len(kinds) - kinds.count("categorical")
    row = encode(layout, np.full((1, len(kinds)), np.nan))[0]
    assert layout.n_parts == len(kinds) == len(layout.rank) == len(layout.gate)
    assert (layout.n_counts, layout.n_numbers) == (n_counts, n_numbers)
    assert layout.stop == len(row)
    second = layout.auxiliary
    assert layout.width == layout.stop + (second.width if second else 0)
    assert layout.n_extra_numbers == (second.n_numbers if second else 0)
    assert layout.n_encoder_inputs == layout.n_extra_numbers + layout.n_inputs
    first = n_counts + (layout.exposure is not None)
    assert (layout.first_number, layout.offset) == (first, slice(n_counts, first))
    assert layout.first_flag == first + n_numbers
    assert layout.first_level == layout.first_flag + len(layout.flagged) == layout.stop - kinds.count("categorical")
    assert layout.n_all_levels == sum(layout.n_levels)
    assert layout.n_inputs == layout.first_level - first + layout.n_all_levels == len(layout.input_parts)
    assert [layout.n_all_levels - start for start in layout.level_starts] == [
        sum(layout.n_levels[k:]) for k in range(len(layout.n_levels))
    ]
    # filling one part of an empty row changes its inputs only
    slow = SlowVAE(make(kinds=name))
    for i in range(len(kinds)):
        parts = np.full((2, len(kinds)), np.nan)
        parts[1, i] = 1
        empty, filled = slow.inputs(torch.from_numpy(encode(layout, parts)))
        changed = (empty != filled).numpy()
        assert set(np.array(layout.input_parts)[changed]) == {i}


def test_layout_of_a_table_of_constants_is_empty():
    layout = table_of(np.ones((N, 2))).layout
    assert layout == Layout(kinds=())
    assert (layout.width, layout.n_inputs, layout.input_parts) == (0, 0, [])


def test_parts_are_grouped_by_section_and_kind_and_keep_the_order_of_columns():
    table, _ = any_table()
    names = list(KINDS)
    place = [(SECTIONS.index(KINDS[kind].section), names.index(kind), owner) for kind, owner in names_of_parts(table)]
    assert place == sorted(place)


def test_ranks_are_places_in_the_order_of_columns():
    table, _ = any_table()
    layout = table.layout
    assert sorted(layout.rank) == list(range(layout.n_parts))
    assert [table.owners[i] for i in np.argsort(layout.rank)] == [0, 1, 2, 2, 3, 4, 5, 7, 8, 9]
    arrangement = Arrangement.of(table.columns, None)
    assert arrangement.places == [[3], [7], [8, 4], [0], [6], [9], [], [1], [5], [2]]


@pytest.mark.parametrize(
    ("exposure", "order"), [(None, [0, 1, 2, 3]), (0, [0, 1, 2, 3]), (2, [0, 2, 1, 3]), (3, [0, 3, 1, 2])], ids=str
)
def test_the_exposure_is_drawn_before_the_counts(exposure, order):
    X = np.column_stack([NUMBERS, np.arange(N) % 5, np.exp(NUMBERS), np.exp(-NUMBERS)])
    assert order_of_columns(table_of(X, likelihood={"poisson": [1]}).columns, exposure) == order


def test_columns_of_one_kind_stand_side_by_side():
    assert table_of(np.column_stack([NUMBERS, FLAGS, -NUMBERS])).layout.kinds == (("normal", 2), ("bernoulli", 1))
