"""A local page that runs sparse beside dense networks in the browser."""

from tf_gems.page.server import make_server
from tf_gems.page.server import serve

__all__ = ["make_server", "serve"]
