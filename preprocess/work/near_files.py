"""The files of a work folder in which near-duplicates and known corpora are handled.

    near/list-000012.groups       pairs of similar documents in list 12 of the bands, grouped by block
    near/block-000003-01.groups   decisions of block 3 after round 1
    near/block-000003.units       near-duplicates to drop in block 3, grouped by unit
    known/000012.json             record of a unit of a known corpus: its keys are in the shuffles

In the functions below, ``work`` is the folder of one request (`preprocess.work.folder`).
"""

from preprocess.files.storage import join


def near_pairs(work: str, number: int) -> str:
    return join(work, "near", f"list-{number:06d}.groups")


def near_round(work: str, block: int, number: int) -> str:
    return join(work, "near", f"block-{block:06d}-{number:02d}.groups")


def near_drops(work: str, block: int) -> str:
    return join(work, "near", f"block-{block:06d}.units")


def known_record(work: str, unit: int) -> str:
    return join(work, "known", f"{unit:06d}.json")
