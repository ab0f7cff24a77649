"""Tables in the text of Markdown: what is printed can stand in the docs."""

import itertools

from benchmarks import stats
from benchmarks.peers import COUNTERPART
from benchmarks.peers import PEERS
from benchmarks.peers import is_floor
from benchmarks.peers import is_ours


def table(head, rows):
    """The lines of a table; its first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width if k == 0 else "-" * (width - 1) + ":" for k, width in enumerate(widths)]
    lines = []
    for first, *others in (head, rule, *rows):
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *cells])} |")
    return lines


def heading(result):
    """What has to stand beside every figure."""
    machine = result["machine"]
    lines = [
        f"`{result['command']}`",
        f"{machine['cpu']}, {machine['cores']} cores, all of them for every peer; "
        f"{machine['system']}; load before the start {machine['load']}; {result['rounds']} rounds",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    missing = result["missing"].items()
    return [*lines, *(f"missing: {peer}, needs {', '.join(lacks)}" for peer, lacks in missing), ""]


def case_table(record):
    """A line per peer: its time, how many times ours it is, the floor's share of it."""
    peers = {row["label"]: row["peer"] for row in record["rows"]}
    ours = [peer for peer in dict.fromkeys(peers.values()) if is_ours(peer)]
    full = {pair["of"]: pair["ratio"] for pair in record["ratios"] if pair["padded_over_full"]}
    ratios = {
        (pair["of"], peers[pair["over"]]): pair["ratio"]
        for pair in record["ratios"]
        if not pair["padded_over_full"]
    }
    optional = {"x full": bool(full), "floor": record["floor"] is not None}
    head = ["peer", "ms", "quartiles", *(f"x {peer}" for peer in ours), "first s", "MB"]
    head[-2:-2] = [name for name, wanted in optional.items() if wanted]
    rows = []
    for row in record["rows"]:
        label, (low, middle, high) = row["label"], row["time"]
        cells = {
            "peer": label,
            "ms": ms(middle),
            "quartiles": f"{ms(low)}-{ms(high)}",
            "x full": spread(full.get(label)),
            "floor": f"{record['floor'] / middle:.0%}" if record["floor"] else "",
            "first s": f"{row['first_call']:.2f}",
            "MB": "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.1f}",
        } | {f"x {peer}": spread(ratios.get((label, peer))) for peer in ours}
        rows.append([cells[name] for name in head])
    title = f"### {record['name']}"
    if record["others"] is not None:
        title += f" (others took {record['others']:.0%} of the machine meanwhile)"
    return [title, "", *(table(head, rows) if rows else []), *failures(record), ""]


def failures(record):
    return [f"FAILED {label}: {text}" for label, text in record["failures"].items()]


def ms(seconds):
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def spread(ratio):
    return "" if ratio is None else "{1:.2f} ({0:.2f}-{2:.2f})".format(*ratio)


def summary(records):
    """The tables over several cases; each is left out where its cases are."""
    parts = {
        "Training, every size: a peer's time over ours": sizes(records, "training"),
        "Inference, every size: a peer's time over ours": sizes(records, "inference"),
        "Geometric mean over sizes": means(records),
        "Padded batches, lengths uniform on 1..T, over full ones": padded(records),
        "Growth: T doubles": growth(records),
        "Memory of a first training step, above the process before it": memory(records),
    }
    tables = [(f"## {title}", "", *rows, "") for title, rows in parts.items() if rows]
    return [*itertools.chain(*tables), *fit_lines(records)]


def sizes(records, group):
    """Per case: each peer over the one of ours that the charts show it against."""
    wanted = [record for record in records if record["group"] == group]
    pairs = [
        (peer, over)
        for peer, counterparts in COUNTERPART.items()
        for over in counterparts
        if any(ratio_of(record, peer, over) for record in wanted)
    ]
    rows = [
        [f"{record['net']} {record['size']}", *(middle(ratio_of(record, *pair)) for pair in pairs)]
        for record in wanted
    ]
    return rows and pairs and table(["net", *(f"{of} / {over}" for of, over in pairs)], rows)


