"""Results to Markdown: medians with the lowest and the highest, the best of each group in bold, whoever's it is."""

import pathlib
import statistics

import disk
import install

DOCUMENT = install.ROOT / "docs" / "PERFORMANCE.md"
# What keeps nothing stands beside the servers, and is compared with none.
LIMIT = "*no server*"


class Column:
    """One figure of a run: its key, its heading, how it is written, and which end is the better one."""

    def __init__(self, key: str, heading: str, form: str = "{:,.0f}", best=None, spread: bool = False):
        self.key, self.heading, self.form, self.best, self.spread = key, heading, form, best, spread

    def values(self, rows: list[dict]) -> list[float]:
        return [row[self.key] for row in rows if row.get(self.key) is not None]

    def median(self, rows: list[dict]) -> float | None:
        values = self.values(rows)
        return statistics.median(values) if values else None

    def text(self, rows: list[dict], is_best: bool) -> str:
        values = self.values(rows)
        if not values:
            return ""
        text = self.form.format(statistics.median(values))
        text = f"**{text}**" if is_best else text
        if self.spread and len(values) > 1:
            text += f" ({self.form.format(min(values))} to {self.form.format(max(values))})"
        return text


RATE = Column("acks_per_s", "acknowledged/s", best=max, spread=True)
ACK_P50 = Column("ack_p50_ms", "p50 ms", "{:.2f}", best=min)
ACK_P99 = Column("ack_p99_ms", "p99 ms", "{:.2f}", best=min, spread=True)
# What was under way while the host had stopped a core is left out.
ACK_P99_RUNNING = Column("ack_p99_apart_ms", "p99 ms while the machine ran", "{:.2f}", best=min, spread=True)
LATENCY_P99_RUNNING = Column("p99_apart_ms", ACK_P99_RUNNING.heading, "{:.2f}", best=min, spread=True)
STOPPED = Column("stopped_ms_per_s", "", "{:.0f}")
CPU_EACH = Column("cpu_us_each", "CPU each µs", "{:.1f}", best=min)
RESIDENT = Column("resident_mib", "memory MiB", best=min)
DELIVERIES = Column("deliveries_per_s", "deliveries/s", best=max, spread=True)
LATENCY_P50 = Column("p50_ms", "p50 ms", "{:.2f}", best=min)
LATENCY_P99 = Column("p99_ms", "p99 ms", "{:.2f}", best=min, spread=True)
CPU_DELIVERY = Column("cpu_us_delivery", "CPU a delivery µs", "{:.2f}", best=min)
OTHER_ACK_P99 = Column("ack_p99_ms", "acknowledged p99 ms", "{:.2f}", best=min)
EVENTS = Column("events_per_s", "events/s", best=max, spread=True)
READ = Column("deliveries_per_s", "events/s in all", best=max, spread=True)
CLIENT = Column("load_cores", "load, cores", "{:.2f}")
# So much of the time the load let publishers wait, as it was behind with what subscribers had to receive: in no latency.
HELD = Column("held_share", "load held back", "{:.0%}")

COLUMNS = {
    "append": [RATE, ACK_P50, ACK_P99, ACK_P99_RUNNING, CPU_EACH, RESIDENT, CLIENT],
    "fanout": [LATENCY_P50, LATENCY_P99, LATENCY_P99_RUNNING, CPU_DELIVERY, OTHER_ACK_P99, RESIDENT],
    "unthrottled": [DELIVERIES, LATENCY_P99, LATENCY_P99_RUNNING, CPU_DELIVERY, Column("acks_per_s", "acknowledged/s", best=max), RESIDENT, CLIENT, HELD],
    "many": [LATENCY_P50, LATENCY_P99, LATENCY_P99_RUNNING, CPU_DELIVERY, OTHER_ACK_P99, RESIDENT],
    "replay": [READ, Column("cpu_us_delivery", "CPU an event µs", "{:.2f}", best=min), RESIDENT],
}


def table(load: str, groups: dict[str, dict[str, list[dict]]]) -> str:
    """Markdown of {group: {server: its rows}}."""
    stood = any(row.get("stops") for servers in groups.values() for rows in servers.values() for row in rows)
    columns = [column for column in COLUMNS[load] if stood or column not in (ACK_P99_RUNNING, LATENCY_P99_RUNNING)]
    lines = ["| | | " + " | ".join(column.heading for column in columns) + " |", "|---|---|" + "---|" * len(columns)]
    notes = []
    for group, servers in groups.items():
        # A server that lost events or was stopped shows what it did, and is nobody's measure.
        whole = {name: rows for name, rows in servers.items() if name != LIMIT and not any(row.get("note") for row in rows)}
        best = {}
        for column in columns:
            medians = [median for rows in whole.values() if (median := column.median(rows)) is not None]
            best[column] = column.best(medians) if column.best and len(medians) > 1 else None
        label = group
        for name, rows in servers.items():
            marks = sorted({row["note"] for row in rows if row.get("note")})
            mark = ""
            if marks:
                notes.append(f"{len(notes) + 1}. {group}, {name}: {'; '.join(marks)}")
                mark = f" [{len(notes)}]"
            cells = [column.text(rows, name in whole and column.median(rows) == best[column] and best[column] is not None) for column in columns]
            lines.append(f"| {label} | {name}{mark} | " + " | ".join(cells) + " |")
            label = ""
    said = ["", standstill(groups)] if stood else []
    return "\n".join(lines + ([""] + notes if notes else []) + said)


def standstill(groups: dict[str, dict[str, list[dict]]]) -> str:
    """One sentence: how long the machine stood still for each server."""
    each = []
    for group, servers in groups.items():
        watched = [f"{name} {STOPPED.text(rows, False)}" for name, rows in servers.items() if STOPPED.values(rows)]
        if watched:
            each.append(f"{group}: {', '.join(watched)}")
    return f"The machine stood still for so many ms of a second, in the median: {'; '.join(each)}."


def disk_table(results: dict[str, list[dict]]) -> str:
    """Markdown of NDJSON streams beside fio; MB are 10^6 bytes of frames."""
    lines = ["| | events/s | MB/s of frames | CPU each µs |", "|---|---|---|---|"]
    frames = Column("disk_mb_per_s", "", spread=True)
    for name, streams in (("bulk-1", "one NDJSON stream"), ("bulk-4", "four")):
        rows = [{**row, "disk_mb_per_s": row["disk_bytes_per_s"] / 1e6} for row in results[name]]
        lines.append(f"| {streams} | {EVENTS.text(rows, False)} | {frames.text(rows, False)} | {Column('cpu_us_each', '', '{:.2f}').text(rows, False)} |")
    kinds = (("over", "over written blocks, 4 in flight"), ("over_one", "over written blocks, 1 in flight"), ("fresh", "into a new file, 4 in flight"),
             ("blocks", "into blocks that were allocated and never written, 4 in flight"), ("zeroes_and_over", "zeroes first, then over them, 4 in flight: both counted"))
    for key, text in kinds:
        rows = [{"disk_mb_per_s": row[key] / 1e6} for row in results["fio"]]
        lines.append(f"| fio, {disk.WRITE_BYTES >> 10} KiB O_DIRECT O_DSYNC, {text} | | {frames.text(rows, False)} | |")
    return "\n".join(lines)


def write(load: str, text: str, document: pathlib.Path = DOCUMENT) -> None:
    """Puts `text` between the document's markers for `load`."""
    begin, end = f"<!-- peers {load}: written by benches/peers/run.py -->", f"<!-- peers {load}: end -->"
    old = document.read_text()
    head, found, rest = old.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{document} has no markers for {load}")
    document.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
