#!/usr/bin/env python3
"""Measures TESLA against its peers, worker programs that run the same cases; standard library only.

    driver.py --tesla PATH [--tesla PATH ...] [--rounds 9] [--cases REGEX] [--json F] [--markdown F] [--svg F]

Every worker runs twice, with one thread and with as many as there are processors. In each round every worker does the
case once, in an order that rotates, while all the others sit idle. A library counts with its better thread count.
ratio: the best peer's median over TESLA's; spread: the quartiles of that ratio over the rounds.
"""

import argparse
import json
import os
import platform
import queue
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NETWORKS = ["784-300-100-10", "784-128-10", "784-1024-1024-10"]
CASES = [f"step:{net}:{batch}:{rule}" for net in NETWORKS for batch in (1, 32, 64, 128) for rule in ("sgd", "adam")]
CASES += ["step:784-300-100-10:100:sgd:2", "step:784-300-100-10:100:sgd:10", "step:784-300-100-10:100:sgd"]
CASES += ["cnn:plain:128", "cnn:plain:32", "cnn:norm:128"]
CASES += [f"predict:{net}:1" for net in NETWORKS] + ["predict:784-300-100-10:128"]
CASES += [
    f"product:{shape}" for shape in ("300:784:32", "300:784:128", "256:256:256", "1024:1024:128", "1024:1024:1024")
]
TENSOR_TRAINS = [
    "4x8x8x4:4x8x8x4:8:128",
    "4x8x8x4:4x8x8x4:4:128",
    "4x7x4x7:4x8x4x8:8:128",
    "8x8x8x8:8x8x8x8:8:128",
    "2x7x8x8x7x4:4x4x4x4x4x4:4:96",
    "2x7x8x8x7x4:4x4x4x4x4x4:4:1",
    "16x16x16:16x16x16:8:128",
]
PASSES = ("forward", "both")
CASES += [f"tt:{layer}:{way}" for layer in TENSOR_TRAINS for way in PASSES]
# Dense layers of the same sizes, to see what the tensor-trains save.
CASES += [f"dense:{layer}:{way}" for layer in ("1024:1024:128", "784:1024:128", "4096:4096:128") for way in PASSES]
# Weights of which so many in a hundred live.
CASES += [f"sparse:1024:1024:{live}:128:forward" for live in (50, 20, 10, 5, 2)]
# Recurrent layers: steps, inputs, units, batch; as layer_recurrent measures them. An embedding: tokens, units, length.
CASES += [f"{cell}:64:64:128:64:{way}" for cell in ("lstm", "gru") for way in PASSES]
CASES += ["embedding:100000:64:32:64:adam"]
# Self-attention: length, features, heads, batch. A transformer: the same, then blocks.
CASES += [
    f"attention:{length}:512:8:1:{reads}:{way}"
    for reads in ("dense", "causal")
    for length in (512, 1024, 2048)
    for way in PASSES
]
CASES += ["transformer:256:256:4:8:2:adam"]
CHART = [
    "step:784-300-100-10:1:adam",
    "step:784-300-100-10:64:adam",
    "step:784-128-10:64:adam",
    "step:784-1024-1024-10:128:adam",
]
PYTHON_PEERS = {
    "PyTorch": ("torch", "torch_worker.py"),
    "JAX": ("jax", "jax_worker.py"),
    "TensorLy-Torch": ("tltorch", "tltorch_worker.py"),
}
SECTIONS = {
    "Training steps": ("step",),
    "Training steps of convolutions": ("cnn",),
    "Predictions": ("predict",),
    "Products": ("product",),
    "Tensor-trains": ("tt", "dense"),
    "Sparse weights": ("sparse",),
    "Recurrent layers": ("lstm", "gru"),
    "Embeddings": ("embedding",),
    "Attention": ("attention",),
    "Training steps of a transformer": ("transformer",),
}
BUILT_PEERS = {name: f"{name.lower()}_worker" for name in ("Eigen", "OpenBLAS", "dlib", "mlpack")}