def ratio_of(record, of, over):
    """The spread of this ratio, or None."""
    pairs = (pair for pair in record["ratios"] if (pair["of"], pair["over"]) == (of, over))
    return next((pair["ratio"] for pair in pairs), None)


def middle(ratio):
    return "" if ratio is None else f"{ratio[1]:.2f}"


def means(records):
    """Per net and pair of peers: the mean ratio, and the least with its size."""
    found = {}
    for record in records:
        for pair in record["ratios"]:
            if not {pair["of"], pair["over"]} <= set(PEERS):
                continue  # one of them is a full batch beside the padded one
            if record["group"] in ("inference", "training"):
                key = (record["group"], record["net"], pair["of"], pair["over"])
                found.setdefault(key, []).append((pair["ratio"][1], record["size"]))
    rows = [
        [
            f"{group} {net}",
            f"{of} / {over}",
            f"{stats.geometric_mean([ratio for ratio, _ in ratios]):.2f}",
            f"{min(ratios)[0]:.2f}",
            min(ratios)[1],
            str(len(ratios)),
        ]
        for (group, net, of, over), ratios in found.items()
    ]
    return rows and table(["net", "pair", "mean", "least", "at B x T x D x U", "sizes"], rows)


def padded(records):
    rows = [
        [f"{record['group']} {record['net']}", pair["of"], spread(pair["ratio"])]
        for record in records
        for pair in record["ratios"]
        if pair["padded_over_full"]
    ]
    return rows and table(["net", "peer", "time padded / full"], rows)


def growth(records):
    """Per peer: what time and memory are multiplied by from each T to the next."""
    cases = sorted((r for r in records if r["group"] == "growth"), key=lambda record: record["T"])
    steps = [(one, two) for one, two in itertools.pairwise(cases) if two["T"] == 2 * one["T"]]
    labels = dict.fromkeys(row["label"] for case in cases for row in case["rows"])
    quantities = {"time": lambda row: row["time"][1], "memory": lambda row: row["peak_memory"]}
    rows = [
        [f"{label}, {name}", *(factor(one, two, label, quantity) for one, two in steps)]
        for name, quantity in quantities.items()
        for label in labels
        if not is_floor(label)
    ]
    head = ["peer", *(f"{one['T']} to {two['T']}" for one, two in steps)]
    return rows and steps and table(head, rows)


def memory(records):
    """Peak memory and time of each way of going back, and over the default one."""
    rows = []
    for record in records:
        if record["group"] == "memory":
            base = next((row for row in record["rows"] if row["label"] == "rnnx"), None)
            for row in record["rows"]:
                cells = [f"{record['net']} {record['size']}", row["label"]]
                shown = ((lambda r: r["peak_memory"], mb), (lambda r: r["time"][1], ms))
                for quantity, show in shown:
                    ratio = quantity(row) / quantity(base) if base and quantity(base) else None
                    cells += [show(quantity(row)), "" if ratio is None else f"{ratio:.2f}"]
                rows.append(cells)
    return rows and table(["net", "peer", "MB", "x rnnx", "ms", "x rnnx "], rows)


def mb(size):
    return "" if size is None else f"{size / 2**20:.0f}"


def factor(one, two, label, quantity):
    before, after = (
        next((quantity(row) for row in record["rows"] if row["label"] == label), None)
        for record in (one, two)
    )
    return f"{after / before:.2f}" if before and after else ""


def fit_lines(records):
    """The ratios of a whole `fit` epoch, as far as their cases were run."""
    pairs = {
        ("keras-fit", "rnnx-fit"): "default settings",
        ("keras-fit-xla", "rnnx-fit-xla"): "jit_compile=True",
    }
    return [
        f"fit {record['net']} {record['size']}, {pairs[pair['of'], pair['over']]}: "
        f"Keras takes {spread(pair['ratio'])} times as long"
        for record in records
        for pair in record["ratios"]
        if (pair["of"], pair["over"]) in pairs
    ]
