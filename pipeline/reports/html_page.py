"""HTML pages from the Jinja2 templates in ``templates/``.

Pages are self-contained: they have no scripts and load no other files. Jinja2 escapes every value, so
that names and text from outside cannot add markup.
"""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return the page that ``templates/<template>`` gives with ``values`` as its variables."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = "{:,}".format
    return environment


def percent(share: float) -> str:
    """Format a share from 0 to 1; a small positive share never reads as zero."""
    return f"{share:.1%}" if share >= 0.0005 or share <= 0 else "<0.1%"
