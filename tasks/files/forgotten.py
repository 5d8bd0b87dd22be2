"""What was forgotten before: left out of every set, and refused where it comes back.

The table ``split.forgotten_before`` has a row per sample:

    id        its id, of requests that were written in by hand; "" else
    mark      SHA-256 of its id and content, of requests that ``flows.erase`` served: whom it
              belongs to cannot be read from it
    sha256    SHA-256 of its content, where no copy was kept under another id
    request   number of the request, or ""

A sample with a listed id or mark is left out. One with listed content, but under another id, has
come back with new data: it is refused.
"""

import hashlib

import pandas as pd

COLUMNS = ("id", "mark", "sha256", "request")


def mark(id: str, sha256: str) -> str:
    return hashlib.sha256(f"{id}\n{sha256}".encode()).hexdigest()


def left_out(samples: pd.DataFrame, table: pd.DataFrame, file: str) -> pd.DataFrame:
    """The samples that ``table``, read from ``file``, has: a table of their ids.

    samples: all there are, columns id and sha256. Raises ValueError for those that came back.
    """
    if not {"mark", "sha256", "request"} <= set(table.columns):
        return table  # of ids alone
    marks = [mark(i, s) for i, s in samples[["id", "sha256"]].to_numpy()]
    known = samples["id"][pd.Series(marks, samples.index).isin(table["mark"])]
    by_hand = table["id"][table["id"] != ""]
    requests = table[table["sha256"] != ""].drop_duplicates("sha256").set_index("sha256")
    back = samples[samples["sha256"].isin(requests.index) & ~samples["id"].isin([*known, *by_hand])]
    if len(back):
        first = back.iloc[0]
        raise ValueError(
            f"{len(back)} samples that were forgotten have come back, the first is {first['id']!r},"
            f" of erasure request {requests['request'][first['sha256']]} ({file}): take them out "
            "of the data again, or have them forgotten too, by a request of their own"
        )
    return pd.DataFrame({"id": pd.concat([by_hand, known]).drop_duplicates()})
