"""Small inputs as people have them, where they are at hand: each is read as its owner means it, or refused in words.

`SUBFL_TEST_CASES` names their folder. What a case is to give is written down here; a case that is not listed must be
read, or refused in one sentence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from subfl_flower.data.datasets import CustomDataset, CustomRatingsDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import GivenPartition, UsersPartition, WholePartition
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.errors import SubflError

CASES = Path(os.environ.get("SUBFL_TEST_CASES", Path(__file__).parents[2] / ".." / "shared" / "cases"))
FOLDERS = sorted(path for path in CASES.iterdir() if path.is_dir()) if CASES.is_dir() else []

THREE = {"0": 20, "1": 20, "2": 20}
BASE: dict[str, Any] = {"nodes": 60, "edges": 229, "features": 4, "classes": THREE, "unlabelled": 0}
RATED: dict[str, Any] = {"users": 30, "items": 25, "ratings": 360}
PATIENTS = {"died": 20, "home": 20, "transferred": 20}

GRAPHS: dict[str, dict[str, Any] | str] = {
    "b01_base": BASE,
    "big_scale": BASE,
    "bom_crlf": BASE,
    "bool_label": BASE | {"classes": {"False": 40, "True": 20}},
    "cat_feature": r"column city\), first in row 1 \(c0\); .*dataset\.features\.one_hot=\[city\]",
    "changed_graph": BASE | {"classes": PATIENTS},
    "cora_content": r"holds 0 of nodes\.csv",
    "cut_row": r"edges\.csv: 1 x row with 1 fields, fewer than the 2 .* first in row 229",
    "dup_id": r"nodes\.csv: 1 x repeated id, first in row 61",
    "edge_extra": r"edges\.csv: 229 x row with 3 fields, more than the 2 that the header names",
    "edges_header_only": BASE | {"edges": 0},
    "empty_csv": r"edges\.csv cannot be read as a table: it is empty",
    "exp_ids": BASE,
    "float_ids": BASE,
    "float_target": r"label is not a class \(60 different fractional values on 60 nodes",
    "given_ids": BASE,
    "hash_ids": BASE,
    "header_case": BASE,
    "header_only": r"nodes\.csv has no rows",
    "isolated": BASE | {"edges": 103},
    "label_case": BASE,
    "label_space": BASE | {"classes": {"c0": 20, "c1": 20, "c2": 20}},
    "long_codes": BASE
    | {"classes": {f"10000000000000000{n}": count for n, count in ((0, 16), (1, 13), (2, 16))}, "unlabelled": 15},
    "many_classes": BASE | {"classes": {f"a-rather-long-class-name-number-{n:04d}": 1 for n in range(60)}},
    "mask_columns": BASE,
    "missing_feature": r"1 x row with a missing feature \(column f3\), first in row 5",
    "na_id": BASE,
    "no_edges": BASE | {"edges": 0},
    "node_rownames": r"nodes\.csv: 60 x row with 7 fields, more than the 6",
    "none_label": BASE | {"classes": {"None": 20, "nan": 20, "ok": 20}},
    "none_only": BASE | {"classes": {"None": 20, "mild": 20, "severe": 20}},
    "p_adjt": r"adj_t instead of edge_index",
    "p_base": BASE,
    "p_batch": r"Batch.*save one graph, batch\[0\]",
    "p_bf16": BASE,
    "p_big": r"194 feature values are NaN or infinite",
    "p_boolidx": r"edge_index is torch\.bool",
    "p_booly": BASE | {"classes": {"False": 40, "True": 20}},
    "p_complex": r"x is torch\.complex64",
    "p_csr_x": BASE,
    "p_dataset": r"it holds __main__\.DS",
    "p_dict": r"holds a dict; expected a torch_geometric\.data\.Data",
    "p_e2": BASE | {"edges": 2},
    "p_edgeT": r"edges have the shape \[229, 2\]; expected \[2, edges\]",
    "p_edgeindex": BASE,
    "p_empty_y": BASE | {"classes": {}, "unlabelled": 60},
    "p_floaty": BASE,
    "p_from1": BASE | {"classes": {"1": 20, "2": 20, "3": 20}},
    "p_grad": BASE,
    "p_half": BASE,
    "p_huge": BASE,
    "p_inmem": BASE,
    "p_int32": BASE,
    "p_list": r"holds a list",
    "p_mask_unl": BASE | {"classes": {"0": 10, "1": 12, "2": 8}, "unlabelled": 30},
    "p_masks": BASE | {"train": 9, "validation": 21, "test": 30},
    "p_multilabel": r"y has the shape \[60, 5\]",
    "p_nany": BASE | {"classes": {"0": 10, "1": 12, "2": 8}, "unlabelled": 30},
    "p_nox": r"dataset\.features\.from_structure=degree",
    "p_nparr": r"numpy\.ndarray.*torch\.from_numpy",
    "p_oldint": BASE,
    "p_onehot": r"y has the shape \[60, 3\]",
    "p_oob": r"7 edges name a node outside 0\.\.59",
    "p_selfdup": BASE,
    "p_sparse_ei": r"edge_index is torch\.float32 of the shape \[60, 60\]",
    "p_sparse_x": BASE,
    "p_uint8": BASE,
    "p_weights": BASE,
    "p_x1d": r"x has the shape \[60\]",
    "p_yall_nan": BASE | {"classes": {}, "unlabelled": 60},
    "p_zero": BASE,
    "predict_other_classes": BASE | {"classes": {"home": 20, "transferred": 20, "zed": 20}},
    "rand_base": BASE | {"edges": 142},
    "semicolon": BASE,
    "short_row": r"1 x row with 5 fields, fewer than the 6 .* first in row 5",
    "site_ids": BASE | {"classes": PATIENTS},
    "site_other": BASE | {"classes": None},
    "site_two": {"nodes": 40, "edges": 145, "features": 4, "classes": {"home": 20, "transferred": 20}},
    "space_ids": BASE,
    "unnamed_index": BASE,
    "unnamed_sorted": BASE | {"edges": 142},
    "zero_ids": BASE,
    "zero_label": BASE | {"classes": {"00": 20, "01": 20, "02": 20}},
}

RATINGS: dict[str, dict[str, Any] | str] = {
    "r_0to10": RATED | {"scale": [0, 10]},
    "r_base": RATED | {"scale": [1, 5], "mean": 3.6708},
    "r_bigids": RATED,
    "r_bom_crlf_quotes": RATED,
    "r_boolrating": RATED | {"scale": [0, 1]},
    "r_cold": RATED | {"users": 31, "items": 26, "ratings": 361},
    "r_colons/ratings.csv": RATED,
    "r_colons/ratings.dat": RATED,
    "r_comment": r"the file begins with a remark \(# exported 2024\)",
    "r_decimal_comma": r"360 x rating that is no number, first in row 1 \(3,0\)",
    "r_dupcol": r"the header has 'rating' more than once",
    "r_dups": RATED,
    "r_emoji": RATED,
    "r_emptylines": RATED,
    "r_extra_field": r"360 x row with 4 fields, more than the 3 that the header names",
    "r_first_comma": r"1 x row with 4 fields, more than the 3",
    "r_floatts": RATED,
    "r_formula": RATED,
    "r_header_spaces": RATED,
    "r_intfloat": RATED,
    "r_iso": RATED,
    "r_items_genres": RATED,
    "r_items_mismatch": r"items\.csv: none of its 25 ids .*0001",
    "r_latin1": r"dataset\.encoding",
    "r_midquote": r"with 5 fields, more than the 4",
    "r_mlheader": RATED,
    "r_ms": RATED,
    "r_nan_rating": r"rating",
    "r_neg": RATED | {"scale": [-2, 2]},
    "r_noheader": r"dataset\.header",
    "r_noratings": r"task=ranking",
    "r_nul": r"NUL",
    "r_one_each": r"leaves no rating to test",
    "r_one_extra": r"1 x row with 4 fields, more than the 3 .* first in row 41",
    "r_one_user": {"users": 1, "items": 20, "ratings": 20},
    "r_openquote": r"cannot be read as a table",
    "r_recbole": RATED,
    "r_spaces": RATED,
    "r_string_na": RATED,
    "r_strings": RATED,
    "r_tab/ratings.csv": RATED,
    "r_tab/ratings.tsv": RATED,
    "r_thousands": r"360 x rating that is no number, first in row 1 \(1,030\)",
    "r_title": RATED,
    "r_trailing_comma": r"360 x row with 4 fields, more than the 3",
    "r_ts_mixed": RATED,
    "r_uppercase_ext": RATED,
    "r_utf16": r"UTF-16",
    "r_wordrating": r"360 x rating that is no number, first in row 1 \(dislike\)",
    "r_zip": r"zip archive",
    "renamed_item": RATED,
}

needs_cases = pytest.mark.skipif(not FOLDERS, reason=f"there are no cases in {CASES} (SUBFL_TEST_CASES)")


def rating_files(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.name.lower().startswith("ratings") or path.suffix == ".inter"
    ]


def is_graph(folder: Path) -> bool:
    return not rating_files(folder) and not (folder / "partition_0.pt").exists()


def check(outcome: dict[str, Any] | SubflError, expected: dict[str, Any] | str | None) -> None:
    import re

    if isinstance(outcome, SubflError):
        assert "\n" not in str(outcome)
        assert expected is None or (isinstance(expected, str) and re.search(expected, str(outcome))), str(outcome)
        return
    assert not isinstance(expected, str), outcome
    for name, value in (expected or {}).items():
        found = outcome[name]
        assert value is None or found == value or np.allclose(found, value, atol=1e-4), (name, found)


def path_of(folder: Path) -> Path:
    files = list(folder.glob("*.pt"))
    return files[0] if files else folder


@needs_cases
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if is_graph(folder)], ids=lambda folder: folder.name)
def test_a_graph_as_people_have_it(folder: Path, tmp_path: Path) -> None:
    outcome: dict[str, Any] | SubflError
    try:
        dataset = CustomDataset(path=path_of(folder))
        outcome = prepare(dataset, WholePartition(), tmp_path, tmp_path / "cache", require_labels=False).data
    except SubflError as error:
        outcome = error
    check(outcome, GRAPHS.get(folder.name))


def rated_cases() -> list[Path]:
    return [file for folder in FOLDERS for file in rating_files(folder)]


@needs_cases
@pytest.mark.parametrize("file", rated_cases(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_ratings_as_people_have_them(file: Path, tmp_path: Path) -> None:
    tables = {of: file.parent / f"{of}.csv" for of in ("users", "items") if (file.parent / f"{of}.csv").exists()}
    outcome: dict[str, Any] | SubflError
    try:
        dataset = CustomRatingsDataset(path=file, **tables)
        outcome = prepare_ratings(dataset, UsersPartition(), tmp_path, tmp_path / "cache").data
    except SubflError as error:
        outcome = error
    name = file.parent.name
    check(outcome, RATINGS.get(name, RATINGS.get(f"{name}/{file.name}")))


@needs_cases
def test_the_classes_of_a_case_may_be_stated() -> None:
    def graph(name: str, classes: tuple[Any, ...]) -> Graph:
        return CustomDataset(path=CASES / name, classes=classes).load(Path())

    assert np.bincount(graph("bool_label", (True, False)).labels).tolist() == [20, 40]  # type: ignore[arg-type]
    assert graph("zero_label", ("02", "01", "00")).class_names == ("02", "01", "00")
    assert graph("none_label", (float("nan"), "None", "ok")).class_names == ("nan", "None", "ok")


@needs_cases
@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("ok", None),
        ("notrain", r"client 0 has no training node; the split in .*notrain\.npz gives none"),
        ("float", "must be one-dimensional arrays of integers"),
        ("masks", r"holds client_0, train_mask; expected split"),
        ("one_based", r"holds client_1, client_2, split; expected split, client_0"),
    ],
)
def test_a_partition_that_a_file_gives(tmp_path: Path, file: str, sentence: str | None) -> None:
    partition = GivenPartition(file=CASES / "fedpub_pt" / f"{file}.npz")
    arguments = (CustomDataset(path=CASES / "p_base" / "graph.pt"), partition, tmp_path, tmp_path / "cache")
    if sentence is None:
        assert prepare(*arguments).num_clients >= 2
        return
    with pytest.raises(SubflError, match=sentence):
        prepare(*arguments)


@needs_cases
def test_ids_of_a_given_partition_are_those_of_the_table(tmp_path: Path) -> None:
    """The file says ids 0 to 29 and has a split without `ids`: nobody can tell whose roles these are."""
    dataset, file = CustomDataset(path=CASES / "given_ids"), CASES / "given_ids" / "part.npz"
    with pytest.raises(SubflError, match=r"it has no array ids, .*partition\.by=row"):
        prepare(dataset, GivenPartition(file=file), tmp_path, tmp_path / "cache")
    with np.load(file) as stored:
        np.savez(tmp_path / "with_ids.npz", ids=np.arange(60), **stored)
    prepared = prepare(dataset, GivenPartition(file=tmp_path / "with_ids.npz"), tmp_path, tmp_path / "cache")
    names = prepared.node_names()
    assert names is not None
    assert set(names[prepared.client(0).node_ids]) == {str(node) for node in range(30)}


def test_what_is_listed_has_cases() -> None:
    """A list that nobody walks would show nothing."""
    if FOLDERS:
        walked = {folder.name for folder in FOLDERS if is_graph(folder)}
        assert len(walked & set(GRAPHS)) > 70 and len(rated_cases()) > 40
    assert issubclass(pydantic.ValidationError, ValueError)
