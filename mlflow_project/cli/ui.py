"""`ui`: MLflow's UI of the store at hand, opened at the view that matters."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import ExitStack

import click
from rich.text import Text

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import stdout, verb_session
from mlflow_project.tracking.terminal import escaped

EXAMPLE = """\b
Example:
  rlinf-isaac ui
  rlinf-isaac ui 0123456789abcdef0123456789abcdef
  rlinf-isaac ui --port 5001
  MLFLOW_TRACKING_URI=http://tracking:5000 rlinf-isaac ui"""


@click.command("ui", epilog=EXAMPLE)
@click.argument("run", metavar="[RUN]", required=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to serve on; by default the first free one from 5000."
)
@options.option("--host", "Address to serve on; 0.0.0.0 shows the store to everybody in the network.", "127.0.0.1")
@click.option(
    "--browser",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Open a browser; auto: where there is a screen.",
)
def command(run: str | None, port: int | None, host: str, browser: str) -> None:
    """Serve MLflow's UI, and print (and open) the comparison of the checkpoints that were evaluated last, or of RUN.

    RUN is a run's id (its first digits suffice), a link of the MLflow UI or a run's name. The store is that of RUN,
    else the one that MLFLOW_TRACKING_URI names, else mlflow.db here or in the nearest directory above, else the one
    that was used last. Ctrl-C ends the server.
    """
    with verb_session():
        from mlflow_project.tracking.mlflow_environment import prepare_environment

        prepare_environment()
        from mlflow_project.tracking.redact import without_credentials
        from mlflow_project.watching import served

        uri, found = served.find_store(run)
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        address = uri if uri.startswith("http") else ""
        with ExitStack() as stack:
            child = None
            if not address:
                usual = f"http://{host}:{port or 5000}"
                if found is not None and port is None and served.is_served(usual, found.info.run_id):
                    address = usual
                    stdout.print(f"served already at {usual}")
                else:
                    chosen = served.free_port(port, host)
                    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{chosen}"
                    stdout.print(f"starting MLflow's server for {without_credentials(uri)}")
                    child = stack.enter_context(served.serving(uri, host, chosen))
                    served.wait_for(child, address)
            link = served.view_of(client, address, found)
            if child is None:
                _say("store", without_credentials(uri))
            if found is not None:
                _say("run", f"{found.info.run_name}  {found.info.run_id}")
            _say("open", link, "bold")
            if child is not None and host == "127.0.0.1":
                _say("from elsewhere", f"{served.tunnel(chosen)}   then open the same link there")
            if browser == "yes" or (browser == "auto" and _has_screen()):
                webbrowser.open(link)
            if child is None:
                return
            stdout.print("Ctrl-C ends the server.")
            sys.stdout.flush()
            try:
                while not child.wait(3600):
                    pass
            except KeyboardInterrupt:
                stdout.print("\nended")
                return
            raise served.UiFailed(f"MLflow's server ended with {child.ending}")


def _say(name: str, value: str, style: str = "") -> None:
    stdout.print(Text.assemble((f"{name:<14} ", "dim"), (escaped(value), style)))


def _has_screen() -> bool:
    if not stdout.is_terminal or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform == "darwin" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
