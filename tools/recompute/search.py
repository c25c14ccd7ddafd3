"""Cells of what the search found, and of what it costs."""

from __future__ import annotations

from tools.recompute.lines import Lines


def found_by_search(lines: Lines, row: list[str], column: str) -> str | None:
    """A cell of what the search found."""
    tried, best = lines.searched(row[0], float(row[1])), lines.best(row[0], float(row[1]))
    sizes = sorted({run["size"] for run in tried})
    shown = {
        "sizes tried": rf"{sizes[0]} to {sizes[-1]} of \d+",
        "best size": str(best["size"]),
        "best rate": f"{best['lr']:g}",
        "validation bits": f"{best['validation_bits']:.3f}",
        "parameters": f"{best['parameters']:,}",
        "bytes read": f"{best['bytes_seen']:,}",
    }
    return shown.get(column)


def cost(lines: Lines, row: list[str], column: str) -> str | None:
    """A cell of the costs."""
    run = lines.best(row[0], float(row[1]))
    found, spent = lines.costs[run["name"]], run["patcher_training_flops"]
    per_byte, seconds = found["flops_per_byte"], found["seconds_per_megabyte"]
    # Patchers have lines of their own, with the FLOPs that all who use one note.
    patchers = [x for x in lines.runs if x["family"].startswith("patcher ") and x["flops"] == spent]
    own = patchers[0]["seconds"] if spent else 0.0
    shown = {
        "MFLOP per byte": f"{per_byte / 1e6:.3f}",
        "executed": f"{found['executed_flops_per_byte'] / per_byte:.2f}×",
        "patcher's training": f"{100 * run['patcher_training_flops'] / run['budget']:.0f}%",
        "tables, MB": f"{found['table_bytes'] / 1e6:.0f}",
        "traffic there, kB per byte": f"{found['table_traffic_per_byte'] / 1e3:.1f}",
        "seconds per MB": f"{seconds:.1f}",
        "seconds in all": f"{own + seconds * run['bytes_seen'] / 1e6:.0f}",
    }
    return shown.get(column)
