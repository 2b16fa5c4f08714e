"""A peer of the benchmark of rows in its own interpreter: ``rows_peer.py tvae`` or ``rows_peer.py mostlyai``.

Reads jobs, one line of JSON each, and answers likewise with the seconds of processor time (its own and its children's)::

    {"do": "fit", "file": "rows.csv", "categories": ["sex"], "seed": 0}
    {"do": "sample", "file": "new.csv", "n": 100, "seed": 0}

Tables travel as CSV, categories as text. Imports nothing but pandas and the peer, so that any interpreter can run it.
"""

import json
import os
import sys

import pandas as pd
import torch


class Tvae:
    """CTGAN's TVAE with its defaults."""

    def fit(self, rows, categories, seed):
        from ctgan import TVAE

        self.model = TVAE(enable_gpu=False)
        self.model.set_random_state(seed)
        self.model.fit(rows, categories)

    def sample(self, n, seed):
        self.model.set_random_state(seed)
        return self.model.sample(n)


class Mostlyai:
    """TabularARGN of mostlyai-engine with its defaults, which replace rare levels and extreme values."""

    def fit(self, rows, categories, seed):
        from mostlyai.engine import TabularARGN

        kinds = dict.fromkeys(categories, "TABULAR_CATEGORICAL")
        self.model = TabularARGN(tgt_encoding_types=kinds, device="cpu", random_state=seed)
        self.model.fit(rows)

    def sample(self, n, seed):
        from mostlyai.engine import set_random_state

        set_random_state(seed)
        return self.model.sample(n_samples=n)


PEERS = {"tvae": Tvae, "mostlyai": Mostlyai}


def processor_seconds():
    """Seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def main():
    answers = os.fdopen(os.dup(1), "w")  # the peer may print what it likes: that goes to the standard error
    os.dup2(2, 1)
    torch.set_num_threads(1)
    peer = PEERS[sys.argv[1]]()

    for line in sys.stdin:
        job = json.loads(line)
        try:
            if job["do"] == "fit":
                texts = dict.fromkeys(job["categories"], str)
                rows = pd.read_csv(job["file"], dtype=texts, keep_default_na=False, na_values=[""])
                before = processor_seconds()
                peer.fit(rows, job["categories"], job["seed"])
            else:
                before = processor_seconds()
                rows = peer.sample(job["n"], job["seed"])
                rows.to_csv(job["file"], index=False)
            answer = {"seconds": processor_seconds() - before}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
