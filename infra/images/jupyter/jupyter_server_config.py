"""How JupyterLab runs under Sophon, in a container or as a child process; where it listens is on its command line."""

import os
import sys
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

sys.path.insert(0, str(Path(__file__).parent))
from sophon_jupyter import SophonIdentityProvider  # found beside this file

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821 (Jupyter's own)

state = Path(jupyter_data_dir()) / "sophon"
state.mkdir(parents=True, exist_ok=True)

# Who may ask. The Host is the public one, so Jupyter cannot know it; the token in every request is what counts.
# Origin stays strict: allow_origin is not set.
c.ServerApp.identity_provider_class = SophonIdentityProvider
c.ServerApp.allow_remote_access = True
c.ServerApp.cookie_secret = os.urandom(32)  # nobody signs in by Jupyter's cookie: no file that a kernel could read

# The platform starts and stops; JupyterLab does neither, and asks no one on the internet.
c.ServerApp.base_url = "/"
c.ServerApp.open_browser = False
c.ServerApp.quit_button = False
c.ServerApp.shutdown_no_activity_timeout = 0
c.MappingKernelManager.cull_idle_timeout = 0
c.TerminalManager.cull_inactive_timeout = 0
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"

# No language server is installed, and the shim serves the classic notebook's configuration: both only cost time.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}


# Pages that do not ask for what is off, nor whether the reader wants news, nor for a rebuild (which needs Node).
QUIET = (
    "@jupyterlab/apputils-extension:announcements",
    "@jupyterlab/fileeditor-extension:language-server",
    "@jupyterlab/lsp-extension",
    "@jupyterlab/notebook-extension:language-server",
)


def quiet(_handler: Any, page: dict[str, Any]) -> dict[str, Any]:
    """JupyterLab's configuration for one page, with the plugins above off."""
    disabled = sorted({*page.get("disabledExtensions", ()), *QUIET})
    return {**page, "disabledExtensions": disabled, "buildCheck": False, "buildAvailable": False}


c.ServerApp.tornado_settings = {"page_config_hook": quiet}

# What must outlive a container is with the notebook: settings, layout, the identity and history of shared documents
# (a browser that reconnects after a restart goes on with the edits it has). Deleted files do not fill the volume.
c.LabApp.user_settings_dir = str(state / "settings")
c.LabApp.workspaces_dir = str(state / "workspaces")
c.BaseFileIdManager.db_path = str(state / "files.db")
c.SQLiteYStore.db_path = str(state / "documents.db")
c.SQLiteYStore.squash_after_inactivity_of = 7 * 24 * 60 * 60
c.YDocExtension.session_store_path = str(state / "sessions.json")
c.FileContentsManager.delete_to_trash = False
