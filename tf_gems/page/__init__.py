"""A local web page that compares sparse and dense networks."""

from tf_gems.page.server import make_server
from tf_gems.page.server import serve
from tf_gems.page.static_copy import copy_page
from tf_gems.page.writing import write_page

__all__ = ["copy_page", "make_server", "serve", "write_page"]
