"""A comparison as one page of HTML: no script, no other file, nothing from the network. jinja2 escapes every text."""

import jinja2

from trainer.comparison import comparing
from trainer.comparison.comparing import Comparison
from trainer.comparison.paired import Difference

# Of the drawing of an interval, in units of its view box.
WIDTH, MARGIN = 240.0, 8.0

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ names | join(", ") }}</title>
<style>
:root { --ink: #1b1f24; --muted: #59626d; --paper: #fff; --line: #d9dfe5; --accent: #1f5fbf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --muted: #9ba6b1; --paper: #15191d; --line: #363f48; --accent: #7db0ff; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400; }
td { white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th, .note, figcaption { color: var(--muted); font-size: .875rem; }
svg { width: 15rem; height: 1.5rem; display: block; }
svg * { stroke: var(--accent); stroke-width: 2; }
svg .zero { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 3 3; }
svg circle { fill: var(--accent); }
blockquote { margin: .25rem 0; padding: .25rem .75rem; border-left: 3px solid var(--line); white-space: pre-wrap;
  unicode-bidi: isolate; }
li { margin-bottom: 1.25rem; }
</style>
</head>
<body>
<h1>{{ names | join(", ") }}</h1>
<p class="note">On the same {{ "{:,}".format(examples) }} test texts. Differences are those from {{ names[0] }}.</p>
{% macro table(rows) %}
<div class="scroll"><table>
<thead><tr><th></th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, values in rows.items() %}
<tr><th>{{ name }}</th>{% for value in values %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<h2>Results</h2>
{{ table(figures) }}
<h2>Settings that differ</h2>
{% if settings %}{{ table(settings) }}{% else %}<p>None.</p>{% endif %}
{% for pair in pairs %}
<section>
<h2>{{ pair.name }} minus {{ names[0] }}</h2>
<div class="scroll"><table>
<thead><tr><th></th><th>difference</th><th>95 % interval</th><th></th></tr></thead>
<tbody>
{% for each in pair.differences %}
{% set text = describe(each) %}{% set drawn = place(each) %}
<tr><th>{{ each.metric | replace("_", " ") }}</th><td>{{ text[0] }}</td><td>{{ text[1] }}</td><td>
<svg viewBox="0 0 {{ width }} 24" role="img" aria-label="{{ text[1] }}"><line class="zero" x1="{{ drawn.zero }}"
 x2="{{ drawn.zero }}" y1="2" y2="22"/><line x1="{{ drawn.low }}" x2="{{ drawn.high }}" y1="12" y2="12"/><circle
 cx="{{ drawn.value }}" cy="12" r="4"/></svg></td></tr>
{% endfor %}
</tbody></table></div>
{% if pair.mcnemar %}<p>{{ describe_mcnemar(pair.mcnemar, names[0], pair.name) }}.</p>{% endif %}
</section>
{% endfor %}
<p class="note">Intervals: percentiles of {{ "{:,}".format(resamples) }} resamples of the test texts, the same for both
runs, with a fixed seed. The dashed line is no difference. They say what other test texts could change; what another
seed of training changes, several runs show. Several comparisons are not corrected for.</p>
{% if disagreements %}
<h2>Where they differ most</h2>
<ol>
{% for example in disagreements %}
<li><span class="note">{{ example.example_id }}: {{ example.label }}</span>
<blockquote dir="auto">{{ example.text }}</blockquote>
{% for name in names %}
<div>{{ name }}: {{ example.predicted[loop.index0] }}{% if example.right[loop.index0] %} ✓{% endif %}</div>
{% endfor %}
</li>
{% endfor %}
</ol>
{% endif %}
</body>
</html>
"""


def render_page(comparison: Comparison) -> str:
    """The page."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_TEMPLATE).render(
        names=comparison.names,
        examples=comparison.examples,
        resamples=comparison.resamples,
        settings=comparison.settings,
        figures=comparison.figures,
        pairs=comparison.pairs,
        disagreements=comparison.disagreements,
        describe=comparing.describe_difference,
        describe_mcnemar=comparing.describe_mcnemar,
        place=_place,
        width=WIDTH,
    )


def _place(difference: Difference) -> dict[str, float]:
    """Where the interval, its value and no difference are drawn, from left to right."""
    points = {"zero": 0.0, "low": difference.low, "value": difference.value, "high": difference.high}
    left, right = min(points.values()), max(points.values())
    scale = (WIDTH - 2 * MARGIN) / ((right - left) or 1.0)
    return {name: round(MARGIN + (point - left) * scale, 2) for name, point in points.items()}
