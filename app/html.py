"""The few pages that are not the web app's: signing in, and why a notebook is not there."""

from html import escape
from string import Template
from urllib.parse import parse_qs

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
$head<title>$title</title>
<style>
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 12vh auto; max-width: 26rem; padding: 0 1.25rem }
h1 { font-size: 1.5rem; line-height: 1.25 }
label { display: block; margin: .75rem 0 }
input { box-sizing: border-box; display: block; font: inherit; padding: .5rem; width: 100% }
button { font: inherit; margin-top: .75rem; padding: .5rem 1.25rem }
.problem { color: #b3261e }
@media (prefers-color-scheme: dark) { .problem { color: #ffb4ab } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


def page(title: str, body: str, head: str = "") -> bytes:
    """Make a page; the title is text, `body` and `head` are HTML."""
    return _PAGE.substitute(title=escape(title), body=body, head=head).encode()


def policy(forms_to: str, script: str | None = None) -> str:
    """Give a page's Content-Security-Policy: where its forms may go, and the one script (its hash) that may run."""
    scripts = f"script-src '{script}'; " if script else ""
    return (
        f"default-src 'none'; {scripts}style-src 'unsafe-inline'; "
        f"form-action {forms_to}; frame-ancestors 'none'; base-uri 'none'"
    )


def form_of(body: bytes) -> dict[str, str]:
    """Read a form's fields, the first of each name; raises `ValueError` for more than ten."""
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    return {name: values[0] for name, values in fields.items()}


def is_local_path(path: str) -> bool:
    """Whether a path leads to this origin and no other: nothing that a browser could read as a host."""
    return (
        path.startswith("/")
        and not path.startswith(("//", "/\\"))
        and len(path) <= 1_000
        and path.isascii()
        and path.isprintable()
    )