class Worker:
    """One running program; `failed` says why it can no longer be asked."""

    def __init__(self, command, threads, verbose):
        self.threads, self.failed = threads, None
        self.process = subprocess.Popen(
            command + [str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            stderr=None if verbose else subprocess.DEVNULL,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        words = (self._line(120) or "").split()
        if len(words) < 2 or words[0] != "ready":
            self.failed = self.failed or "did not report that it is ready"
        self.name, self.version = (words + ["?", "?", "?"])[1:3]

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _line(self, timeout):
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            self.failed = f"no answer within {timeout} s"
            self.process.kill()
            return None
        if line is None:
            self.failed = f"ended with status {self.process.wait()}"
        return line

    def ask(self, case, repeats, timeout):
        """The samples; none where the case is unsupported or the worker has failed."""
        if self.failed:
            return []
        try:
            self.process.stdin.write(f"{case} {repeats}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended, which the next line says
        words = (self._line(timeout) or "").split()
        if not words or words[0] != case or words[1:] == ["unsupported"]:
            return []
        return [float(word) for word in words[1:]]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def start(options):
    """All workers by library, TESLA first; says in a line each which peers are missing."""
    commands = {}
    for path in options.tesla:
        name = "TESLA" if len(options.tesla) == 1 else f"TESLA {Path(path).name}"
        commands[name] = [os.path.abspath(path)]
    for name, (module, script) in PYTHON_PEERS.items():
        python = options.python or str(HERE / ".venv/bin/python")
        found = (
            os.path.exists(python)
            and subprocess.run(
                [python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)"]
            ).returncode
            == 0
        )
        if found:
            commands[name] = [python, "-B", str(HERE / script)]
        else:
            print(f"{name} is not installed (benchmarks/peers/install.sh installs it)")
    for name, program in BUILT_PEERS.items():
        path = Path(options.build) / program
        if path.exists():
            commands[name] = [str(path)]
        else:
            print(f"{name} is not built (benchmarks/peers/build.sh builds what is installed)")
    workers = {}
    for name, command in commands.items():
        if options.only and name.split()[0] not in options.only.split(",") + ["TESLA"]:
            continue
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            worker = Worker(command, threads, options.verbose)
            if worker.failed:
                print(f"{name} with {threads} threads: {worker.failed}")
            else:
                workers.setdefault(name, []).append(worker)
    return workers


def measure(case, workers, options):
    """{library: {threads: [sample of each round]}}."""
    everyone = []
    for name, of_library in workers.items():
        for worker in of_library:
            if worker.ask(case, 1, options.timeout):  # sets the case up
                everyone.append((name, worker))
            elif worker.failed:
                print(f"{name} with {worker.threads} threads, {case}: {worker.failed}", flush=True)
    samples = {}
    for turn in range(options.rounds):
        shift = turn % max(1, len(everyone))
        for name, worker in everyone[shift:] + everyone[:shift]:
            time.sleep(options.pause)  # threads that spin for a while after their work go to sleep
            got = worker.ask(case, options.samples, options.timeout)
            if got:
                samples.setdefault(name, {}).setdefault(worker.threads, []).append(statistics.median(got))
    return samples


def evaluate(case, samples, goals):
    """One row: medians at the better thread counts, the best peer, ratio, spread, goal, whether it is met."""
    best = {}
    for name, by_threads in samples.items():
        threads = min(by_threads, key=lambda t: statistics.median(by_threads[t]))
        best[name] = {"us": statistics.median(by_threads[threads]), "threads": threads}
    row = {"case": case, "best": best, "goal": goals.get(case)}
    ours = [name for name in best if name.startswith("TESLA")]
    peers = [name for name in best if not name.startswith("TESLA")]
    if ours and peers:
        our, peer = (min(names, key=lambda name: best[name]["us"]) for names in (ours, peers))
        rounds = [p / o for p, o in zip(samples[peer][best[peer]["threads"]], samples[our][best[our]["threads"]])]
        quartiles = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
        row |= {"best_peer": peer, "ratio": best[peer]["us"] / best[our]["us"], "spread": [quartiles[0], quartiles[2]]}
        if row["goal"] is not None:
            row["met"] = row["ratio"] >= row["goal"]
    return row


def microseconds(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}" if value < 10000 else f"{value / 1000:.1f}k"


def table(rows, libraries):
    """Header and lines of text cells."""
    cells = [["case"] + [f"{name} us" for name in libraries] + ["best peer", "ratio", "spread", "goal", "met"]]
    for row in rows:
        line = [row["case"]]
        for name in libraries:
            entry = row["best"].get(name)
            line.append(f"{microseconds(entry['us'])} ({entry['threads']})" if entry else "-")
        if "ratio" in row:
            line += [row["best_peer"], f"{row['ratio']:.2f}", "{:.2f}-{:.2f}".format(*row["spread"])]
        else:
            line += ["-"] * 3
        line += [f"{row['goal']:g}" if row["goal"] is not None else "-"]
        cells.append(line + [("yes" if row["met"] else "no") if "met" in row else "-"])
    return cells


def plain(cells):
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0])] + lines[1:])


def markdown(cells):
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(cells[0]) - 1)] + lines[1:])


def renewed(page, about, tables):
    """A page with the first line and the tables under its headings replaced, and all that is said about them kept."""
    if not page:
        return "\n\n".join([about] + [f"### {title}\n\n{table}" for title, table in tables]) + "\n"
    page = about.split("\n")[0] + page[page.index("\n") :]
    for title, table in tables:
        found = re.search(rf"(### {re.escape(title)}\n\n)(\|.*\n)+", page)
        if found:
            page = page[: found.end(1)] + table + "\n" + page[found.end() :]
        else:
            page += f"\n### {title}\n\n{table}\n"
    return page


def describe(case):
    kind, *rest = case.split(":")
    if kind == "step":
        rule = {"sgd": "SGD with momentum", "adam": "Adam"}[rest[2]]
        return f"{rest[0]}, batch {rest[1]}, {rule}"
    return f"{kind} {':'.join(rest)}"


