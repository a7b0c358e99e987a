"""The page and the lines of `worldfoundry evaluate tokenizer`: the paper's table layout, and clips side by side."""

from worldfoundry.evaluation.present import heading, with_interval
from worldfoundry.evaluation.report import Cell, Clips, Section, Table, Text, clip
from worldfoundry.recipes.evaluate_tokenizer import Candidate, TokenizerTable

FACTS = ("Compression", "Frames", "Bits per pixel", "RGB : stored")
COSTS = ("Encode, ms/frame", "Decode, ms/frame", "Parameters", "Codes used")


def sections(table: TokenizerTable, show: int) -> list[Section]:
    """The table, what was left out, how to read it, and the clips."""
    said: list[Section] = (
        [Text(title="Not measured", paragraphs=[f"{line}." for line in table.left_out])] if table.left_out else []
    )
    return [_scores(table), _differences(table), *said, _reading(), *([_clips(table, show)] if show else [])]


def lines(table: TokenizerTable) -> list[str]:
    """The headline for a terminal."""
    setting = table.setting
    text = [f"{setting['clips']} clips of {setting['frames']} frames, {setting['width']}x{setting['height']}"]
    for one in table.candidates:
        scores = ", ".join(f"{m.label} {' '.join(with_interval(table.row(m.name, one.name)))}" for m in table.metrics)
        note = f" ({one.facts['note']})" if "note" in one.facts else ""
        text.append(f"  {one.name}: {one.facts['bits_per_pixel']:.3g} bits/pixel, {scores}{note}")
    return text + [f"  left out: {line}" for line in table.left_out]


def _scores(table: TokenizerTable) -> Table:
    setting = table.setting
    notes = [f"{one.name} {one.facts['note']}." for one in table.candidates if "note" in one.facts]
    return Table(
        title="Reconstruction",
        header=["", *FACTS, *(heading(metric) for metric in table.metrics), *COSTS],
        rows=[[one.name, *_facts(one, table), *_values(one, table), *_costs(one)] for one in table.candidates],
        strong=[i for i, one in enumerate(table.candidates) if "compression" in one.facts],
        note=" ".join(
            [
                f"{setting['clips']} clips of {setting['sources']} sources, {setting['width']}x{setting['height']}, "
                f"every frame scored. Square brackets: {setting['interval']}. Times: median on {setting['hardware']} "
                f"({setting['device']}). {setting['note'] + '.' if setting['note'] else ''}",
                *notes,
            ]
        ),
    )


def _differences(table: TokenizerTable) -> Table:
    paired = [one for one in table.candidates if one.partner]

    def cell(metric: str, name: str) -> tuple[str, str]:
        row = table.row(metric, name)
        return f"{row.difference:+.3g}", f"[{row.difference_low:+.3g}, {row.difference_high:+.3g}]"

    return Table(
        title="Difference, paired by clip",
        header=["", *(heading(metric) for metric in table.metrics)],
        rows=[[f"{one.name} − {one.partner}", *(cell(m.name, one.name) for m in table.metrics)] for one in paired],
        note="If the interval includes 0, these clips do not settle it.",
    )


def _reading() -> Text:
    return Text(
        title="How to read it",
        paragraphs=[
            "PSNR pools squared errors over all clips before the logarithm; SSIM has a 7x7 uniform window. A name with a network "
            "in brackets is a distance on that network, not the published metric that it resembles.",
            "A continuous value counts 16 bits (bfloat16), an index log2 of the codebook. H.264 is x264, 4:2:0, one group of "
            "pictures, without container and comment; JPEG is every frame alone; bicubic keeps every frame and as many colour "
            "values as the tokenizer stores numbers (8 bits each). Clips that were H.264 before they came here favour H.264.",
        ],
    )


def _clips(table: TokenizerTable, show: int) -> Clips:
    true, fps = table.clips, table.clips.fps
    return Clips(
        title="Side by side",
        rows=[
            (true.names[i], [clip("original", true.frames[i], fps), *(clip(c.name, c.shown[i], fps) for c in table.candidates)])
            for i in range(min(show, len(true.names)))
        ],
        note="Stills show the last frame.",
    )


def _facts(one: Candidate, table: TokenizerTable) -> list[Cell]:
    facts = one.facts
    channels = f"{facts['codebook']} codes" if facts.get("codebook") else f"{facts.get('channels')} channels"
    shape = (facts["compression"], channels) if "compression" in facts else None
    spent = f"{100 * facts['spent_of_budget']:.0f} % of the budget" if "spent_of_budget" in facts else ""
    return [shape, table.setting["frames"], (f"{facts['bits_per_pixel']:.3g}", spent), f"{facts['ratio_to_rgb']:.0f}"]


def _values(one: Candidate, table: TokenizerTable) -> list[Cell]:
    return [with_interval(table.row(metric.name, one.name)) for metric in table.metrics]


def _costs(one: Candidate) -> list[Cell]:
    facts = one.facts
    if "parameters" not in facts:
        return [None] * len(COSTS)
    used: Cell = None
    if "codes_used" in facts:
        used = f"{100 * facts['codes_used']:.0f} %", f"perplexity {facts['code_perplexity']:.0f}"
    parameters = f"{facts['parameters'] / 1e6:.2f} M"
    return [facts["encode_ms_per_frame"], facts["decode_ms_per_frame"], (parameters, facts["dtype"]), used]