def chart(rows):
    """Bars of the time of a training step, a panel for each case; colours that show on white and on black."""
    grey, ours, theirs = "#7d8590", "#e8702a", "#8fa3b8"
    chosen = [row for case in CHART for row in rows if row["case"] == case and row["best"]]
    chosen = chosen or [row for row in rows if row["case"].startswith("step:") and row["best"]][:4]
    width, column, bar, top = 820, 400, 22, 44
    body, heights = [], [0, 0]
    for row in chosen:
        side = heights.index(min(heights))
        x, y = side * (column + 20), top + heights[side]
        entries = sorted(row["best"].items(), key=lambda item: item[1]["us"])
        longest = entries[-1][1]["us"]
        body.append(f'<text x="{x}" y="{y + 14}" class="title">{describe(row["case"])}</text>')
        for i, (name, entry) in enumerate(entries):
            line = y + 26 + i * bar
            length = max(2, 230 * entry["us"] / longest)
            own = name.startswith("TESLA")
            weight = ' class="own"' if own else ""
            body.append(f'<text x="{x + 78}" y="{line + 13}" text-anchor="end"{weight}>{name}</text>')
            shape = f'x="{x + 86}" y="{line + 2}" width="{length:.1f}" height="{bar - 6}" rx="2"'
            body.append(f'<rect {shape} fill="{ours if own else theirs}"/>')
            label = microseconds(entry["us"]).replace("k", " ms") + (" µs" if entry["us"] < 10000 else "")
            body.append(f'<text x="{x + 92 + length:.1f}" y="{line + 13}"{weight}>{label}</text>')
        heights[side] += 26 + len(entries) * bar + 22
    height = top + max(heights)
    style = (
        f"text{{font:13px -apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:{grey}}} "
        f".title,.head,.own{{font-weight:600}} .own{{fill:{ours}}} .head{{font-size:15px}}"
    )
    head = '<text x="0" y="18" class="head">Time of one training step (shorter is better)</text>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="Time of one training step">',
            f"<style>{style}</style>",
            head,
            *body,
            "</svg>",
            "",
        ]
    )


def processor():
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tesla", action="append", default=[], metavar="PATH", help="TESLA's worker; may be given again"
    )
    parser.add_argument(
        "--build", default=str(HERE.parents[1] / "build/peers"), help="where build.sh put the C++ workers"
    )
    parser.add_argument("--python", help="interpreter that has the Python peers (default: the one install.sh made)")
    parser.add_argument("--only", help="peers to use, comma-separated (default: all)")
    parser.add_argument("--cases", default="", metavar="REGEX", help="only the cases in which this is found")
    parser.add_argument("--case", action="append", default=[], help="a case besides the usual ones; may be given again")
    parser.add_argument("--goals", default=str(HERE.parent / "goals.json"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=1, help="per round, of which the median counts")
    parser.add_argument("--pause", type=float, default=0.03, help="seconds of rest before each request")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a request may take")
    parser.add_argument("--json", metavar="PATH")
    parser.add_argument("--markdown", metavar="PATH")
    parser.add_argument("--svg", metavar="PATH")
    parser.add_argument("--verbose", action="store_true", help="show what the workers say")
    options = parser.parse_args()
    unknown = set(options.only.split(",") if options.only else []) - {n.split()[0] for n in [*PYTHON_PEERS, *BUILT_PEERS]}
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}, only {', '.join([*PYTHON_PEERS, *BUILT_PEERS])}")
    goals = json.loads(Path(options.goals).read_text()) if os.path.exists(options.goals) else {}
    cases = options.case + [case for case in CASES if re.search(options.cases, case)]
    workers = start(options)
    versions = {name: of_library[0].version for name, of_library in workers.items()}
    rows, samples = [], {}
    try:
        for i, case in enumerate(cases):
            start_time = time.monotonic()
            samples[case] = measure(case, workers, options)
            rows.append(evaluate(case, samples[case], goals))
            print(f"{i + 1}/{len(cases)} {case}: {time.monotonic() - start_time:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("stopped: what was measured so far follows", file=sys.stderr)
    for of_library in workers.values():
        for worker in of_library:
            worker.close()

    about = f"{processor()}, {len(os.sched_getaffinity(0))} processors; " + ", ".join(
        f"{n} {v}" for n, v in versions.items()
    )
    note = "Median microseconds per step, in brackets the number of threads; ratio = best peer / TESLA."
    tables = []
    print(about, note, sep="\n")
    for title, kinds in SECTIONS.items():
        group = [row for row in rows if row["case"].split(":")[0] in kinds]
        libraries = [name for name in workers if any(name in row["best"] for row in group)]
        if group and libraries:
            cells = table(group, libraries)
            print(f"\n{title}\n{plain(cells)}")
            tables.append((title, markdown(cells)))
    judged = [row for row in rows if "met" in row]
    if judged:
        print(f"\n{sum(row['met'] for row in judged)} of {len(judged)} goals met")
    if options.json:
        result = {"processor": processor(), "versions": versions, "rows": rows, "samples": samples}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.markdown:
        path = Path(options.markdown)
        path.write_text(renewed(path.read_text() if path.exists() else "", about + "\n\n" + note, tables))
    if options.svg:
        Path(options.svg).write_text(chart(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
